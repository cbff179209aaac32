"""The adversary of PAIRED as a proposer of tasks: it writes a task's numbers one after the other.

Importing this and proposing need no torch; learning does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from innerloop.arrays import Array, Arrays
from innerloop_server.domain import Split, Task
from innerloop_server.learners import perceptron
from innerloop_server.streams import Purpose, stream
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.generators.cube import ParameterCube
from innerloop_server.tasks.generators.generator import Proposal
from innerloop_server.training import packed

ADVERSARY = "adversary"
CHOICES = "adversary/choices"
_NOT_ITS_OWN = -1


@dataclass(frozen=True)
class AdversaryGenerator:
    """Tasks of a policy over bins (``learners.adversary``).

    State, all under ``adversary/``: the network (``packed``); ``proposed`` tasks; ``choices`` [n, P] int64, the bins of
    the last proposal (-1 throughout a row: that task is the family's own, since every try was refused).
    """

    family: Family
    seed: int
    split: Split = Split.TRAIN
    bins: int = 12
    """Parts of a continuous coordinate, or of one with more values than this; within a part all is equally likely."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    attempts: int = 16
    """Tasks that are written for one, where the family refuses them."""
    epochs: int = 4
    clip: float = 0.2
    entropy: float = 0.2
    """Weight of the entropy of a choice, in units of the standard deviation of regret."""
    learning_rate: float = 1e-3

    @cached_property
    def cube(self) -> ParameterCube:
        """The parameter space.

        Raises:
            InvalidField: tasks of this family cannot be made up.
        """
        return ParameterCube(self.family, "paired")

    @cached_property
    def parts(self) -> Array:
        """[P] int64: bins that each coordinate has."""
        few = (self.cube.levels > 0) & (self.cube.levels < self.bins)
        return np.where(few, self.cube.levels, self.bins)

    def initial(self) -> Arrays:
        """A nearly uniform adversary.

        Raises:
            InvalidField: tasks of this family cannot be made up.
        """
        sizes = (2 * self.cube.size, *self.hidden_sizes, self.bins)
        weights = perceptron.initial(sizes, stream(self.seed, Purpose.INITIAL_META, 2), last_layer_scale=0.01)
        return {
            **packed.fresh(ADVERSARY, weights),
            f"{ADVERSARY}/proposed": np.asarray(0, np.int64),
            CHOICES: np.zeros((0, self.cube.size), np.int64),
        }

    def propose(self, state: Arrays, n: int) -> tuple[Proposal, Arrays]:
        """Tasks; each has a stream of its own."""
        first = int(state[f"{ADVERSARY}/proposed"])
        weights = packed.part(state, f"{ADVERSARY}/weights")
        part = list(Split).index(self.split)
        written = [self._task(weights, stream(self.seed, Purpose.GENERATOR, part, first + i)) for i in range(n)]
        after = {
            **state,
            f"{ADVERSARY}/proposed": np.asarray(first + n, np.int64),
            CHOICES: np.stack([choices for _, choices in written]),
        }
        return Proposal.to_learn([task for task, _ in written]), after

    def learn(self, state: Arrays, regrets: Array) -> Arrays:
        """The state after hearing the regret of each task of the last proposal, [n]."""
        from innerloop_server.training.adversary_fit import fit

        own = (state[CHOICES] != _NOT_ITS_OWN).all(-1)
        if not own.any():
            return state
        return {**state, **fit(self, state, state[CHOICES][own], regrets[own])}

    def centres(self, choices: Array) -> Array:
        """The middle of each bin, in [-1, 1]."""
        middle: Array = (2 * choices + 1) / self.parts - 1
        return middle

    def _task(self, weights: Arrays, rng: np.random.Generator) -> tuple[Task, Array]:
        """A task and its bins."""
        for _ in range(self.attempts):
            choices = self._write(weights, rng)
            inside = (2 * rng.random(len(choices)) - 1) / self.parts
            task = self.cube.task(self.centres(choices) + inside)
            if task is not None:
                return task, choices
        drawn = self.family.check(self.family.sample(rng, self.split))
        return Task(self.family.name, drawn), np.full(self.cube.size, _NOT_ITS_OWN, np.int64)

    def _write(self, weights: Arrays, rng: np.random.Generator) -> Array:
        """[P] int64 bins, each drawn given those before it."""
        p = self.cube.size
        choices = np.zeros(p, np.int64)
        seen = np.zeros(2 * p, np.float32)
        for j in range(p):
            seen[p:] = 0
            seen[p + j] = 1
            logits = perceptron.forward(weights, seen)[: self.parts[j]].astype(np.float64)
            cumulative = np.cumsum(np.exp(logits - logits.max()))
            choices[j] = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
            seen[j] = (2 * choices[j] + 1) / self.parts[j] - 1
        return choices
