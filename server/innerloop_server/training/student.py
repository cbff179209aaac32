"""What a teacher teaches: something that plays tasks and learns from how it played."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from innerloop_server.domain import Task
from innerloop_server.learners.learner import Tensors
from innerloop_server.tasks.generators.generator import Feedback
from innerloop_server.training.optimiser import AdamState

EpisodesT = TypeVar("EpisodesT")
"""A student's own record of its episodes; nobody else looks into it."""


@dataclass(frozen=True)
class Played(Generic[EpisodesT]):
    """What came of playing M tasks."""

    episodes: EpisodesT
    feedback: tuple[Feedback, ...]
    """[M] in the order of the tasks."""
    environment_steps: int
    metrics: dict[str, float]
    """Of the episodes."""


class Student(abc.ABC, Generic[EpisodesT]):
    """Learns one set of meta-parameters; it holds settings only."""

    @property
    @abc.abstractmethod
    def tasks_per_update(self) -> int:
        """Tasks that it wants to play before it learns."""

    @abc.abstractmethod
    def initial_meta(self, seed: int) -> Tensors:
        """Fresh meta-parameters, on the CPU."""

    @abc.abstractmethod
    def play(self, meta: Tensors, tasks: Sequence[Task], seeds: Sequence[int]) -> Played[EpisodesT]:
        """Run episodes of tasks; the seeds, one a task, name everything that is drawn."""

    def remember(
        self, memory: Tensors, played: Played[EpisodesT], learn: Sequence[bool], update: int, seed: int
    ) -> tuple[Tensors, Played[EpisodesT]]:
        """What the student keeps for later updates, and what it is to learn from now. Nothing is kept unless a student
        says so.

        Args:
            memory: as this gave it in the update before; empty in the first one.
            played: by :meth:`play`.
            learn: of each task, whether it may change anything.
            update: updates behind the meta-parameters that played.
            seed: of the training; with ``update`` it names everything that is drawn.

        Returns:
            (memory, played); the memory is part of every checkpoint, so it should be bounded.
        """
        del learn, update, seed
        return memory, played

    @abc.abstractmethod
    def learn(
        self,
        meta: Tensors,
        adam: AdamState,
        played: Played[EpisodesT],
        learn: Sequence[bool],
        update: int,
        seed: int,
    ) -> tuple[Tensors, AdamState, dict[str, float]]:
        """Meta-parameters after learning from what was played.

        Args:
            meta: those that played.
            adam: what the optimiser remembers.
            played: by :meth:`play`.
            learn: of each task, whether it may change anything. None at all: ``meta`` and ``adam`` stay as they are.
            update: updates behind ``meta``.
            seed: of the training; with ``update`` it names everything that is drawn.

        Returns:
            (meta, adam, metrics); the metrics have the same names every time.
        """

    def conclude(
        self, memory: Tensors, meta: Tensors, adam: AdamState, update: int, seed: int
    ) -> tuple[Tensors, Tensors, AdamState, int]:
        """What goes on into the next update: as it is, unless a student says otherwise.

        Args:
            memory: as :meth:`remember` gave it.
            meta: meta-parameters as :meth:`learn` gave them.
            adam: what the optimiser remembers.
            update: updates that were behind the meta-parameters that played.
            seed: of the training; with ``update`` it names everything that is drawn.

        Returns:
            (memory, meta, adam, environment steps that this took).
        """
        del update, seed
        return memory, meta, adam, 0


def feedback_of(
    tasks: Sequence[Task], returns: Sequence[torch.Tensor], successes: Sequence[torch.Tensor]
) -> tuple[Feedback, ...]:
    """One feedback a task, of the [B, N] returns and successes of its episodes after each k."""
    columns = (
        torch.stack([one.mean(-1) for one in returns], -1).tolist(),
        torch.stack([one.amax(-1) for one in returns], -1).tolist(),
        torch.stack([one.double().mean(-1) for one in successes], -1).tolist(),
    )
    rows = zip(tasks, *columns, strict=True)
    return tuple(Feedback(task, tuple(mean), tuple(best), tuple(share)) for task, mean, best, share in rows)
