"""The seam every task generator stands behind.

A generator holds settings only. Its state is a value, a flat dict of arrays, so it is saved with a training's
checkpoint and a resumed training proposes the very tasks it would have proposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from innerloop.arrays import Arrays
from innerloop_server.domain import Task


@dataclass(frozen=True)
class Proposal:
    """Tasks to run next."""

    tasks: tuple[Task, ...]
    learn: tuple[bool, ...]
    """Of each task: its episodes may change the learner. Those of the others are run and reported, and no more."""

    @staticmethod
    def to_learn(tasks: Sequence[Task]) -> Proposal:
        """Tasks that are all learned from."""
        return Proposal(tuple(tasks), (True,) * len(tasks))


@dataclass(frozen=True)
class Feedback:
    """How one proposed task went."""

    task: Task
    returns: tuple[float, ...]
    """Mean undiscounted return after 0, 1, ..., K adaptation steps."""
    best_returns: tuple[float, ...]
    """Undiscounted return of the best episode after 0, 1, ..., K adaptation steps."""
    successes: tuple[float, ...]
    """Share of the episodes that succeeded after 0, 1, ..., K adaptation steps; zeros where the family knows no
    success."""


class Proposer(Protocol):
    """Proposes tasks."""

    def initial(self) -> Arrays:
        """The state before anything was proposed."""
        ...

    def propose(self, state: Arrays, n: int) -> tuple[Proposal, Arrays]:
        """The next n tasks, and the state after them."""
        ...


class TaskGenerator(Proposer, Protocol):
    """Proposes tasks and learns from how they went."""

    def report(self, state: Arrays, feedback: Sequence[Feedback]) -> Arrays:
        """The state after hearing how the last proposal went: one feedback a task, in its order."""
        ...
