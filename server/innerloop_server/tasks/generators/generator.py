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
class Feedback:
    """How one proposed task went."""

    task: Task
    returns: tuple[float, ...]
    """Mean undiscounted return after 0, 1, ..., K adaptation steps."""


class TaskGenerator(Protocol):
    """Proposes tasks and learns from how they went."""

    def initial(self) -> Arrays:
        """The state before anything was proposed."""
        ...

    def propose(self, state: Arrays, n: int) -> tuple[tuple[Task, ...], Arrays]:
        """The next n tasks, and the state after them."""
        ...

    def report(self, state: Arrays, feedback: Sequence[Feedback]) -> Arrays:
        """The state after hearing how proposed tasks went."""
        ...
