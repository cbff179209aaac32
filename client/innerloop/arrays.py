"""Arrays as they travel: dtype, shape and little-endian row-major bytes; and the spaces they live in.

One of the two client modules that the server's lower floors may import. It needs numpy and nothing else:
no protobuf (``innerloop._core.codec`` and the server's ``service/convert`` map these to messages), no gymnasium.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Mapping[str, Array]

DTYPES: Mapping[str, np.dtype[Any]] = {
    name: np.dtype(name).newbyteorder("<") if np.dtype(name).itemsize > 1 else np.dtype(name)
    for name in ("float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")
}
"""Every dtype the wire knows, by its name. Adding one is a line here and a value in ``array.proto``."""


MOST_DIMENSIONS = 32
"""As many as every numpy has."""


class ArrayError(ValueError):
    """Bytes, dtype and shape that do not belong together."""


def encode(array: Array) -> tuple[str, tuple[int, ...], bytes]:
    """Split an array into the name of its dtype, its shape and its little-endian row-major bytes.

    Raises:
        ArrayError: the dtype is not one of ``DTYPES``.
    """
    name = array.dtype.name
    if name not in DTYPES:
        raise ArrayError(f"dtype {name} cannot travel; use one of {', '.join(DTYPES)}")
    return name, array.shape, np.ascontiguousarray(array, dtype=DTYPES[name]).tobytes()


def decode(dtype: str, shape: Sequence[int], data: bytes) -> Array:
    """Join what ``encode`` split. The result is in native byte order and read-only (it shares ``data``).

    Raises:
        ArrayError: an unknown dtype, too many dimensions, a negative one, or ``prod(shape) * itemsize != len(data)``.
    """
    if dtype not in DTYPES:
        raise ArrayError(f"dtype {dtype!r} is unknown; use one of {', '.join(DTYPES)}")
    if len(shape) > MOST_DIMENSIONS:  # first: the product of very many sizes takes very long
        raise ArrayError(f"{len(shape)} dimensions are too many; an array has at most {MOST_DIMENSIONS}")
    if any(n < 0 for n in shape):
        raise ArrayError(f"shape {tuple(shape)} has a negative dimension")
    want = math.prod(shape) * DTYPES[dtype].itemsize
    if want != len(data):
        raise ArrayError(f"{dtype}{list(shape)} takes {want} bytes, but {len(data)} came")
    array = np.frombuffer(data, dtype=DTYPES[dtype]).reshape(tuple(shape))
    return array.astype(array.dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True)
class Box:
    """A box in R^n: every element between ``low`` and ``high`` (arrays of ``shape``; may be infinite)."""

    low: Array
    high: Array

    @staticmethod
    def of(low: float | Array, high: float | Array, shape: tuple[int, ...]) -> Box:
        """A box whose bounds are broadcast to ``shape``, in float32."""
        return Box(
            np.broadcast_to(np.asarray(low, np.float32), shape).copy(),
            np.broadcast_to(np.asarray(high, np.float32), shape).copy(),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one element."""
        return tuple(self.low.shape)

    @property
    def size(self) -> int:
        """How many numbers one element holds."""
        return math.prod(self.shape)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Box)
            and self.shape == other.shape
            and bool(np.array_equal(self.low, other.low) and np.array_equal(self.high, other.high))
        )

    def __hash__(self) -> int:
        return hash((self.low.tobytes(), self.high.tobytes()))

    def __str__(self) -> str:
        if self.size and np.all(self.low == self.low.flat[0]) and np.all(self.high == self.high.flat[0]):
            return f"Box({self.low.flat[0]:g}, {self.high.flat[0]:g}, {self.shape})"
        return f"Box({self.shape})"


@dataclass(frozen=True)
class Discrete:
    """The integers 0 .. n-1."""

    n: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one element: a scalar."""
        return ()

    def __str__(self) -> str:
        return f"Discrete({self.n})"


Space = Box | Discrete
"""What an observation or an action is drawn from."""


def space_to_json(space: Space) -> dict[str, Any]:
    """A space as JSON values (infinite bounds as strings, since JSON has none)."""
    if isinstance(space, Discrete):
        return {"kind": "discrete", "n": space.n}
    return {
        "kind": "box",
        "shape": list(space.shape),
        "low": [_bound(x) for x in space.low.ravel().tolist()],
        "high": [_bound(x) for x in space.high.ravel().tolist()],
    }


def space_from_json(value: Mapping[str, Any]) -> Space:
    """Undo ``space_to_json``.

    Raises:
        ArrayError: the kind is unknown or the bounds do not fill the shape.
    """
    kind = value.get("kind")
    if kind == "discrete":
        return Discrete(int(value["n"]))
    if kind != "box":
        raise ArrayError(f"space kind {kind!r} is unknown; use box or discrete")
    shape = tuple(int(n) for n in value["shape"])
    bounds = [np.array([float(x) for x in value[side]], np.float32) for side in ("low", "high")]
    if any(b.size != math.prod(shape) for b in bounds):
        raise ArrayError(f"a box of shape {shape} needs {math.prod(shape)} bounds on each side")
    return Box(bounds[0].reshape(shape), bounds[1].reshape(shape))


def _bound(x: float) -> float | str:
    return x if math.isfinite(x) else ("inf" if x > 0 else "-inf")
