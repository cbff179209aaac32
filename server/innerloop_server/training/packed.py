"""Networks of teachers in the flat dict of arrays that a generator's state is, each with what Adam remembers of it.

A network called ``name`` lies under ``name/weights/``, ``name/first/``, ``name/second/`` and ``name/count``. Without
torch, so that the gateway can propose tasks from a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from innerloop.arrays import Array, Arrays


def fresh(name: str, weights: Arrays) -> dict[str, Array]:
    """A network that took no step yet."""
    zeros = {key: np.zeros_like(value) for key, value in weights.items()}
    return pack(name, weights, zeros, zeros, 0)


def pack(name: str, weights: Arrays, first: Arrays, second: Arrays, count: int) -> dict[str, Array]:
    """A network and its optimiser as parts of a state."""
    parts = {"weights": weights, "first": first, "second": second}
    flat = {f"{name}/{part}/{key}": value for part, arrays in parts.items() for key, value in arrays.items()}
    return {**flat, f"{name}/count": np.asarray(count, np.int64)}


def part(state: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """What lies under ``prefix/``, without it."""
    start = prefix + "/"
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
