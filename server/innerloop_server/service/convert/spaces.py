"""Spaces between messages, ``innerloop.arrays`` and gymnasium."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np

from innerloop.arrays import Box, Discrete, Space
from innerloop.v1 import array_pb2
from innerloop_server.errors import InvalidField

LARGEST_SPACE = 1_000_000
"""Most numbers of one element, or elements of a finite set. Past it a network's first layer would not fit anyway."""


def space_to_pb(space: Space) -> array_pb2.Space:
    """A space as a message."""
    if isinstance(space, Discrete):
        return array_pb2.Space(discrete=array_pb2.DiscreteSpace(n=space.n))
    return _box(space.low, space.high)


def gymnasium_space_to_pb(space: gymnasium.Space[object]) -> array_pb2.Space:
    """A gymnasium space as a message, bounds in full precision.

    Raises:
        InvalidField: neither a Box nor a Discrete that starts at 0: the contract has no word for it.
    """
    if isinstance(space, gymnasium.spaces.Box):
        return _box(space.low, space.high)
    if isinstance(space, gymnasium.spaces.Discrete) and space.start == 0:
        return array_pb2.Space(discrete=array_pb2.DiscreteSpace(n=int(space.n)))
    raise InvalidField("space", f"{space} is neither a Box nor a Discrete that starts at 0")


def space_from_pb(message: array_pb2.Space, field: str) -> Space:
    """A message as a space.

    Args:
        message: what came.
        field: its path in the request.

    Raises:
        InvalidField: no kind, an empty set, bounds that do not fill the shape, are NaN or the wrong way round.
    """
    kind = message.WhichOneof("kind")
    if kind == "discrete":
        if not 1 <= message.discrete.n <= LARGEST_SPACE:
            raise InvalidField(f"{field}.discrete.n", f"is {message.discrete.n}; give 1 to {LARGEST_SPACE}")
        return Discrete(int(message.discrete.n))
    if kind != "box":
        raise InvalidField(field, "is missing; give a box or a discrete space")
    shape = tuple(message.box.shape)
    # Their number first: the product of very many sizes takes very long.
    if len(shape) > 8 or any(n < 1 for n in shape) or math.prod(shape) > LARGEST_SPACE:
        raise InvalidField(
            f"{field}.box.shape",
            f"is {list(shape[:8])}; give up to 8 dimensions of at least 1, at most {LARGEST_SPACE} numbers in all",
        )
    sides = {"low": _bounds(message.box.low), "high": _bounds(message.box.high)}
    for side, bounds in sides.items():
        if bounds.size != math.prod(shape):
            raise InvalidField(
                f"{field}.box.{side}", f"has {bounds.size} bounds; a {list(shape)} box needs each number's"
            )
        if np.any(np.isnan(bounds)):
            raise InvalidField(f"{field}.box.{side}", "holds NaN; use infinities for no bound")
    low, high = (bounds.reshape(shape) for bounds in sides.values())
    if np.any(low > high):
        raise InvalidField(f"{field}.box.low", "lies above high; swap them")
    return Box(low, high)


def parameter_space_from_pb(message: array_pb2.Space, field: str) -> gymnasium.Space[Any]:
    """The space of a family's parameter, bounds in full precision.

    Raises:
        InvalidField: as :func:`space_from_pb`, in full precision; or a bound is not finite.
    """
    space = space_from_pb(message, field)
    if isinstance(space, Discrete):
        return gymnasium.spaces.Discrete(space.n)
    low, high = (np.asarray(side, np.float64).reshape(space.shape) for side in (message.box.low, message.box.high))
    if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high))):
        raise InvalidField(field, "needs finite bounds on both sides: tasks are drawn from it uniformly")
    if np.any(low > high):  # by less than float32 tells apart
        raise InvalidField(f"{field}.box.low", "lies above high; swap them")
    return gymnasium.spaces.Box(low, high, dtype=np.float64)


def _box(low: np.ndarray, high: np.ndarray) -> array_pb2.Space:
    return array_pb2.Space(
        box=array_pb2.BoxSpace(
            shape=low.shape, low=low.astype(np.float64).ravel().tolist(), high=high.astype(np.float64).ravel().tolist()
        )
    )


def _bounds(values: object) -> np.ndarray:
    with np.errstate(over="ignore"):  # a bound past float32 is no bound
        return np.asarray(values, np.float64).astype(np.float32)
