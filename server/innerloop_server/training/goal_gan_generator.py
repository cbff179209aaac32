"""GoalGAN: a generative network proposes tasks that the learner now and then succeeds at.

Florensa et al. 2018, "Automatic Goal Generation for Reinforcement Learning Agents"
(https://arxiv.org/abs/1705.06366). A task is *of intermediate difficulty* while the share of its episodes that succeed
lies between two bounds; the network is trained to propose such tasks, and those found so far are kept and come back, so
that nothing is forgotten. How a task went is judged after the last adaptation step.

Differences: half of every batch that the networks are fitted to are good tasks, points are blurred, and the
generator's target is 1 instead of 0 (``goal_gan_fit``, ``goal_gan.generator_loss``): with the paper's choices and some
dozens of tasks an update, it lost the frontier as soon as most tasks were mastered. The network is not pretrained on
states that a random policy visits, which would tie it to families whose tasks are places; until a first task of
intermediate difficulty was found, all tasks come from the family's own distribution, and a small share always does.

Importing this and proposing need no torch; hearing how it went does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from innerloop.arrays import Array, Arrays
from innerloop_server.domain import Split, Task
from innerloop_server.errors import InvalidField
from innerloop_server.learners import perceptron
from innerloop_server.streams import Purpose, stream
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.generators.cube import ParameterCube
from innerloop_server.tasks.generators.generator import Feedback, Proposal
from innerloop_server.training import packed

GENERATOR, DISCRIMINATOR = "generator", "discriminator"
ATTEMPTS = 16
"""Points that are asked of the network for one task, where the family refuses them."""


@dataclass(frozen=True)
class GoalGanGenerator:
    """Tasks from the network, from the archive of good ones, and from the family.

    State, P being the numbers of a task: both networks (``packed``); ``proposed`` tasks and ``reports`` heard;
    ``recent`` [W, P] points tried last with their ``labels`` [W] and how many were ``tried``; ``archive`` [C, P] good
    points and how many were ``archived``.
    """

    family: Family
    seed: int
    split: Split = Split.TRAIN
    low: float = 0.1
    """A task is good from this share of successes ..."""
    high: float = 0.9
    """... to this one."""
    old_share: float = 1 / 3
    """Of the tasks, how many come from the archive."""
    uniform_share: float = 0.1
    """How many from the family's own distribution."""
    noise: int = 4
    """Numbers that the network makes a task of."""
    spread: float = 0.05
    """Standard deviation of what is added to its points, against collapse."""
    hidden_sizes: tuple[int, ...] = (128, 128)
    window: int = 128
    """W: tasks tried last, which the networks are fitted to."""
    capacity: int = 1024
    """C; more good tasks than that take the place of the oldest."""
    apart: float = 0.05
    """A good task that is nearer than this to one in the archive is not kept (the cube's edge is 2)."""
    fit_steps: int = 60
    """Optimiser steps of each network a report."""
    batch: int = 128
    """Points in a step."""
    blur: float = 0.2
    """Standard deviation of what is added to all points that the discriminator sees."""
    generator_rate: float = 3e-4
    """Learning rate of Adam. Lower than the other: the generator follows a discriminator that is right by then."""
    discriminator_rate: float = 1e-3

    @cached_property
    def cube(self) -> ParameterCube:
        """The parameter space.

        Raises:
            InvalidField: tasks of this family cannot be made up.
        """
        return ParameterCube(self.family, "goal-gan")

    def initial(self) -> Arrays:
        """Fresh networks, nothing tried.

        Raises:
            InvalidField: the family says of no episode that it succeeded, or its tasks cannot be made up.
        """
        if not self.family.knows_success:
            raise InvalidField("generator", f"goal-gan goes by success, and {self.family.name} knows none")
        p = self.cube.size
        shapes = {
            GENERATOR: (self.noise, *self.hidden_sizes, p),
            DISCRIMINATOR: (p, *self.hidden_sizes, 1),
        }
        networks: dict[str, Array] = {}
        for counter, (name, sizes) in enumerate(shapes.items()):
            rng = stream(self.seed, Purpose.INITIAL_META, counter)
            networks |= packed.fresh(name, perceptron.initial(sizes, rng))
        return {
            **networks,
            "proposed": np.asarray(0, np.int64),
            "reports": np.asarray(0, np.int64),
            "recent": np.zeros((self.window, p)),
            "labels": np.zeros(self.window),
            "tried": np.asarray(0, np.int64),
            "archive": np.zeros((self.capacity, p)),
            "archived": np.asarray(0, np.int64),
        }

    def propose(self, state: Arrays, n: int) -> tuple[Proposal, Arrays]:
        """Tasks; each has a stream of its own."""
        first = int(state["proposed"])
        weights = packed.part(state, f"{GENERATOR}/weights")
        tasks = [self._task(state, weights, self._stream(first + i)) for i in range(n)]
        return Proposal.to_learn(tasks), {**state, "proposed": np.asarray(first + n, np.int64)}

    def report(self, state: Arrays, feedback: Sequence[Feedback]) -> Arrays:
        """Tasks labelled, good ones archived, both networks trained on those tried last."""
        from innerloop_server.training.goal_gan_fit import fit

        points = np.array([self.cube.encode(heard.task.parameters) for heard in feedback])
        labels = np.array([float(self.low <= heard.successes[-1] <= self.high) for heard in feedback])
        tried = int(state["tried"])
        rows = (tried + np.arange(len(points))) % self.window
        recent, marks = state["recent"].copy(), state["labels"].copy()
        recent[rows], marks[rows] = points, labels
        archive, archived = _archive(state["archive"], int(state["archived"]), points[labels > 0], self.apart)
        heard_of = {
            **state,
            "reports": np.asarray(int(state["reports"]) + 1, np.int64),
            "recent": recent,
            "labels": marks,
            "tried": np.asarray(tried + len(points), np.int64),
            "archive": archive,
            "archived": np.asarray(archived, np.int64),
        }
        filled = min(tried + len(points), self.window)
        if not marks[:filled].any():  # nothing to aim at: the networks would learn that all is bad
            return heard_of
        return {**heard_of, **fit(self, heard_of, recent[:filled], marks[:filled])}

    def _task(self, state: Arrays, weights: Arrays, rng: np.random.Generator) -> Task:
        source = rng.random()
        kept = min(int(state["archived"]), self.capacity)
        if kept and source < self.old_share:
            task = self.cube.task(state["archive"][rng.integers(kept)])
            if task is not None:  # rounding may have moved it across a wall
                return task
        if int(state[f"{GENERATOR}/count"]) and source < 1 - self.uniform_share:
            for _ in range(ATTEMPTS):
                z = rng.standard_normal(self.noise).astype(np.float32)
                point = np.tanh(perceptron.forward(weights, z)) + self.spread * rng.standard_normal(self.cube.size)
                task = self.cube.task(point)
                if task is not None:
                    return task
        return Task(self.family.name, self.family.check(self.family.sample(rng, self.split)))

    def _stream(self, counter: int) -> np.random.Generator:
        return stream(self.seed, Purpose.GENERATOR, list(Split).index(self.split), counter)


def _archive(archive: Array, archived: int, good: Array, apart: float) -> tuple[Array, int]:
    """The archive [C, P] with those of the points ``good`` [M, P] that are far from all in it; and how many were ever
    put there.
    """
    archive = archive.copy()
    for point in good:
        kept = archive[: min(archived, len(archive))]
        if len(kept) == 0 or np.linalg.norm(kept - point, axis=-1).min() >= apart:
            archive[archived % len(archive)] = point
            archived += 1
    return archive, archived
