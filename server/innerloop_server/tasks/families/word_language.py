"""``word-language``: few-shot recognition of which language a word is from, with languages held out."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium
import numpy as np

from innerloop.arrays import Array, Arrays, Box
from innerloop_server.domain import Split, Task
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.families.supervised import Classification, Example, pick, supervised_env
from innerloop_server.tasks.families.word_lists import ALL, LANGUAGES, LONGEST, WORDS, word_lists
from innerloop_server.tasks.family import Extra

if TYPE_CHECKING:
    import torch

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOWELS = "aeiouy"
EDGE = 3
"""Letters that are seen in their place, at either end."""
SIZE = (2 * EDGE + 1) * len(LETTERS)
CIPHERS = 10_000
"""Ways to spell; number 0 is the usual one."""
CIPHERED = 0.75
"""Share of training tasks in another spelling."""


class Words(NamedTuple):
    """Every word as letters, those of a language in neighbouring rows."""

    table: Array
    """[R, LONGEST] int64: places in ``LETTERS``; behind a word's end, ``len(LETTERS)``."""
    length: Array
    """[R] int64: letters of a word."""


@functools.lru_cache(maxsize=1)
def words() -> Words:
    """All of ``word_lists``; WORDS rows a language, in the order of ``ALL``."""
    spelled = [word for these in word_lists() for word in these]
    flat = "".join(word.ljust(LONGEST, "{") for word in spelled)  # "{" comes after "z"
    table = np.frombuffer(flat.encode(), np.uint8).reshape(-1, LONGEST).astype(np.int64) - ord("a")
    return Words(table, np.array([len(word) for word in spelled]))


@functools.lru_cache(maxsize=CIPHERS)
def cipher(number: int) -> Array:
    """What stands for each letter: [len(LETTERS)] int64, vowels for vowels and consonants for consonants."""
    stand_in = np.arange(len(LETTERS))
    if number:
        rng = np.random.Generator(np.random.Philox(number))
        for kind in (True, False):
            places = np.array([place for place, letter in enumerate(LETTERS) if (letter in VOWELS) is kind])
            stand_in[places] = rng.permutation(places)
    return stand_in


def encode(word: Array, length: int, stand_in: Array) -> Array:
    """A word as the policy sees it.

    Args:
        word: [LONGEST] int64, as in :class:`Words`.
        length: its letters, EDGE at least.
        stand_in: [len(LETTERS)] int64, from :func:`cipher`.

    Returns:
        [SIZE] float32: its first EDGE letters, one-hot; its last EDGE, from the end; how often it has each letter.
    """
    letters = stand_in[word[:length]]
    one_hot = np.eye(len(LETTERS), dtype=np.float32)[letters]
    seen: Array = np.concatenate([one_hot[:EDGE], one_hot[::-1][:EDGE], one_hot.sum(0, keepdims=True)]).ravel()
    return seen


def example_words(task: Task, count: int) -> list[list[str]]:
    """For people: the ``count`` most frequent support words of each label, as the task spells them.

    Args:
        task: of ``word-language``, whatever its ways.
        count: WORDS / 2 at most.
    """
    stand_in = cipher(int(task.parameters["cipher"]))
    spelling = str.maketrans(LETTERS, "".join(LETTERS[place] for place in stand_in))
    languages = [int(value) for name, value in task.parameters.items() if name.startswith("class_")]
    return [[word.translate(spelling) for word in word_lists()[language][:count]] for language in languages]


class WordLanguage(Classification):
    """Words of languages written in Latin letters, a few languages at a time."""

    name = "word-language"
    title = "Tell which language a word is from, in languages that were never shown before"
    classes = len(ALL)
    groups = {  # noqa: RUF012 - a table
        split: (tuple(ALL.index(language) for language in languages),) for split, languages in LANGUAGES.items()
    }
    extra = Extra("language", ("wordfreq",))

    def __init__(self, ways: int = 2) -> None:
        """As :class:`Classification`."""
        super().__init__(ways)
        names = ", ".join(self._class_names)
        of = {split: ", ".join(languages) for split, languages in LANGUAGES.items()}
        self.description = (
            f"An example is a real word as {SIZE} numbers: its first three letters and its last three, each one-hot, "
            "and how often it has each letter. The action is the label of its language. Hidden: the language behind "
            f"each of the {ways} labels ({names}), all different and in any order, and cipher: in three of four "
            "training tasks vowels stand for other vowels and consonants for other consonants, one of 9,999 ways and "
            "the same for all words of the task. Validation and test tasks are always spelled as usual (cipher 0). "
            "Without the ciphers a learner knows its few training languages by heart and does not learn to adapt "
            f"(Rajendran et al. 2020). Training draws from {of[Split.TRAIN]}; validation from {of[Split.VALIDATION]}; "
            f"test from {of[Split.TEST]} (codes of wordfreq); close relatives are in one split. Words: the 4,000 most "
            "frequent ones of 4 to 10 letters that no other of these languages has among its 20,000 most frequent, "
            "without accents, which would give languages away; all are equally likely. Support and queries are "
            "different words. Horizon 1: one example an episode; its feedback is the label. Reward: 1 if the label is "
            "right, else 0. The word lists are those of wordfreq (Speer 2022); the family is ours."
        )

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """The classes, and ``cipher``."""
        return gymnasium.spaces.Dict({**super().parameter_space, "cipher": gymnasium.spaces.Discrete(CIPHERS)})

    @functools.cached_property
    def observation_space(self) -> Box:
        """See :func:`encode`."""
        high = np.ones(SIZE, np.float32)
        high[-len(LETTERS) :] = LONGEST
        return Box.of(0.0, high, (SIZE,))

    def sample(self, rng: np.random.Generator, split: Split = Split.TRAIN) -> dict[str, Array]:
        """The classes as ever; a cipher in training alone."""
        drawn = super().sample(rng, split)
        ciphered = split is Split.TRAIN and rng.random() < CIPHERED
        return {**drawn, "cipher": np.asarray(rng.integers(1, CIPHERS) if ciphered else 0)}

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """See :class:`~innerloop_server.tasks.families.supervised.SupervisedEnv`."""
        self.extra.require(self.name)
        table, length = words()
        first = self.classes_of(task.parameters) * WORDS
        stand_in = cipher(int(task.parameters["cipher"]))

        def example(label: int, uniforms: Array) -> Example:
            row = first[label] + pick(float(uniforms[0]), WORDS)
            return encode(table[row], length[row], stand_in), np.array([label], np.float32)

        return supervised_env(self, example, 1)

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        """See :class:`~innerloop_server.tasks.families.word_language_batch.WordLanguageBatch`."""
        from innerloop_server.tasks.families.word_language_batch import WordLanguageBatch

        self.extra.require(self.name)
        table, length = words()
        stand_in = np.stack([cipher(int(number)) for number in parameters["cipher"]])
        return WordLanguageBatch(table, length, self.classes_of(parameters) * WORDS, WORDS, stand_in, EDGE, device)
