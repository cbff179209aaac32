"""The grid generator: tasks that cover the parameter space evenly, to see what a learner is good at, and where.

Numbers follow an additive recurrence: coordinate j of point i is ``frac(shift_j + i * g^-(j+1))`` with g the root of
``g^(P+1) = g + 1``, the golden ratio for P = 1 (Kronecker 1884; this choice of steps: Roberts 2018,
https://extremelearning.com.au/unreasonable-effectiveness-of-quasirandom-sequences). Any n points in a row are spread
evenly, so one need not know n beforehand, and point i needs none of those before it.

It is computed in 64-bit fixed point with odd steps, where different i give different points (53 bits are kept). A split
has a quarter of all i to itself, so the splits of a seed never meet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from innerloop.arrays import Array, Arrays
from innerloop_server.domain import Split, Task
from innerloop_server.errors import InvalidField
from innerloop_server.streams import Purpose, stream
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.generators.cube import ParameterCube
from innerloop_server.tasks.generators.generator import Feedback, Proposal

MOST_SKIPPED = 100_000
"""Where a family refuses points, the points before ``start`` have to be looked at one by one: at most so many."""
MOST_REFUSED = 10_000
"""Points refused in a row after which a family is taken to have no free parameters."""
_ALL_COMBINATIONS = 256
"""Discrete parameters with at most so many combinations take each of them in turn."""
_BITS = 64
_QUARTER = 1 << (_BITS - 2)
_FIRST: Mapping[Split, int] = {split: part * _QUARTER for part, split in enumerate(Split)}


@dataclass(frozen=True)
class GridGenerator:
    """Even cover. State: ``position``, int64: the next point of the sequence.

    Points that the family refuses (a goal in a wall) are passed over, so task i is the i-th point that it takes.
    """

    family: Family
    seed: int
    split: Split = Split.TRAIN
    start: int = 0
    """Index of the first task."""

    @cached_property
    def cube(self) -> ParameterCube:
        """The parameter space.

        Raises:
            InvalidField: it cannot be covered.
        """
        return ParameterCube(self.family, "grid")

    def initial(self) -> Arrays:
        """At ``start``.

        Raises:
            InvalidField: the parameter space cannot be covered; or ``start`` is too far, where points are refused.
        """
        _ = self.cube
        if self.start >= _QUARTER:
            raise InvalidField("start_index", f"a grid starts below {_QUARTER}")
        position = self.start
        if type(self.family).check is not Family.check:
            if self.start > MOST_SKIPPED:
                raise InvalidField("start_index", f"a grid of {self.family.name} starts at {MOST_SKIPPED} at most")
            position = 0
            for _ in range(self.start):
                position = self._next(position)[1]
        return {"position": np.asarray(position, np.int64)}

    def propose(self, state: Arrays, n: int) -> tuple[Proposal, Arrays]:
        """The next n tasks.

        Raises:
            InvalidField: the parameter space cannot be covered; or the grid has no n points left (``start_index``).
        """
        position = int(state["position"])
        if position + n > _QUARTER:
            raise InvalidField("start_index", f"a grid has {_QUARTER} points")
        tasks = []
        for _ in range(n):
            task, position = self._next(position)
            tasks.append(task)
        return Proposal.to_learn(tasks), {"position": np.asarray(position, np.int64)}

    def report(self, state: Arrays, feedback: Sequence[Feedback]) -> Arrays:  # noqa: ARG002 - a grid listens to nobody
        """Unchanged."""
        return state

    def point(self, position: int) -> Array:
        """[P] in [-1, 1): the point at ``position``, refused or not."""
        ordinal = _FIRST[self.split] + position
        fixed = [(shift + ordinal * step) % (1 << _BITS) for shift, step in zip(*self._sequence, strict=True)]
        point = np.array([2 * ((x >> 11) / (1 << 53)) - 1 for x in fixed])
        turn = position * self._stride + self._sequence[0][0]
        for j in self._taken_in_turn:
            turn, value = divmod(turn, int(self.cube.levels[j]))
            point[j] = (2 * value + 1) / self.cube.levels[j] - 1
        return point

    def _next(self, position: int) -> tuple[Task, int]:
        """The first task at or after ``position``, and the position after it."""
        for tried in range(position, position + MOST_REFUSED):
            task = self.cube.task(self.point(tried))
            if task is not None:
                return task, tried + 1
        raise InvalidField("generator", f"grid finds no tasks: parameters of {self.family.name} depend on each other")

    @cached_property
    def _stride(self) -> int:
        """From one combination of discrete values to the next: about 0.618 of them all, so that few tasks are spread
        too, and without a common divisor, so that each has its turn.
        """
        combinations = math.prod(int(self.cube.levels[j]) for j in self._taken_in_turn)
        stride = max(1, round(combinations * (math.sqrt(5) - 1) / 2))
        while math.gcd(stride, combinations) > 1:
            stride += 1
        return stride

    @cached_property
    def _sequence(self) -> tuple[list[int], list[int]]:
        """Shift and step of each coordinate, in units of 2^-64. The shift belongs to the seed."""
        shifts = stream(self.seed, Purpose.GENERATOR).integers(0, 2**_BITS, self.cube.size, np.uint64, endpoint=False)
        g = _generalised_golden_ratio(self.cube.size)
        steps = [int(g ** -(j + 1) * 2**_BITS) | 1 for j in range(self.cube.size)]
        return [int(shift) for shift in shifts], steps

    @cached_property
    def _taken_in_turn(self) -> list[int]:
        """Coordinates whose values are counted through instead of following the sequence."""
        whole = [j for j in range(self.cube.size) if self.cube.levels[j] > 0]
        return whole if math.prod(int(self.cube.levels[j]) for j in whole) <= _ALL_COMBINATIONS else []


def _generalised_golden_ratio(dimensions: int) -> float:
    """The root above 1 of ``g^(dimensions + 1) = g + 1``, by iterating its fixed point."""
    g = 2.0
    for _ in range(64):
        g = (1 + g) ** (1 / (dimensions + 1))
    return g
