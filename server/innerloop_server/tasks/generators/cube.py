"""The parameter space of a family as a cube: what a generator that makes up tasks works in.

Every number among the parameters is one coordinate in [-1, 1]. A Discrete parameter cuts its edge into as many equal
parts as it has values.
"""

from __future__ import annotations

import gymnasium
import numpy as np

from innerloop.arrays import Array, Arrays
from innerloop_server.domain import Task
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.family import Family

MOST_COORDINATES = 32
"""A teacher of more numbers than this (a transition table, say) would fit noise."""


class ParameterCube:
    """Points [P] float64 in [-1, 1] and the tasks they stand for."""

    def __init__(self, family: Family, generator: str) -> None:
        """Args:
        family: whose tasks.
        generator: the name that an error blames.

        Raises:
            InvalidField: parameters of this family cannot be made up: they have no bounds, there are too many, or the
                splits hold parts of them out from each other.
        """
        self.family = family
        if family.splits_hold_out:
            raise InvalidField(
                "generator",
                f"{generator} makes up parameters, and {family.name} holds some out from training; use uniform or "
                "replay",
            )
        lows, highs, levels = [], [], []
        for name, part in family.parameter_space.spaces.items():
            low, high, count = _edges(name, part, generator)
            lows.append(low)
            highs.append(high)
            levels.append(count)
        self.low = np.concatenate(lows)
        """[P] lowest value of each coordinate."""
        self.high = np.concatenate(highs)
        """[P] highest value."""
        self.levels = np.concatenate(levels)
        """[P] int64: how many values there are; 0: all between."""
        self.size = len(self.levels)
        """P."""
        if self.size > MOST_COORDINATES:
            raise InvalidField(
                "generator",
                f"{generator} makes up at most {MOST_COORDINATES} numbers a task, and {family.name} has {self.size}",
            )

    def encode(self, parameters: Arrays) -> Array:
        """The point of a task's parameters; a Discrete value is the middle of its part."""
        flat = [np.asarray(parameters[name], np.float64).ravel() for name in self.family.parameter_space.spaces]
        value = np.concatenate(flat)
        span = np.where(self.levels > 0, self.levels, np.maximum(self.high - self.low, np.finfo(np.float64).tiny))
        inside = np.where(self.levels > 0, value - self.low + 0.5, value - self.low)
        point: Array = 2 * inside / span - 1
        return point

    def decode(self, point: Array) -> dict[str, Array]:
        """Parameters at a point; what lies outside the cube is moved to its surface."""
        share = (np.clip(point, -1, 1) + 1) / 2
        whole = self.low + np.minimum(np.floor(share * self.levels), self.levels - 1)
        value = np.where(
            self.levels > 0, whole, np.clip(self.low + share * (self.high - self.low), self.low, self.high)
        )
        parameters, at = {}, 0
        for name, part in self.family.parameter_space.spaces.items():
            shape = part.shape or ()
            size = int(np.prod(shape))
            parameters[name] = value[at : at + size].reshape(shape).astype(part.dtype)
            at += size
        return parameters

    def task(self, point: Array) -> Task | None:
        """The task at a point; ``None`` where the family has none there (a goal inside a wall).

        It has no name: no (split, seed, index) of the family's own streams leads to it.
        """
        try:
            return Task(self.family.name, self.family.check(self.decode(point)))
        except InvalidField:
            return None


def _edges(name: str, part: gymnasium.Space[object], generator: str) -> tuple[Array, Array, Array]:
    """Lowest and highest value of each number, and how many there are."""
    if isinstance(part, gymnasium.spaces.Discrete):
        return np.array([part.start], float), np.array([part.start + part.n - 1], float), np.array([part.n])
    if isinstance(part, gymnasium.spaces.Box) and part.is_bounded():
        low, high = np.asarray(part.low, np.float64).ravel(), np.asarray(part.high, np.float64).ravel()
        whole = np.issubdtype(part.dtype, np.integer)
        return low, high, (high - low + 1).astype(np.int64) if whole else np.zeros(low.size, np.int64)
    raise InvalidField("generator", f"{generator} makes up parameters, and {name} lives in {part}, which has no bounds")
