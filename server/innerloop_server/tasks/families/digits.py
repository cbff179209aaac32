"""``digits``: few-shot classification of scanned handwritten digits, with new label meanings in each task."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from innerloop.arrays import Array, Arrays, Box
from innerloop_server.domain import Split, Task
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.families.supervised import Classification, Example, pick, supervised_env
from innerloop_server.tasks.family import Extra

if TYPE_CHECKING:
    import torch

DIGITS = 10
TURNS = 4
PIXELS = 64
"""8 x 8."""
BRIGHTEST = 16.0
"""Of the scans as scikit-learn ships them."""


@dataclass(frozen=True)
class Scans:
    """Every scan in every turn; those of one (turn, digit) in neighbouring rows."""

    table: Array
    """[R, 64] float32 in [0, 1], the images row by row."""
    first: Array
    """[TURNS, DIGITS] int64: the first row of a digit in a turn."""
    count: Array
    """[DIGITS] int64: scans of a digit. Even, so that the half for support and the half for queries share none."""


@functools.lru_cache(maxsize=1)
def scans() -> Scans:
    """The digits of scikit-learn (UCI's optical recognition test set, Alpaydin and Kaynak 1998: 1,797 scans by 13
    people), each digit's in the order of the collection.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images / BRIGHTEST).astype(np.float32).reshape(-1, 8, 8)
    of_digit = [images[labels == digit] for digit in range(DIGITS)]
    of_digit = [these[: len(these) // 2 * 2] for these in of_digit]
    count = np.array([len(these) for these in of_digit])
    first = np.cumsum(np.append(0, np.tile(count, TURNS)))[:-1].reshape(TURNS, DIGITS)
    upright = np.concatenate(of_digit)
    turned = [np.rot90(upright, turn, axes=(1, 2)).reshape(-1, PIXELS) for turn in range(TURNS)]
    return Scans(np.concatenate(turned), first, count)


class Digits(Classification):
    """scikit-learn's digits, a few classes at a time."""

    name = "digits"
    title = "Tell handwritten digits apart that were never shown before"
    classes = DIGITS
    groups = {  # noqa: RUF012 - a table
        Split.TRAIN: ((0, 3, 4, 7),),
        Split.VALIDATION: ((1, 5, 8),),
        Split.TEST: ((2, 6, 9),),
    }
    extra = Extra("images", ("sklearn",))

    def __init__(self, ways: int = 2) -> None:
        """As :class:`Classification`: two or three ways."""
        super().__init__(ways)
        names = ", ".join(self._class_names)
        self.description = (
            "An example is a real scan of a handwritten digit, 8 x 8 pixels in [0, 1] as 64 numbers, and the action "
            f"its label. Hidden: the digit behind each of the {ways} labels ({names}), all different and in any order, "
            "and quarter_turns, by which all scans of the task are turned. Training draws its tasks from 0, 3, 4, 7, "
            "validation from 1, 5, 8, test from 2, 6, 9 (6 and 9, each the other upside down, in one split). Horizon "
            "1: one example an episode; its feedback is the label. Reward: 1 if the label is right, else 0. Support "
            "and queries come from different halves of a digit's scans. The scans are scikit-learn's (UCI optical "
            "recognition of handwritten digits), whose own task is all ten classes at once with fixed labels; turning "
            "whole classes to have more of them follows Santoro et al. 2016."
        )

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """The classes, and ``quarter_turns``, counter-clockwise."""
        return gymnasium.spaces.Dict({**super().parameter_space, "quarter_turns": gymnasium.spaces.Discrete(TURNS)})

    @functools.cached_property
    def observation_space(self) -> Box:
        """Ink, row by row."""
        return Box.of(0.0, 1.0, (PIXELS,))

    def sample(self, rng: np.random.Generator, split: Split = Split.TRAIN) -> dict[str, Array]:
        """The classes as ever; any turn."""
        return {**super().sample(rng, split), "quarter_turns": np.asarray(rng.integers(TURNS))}

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """See :class:`~innerloop_server.tasks.families.supervised.SupervisedEnv`."""
        self.extra.require(self.name)
        table, first, count = self._rows(task.parameters)

        def example(label: int, uniforms: Array) -> Example:
            row = first[label] + pick(float(uniforms[0]), int(count[label]))
            return table[row].copy(), np.array([label], np.float32)

        return supervised_env(self, example, 1)

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        """See :class:`~innerloop_server.tasks.families.supervised_batch.LookupBatch`."""
        from innerloop_server.tasks.families.supervised_batch import LookupBatch

        self.extra.require(self.name)
        return LookupBatch(*self._rows(parameters), device)

    def _rows(self, parameters: Arrays) -> tuple[Array, Array, Array]:
        """Table, and for parameters [...] the first row and the number of rows behind each label, [..., ways]."""
        found = scans()
        digits = self.classes_of(parameters)
        turn = np.asarray(parameters["quarter_turns"])[..., None]
        return found.table, found.first[turn, digits], found.count[digits]
