"""Arrays between messages and numpy, each error naming the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike

from innerloop import arrays
from innerloop.arrays import Array
from innerloop.v1 import array_pb2
from innerloop_server.errors import InvalidField

_DTYPES: Mapping[str, array_pb2.Dtype.ValueType] = {
    name: array_pb2.Dtype.Value(f"DTYPE_{name.upper()}") for name in arrays.DTYPES
}
_NAMES: Mapping[int, str] = {number: name for name, number in _DTYPES.items()}

# What may become what without changing its meaning: a kind of numpy dtype -> the kinds it may come from.
_FITS = {"f": "fiu", "i": "iu", "u": "u", "b": "b"}


def array_to_pb(array: Array) -> array_pb2.Array:
    """An array as a message.

    Raises:
        innerloop.arrays.ArrayError: its dtype cannot travel (our mistake, not the caller's).
    """
    name, shape, data = arrays.encode(array)
    return array_pb2.Array(dtype=_DTYPES[name], shape=shape, data=data)


def array_from_pb(
    message: array_pb2.Array,
    field: str,
    *,
    dtype: DTypeLike | None = None,
    shape: Sequence[int | None] | None = None,
    finite: bool = True,
) -> Array:
    """A message as an array, native byte order, read-only.

    Args:
        message: what came; an unset one counts as missing.
        field: its path in the request, such as ``observe.rewards``.
        dtype: what is wanted. Floats take integers and other floats, integers other integers, bool itself alone.
        shape: what is wanted; ``None`` in it: any size.
        finite: refuse NaN and infinities, before and after the conversion to ``dtype``.

    Raises:
        InvalidField: missing, an unknown dtype, bytes that do not fill the shape, or not what is wanted.
    """
    array = _decode(message, field)
    if shape is not None and not _matches(array.shape, shape):
        raise InvalidField(field, f"has shape {list(array.shape)}; send {_pattern(shape)}")
    if finite:
        _require_finite(array, field)
    if dtype is None or array.dtype == dtype:
        return array
    want = np.dtype(dtype)
    if array.dtype.kind not in _FITS[want.kind]:
        raise InvalidField(field, f"is {array.dtype.name}; send {want.name}")
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(want)
    if finite:
        _require_finite(converted, field, f"in {want.name}")
    if want.kind in "iu" and not np.array_equal(converted, array):
        raise InvalidField(field, f"holds integers that {want.name} cannot; send {want.name}")
    return converted


def optional_array_from_pb(
    message: array_pb2.Array,
    field: str,
    *,
    present: bool,
    dtype: DTypeLike | None = None,
    shape: Sequence[int | None] | None = None,
    finite: bool = True,
) -> Array | None:
    """As :func:`array_from_pb`; ``None`` where ``present`` (the parent's ``HasField``) is false."""
    return array_from_pb(message, field, dtype=dtype, shape=shape, finite=finite) if present else None


def _decode(message: array_pb2.Array, field: str) -> Array:
    if message.dtype == array_pb2.DTYPE_UNSPECIFIED:
        what = "is missing" if not message.data and not message.shape else "has no dtype"
        raise InvalidField(field, f"{what}; send dtype, shape and data")
    name = _NAMES.get(message.dtype)
    if name is None:
        raise InvalidField(f"{field}.dtype", f"{message.dtype} is unknown; use one of {', '.join(arrays.DTYPES)}")
    try:
        array = arrays.decode(name, message.shape, message.data)
    except ValueError as error:  # ArrayError, and numpy's own for more dimensions or elements than it can count
        raise InvalidField(field, f"{error}; data is row-major and fills the shape") from error
    if array.dtype == np.bool_ and np.any(array.view(np.uint8) > 1):
        raise InvalidField(field, "holds bytes other than 0 and 1; a bool is one byte, 0 or 1")
    return array


def _require_finite(array: Array, field: str, where: str = "") -> None:
    if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        index = np.argwhere(~np.isfinite(array))[0].tolist()
        raise InvalidField(field, f"is not finite {where + ' ' if where else ''}at {index}; send finite numbers")


def _matches(shape: tuple[int, ...], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(w is None or n == w for n, w in zip(shape, wanted, strict=True))


def _pattern(shape: Sequence[int | None]) -> str:
    return f"[{', '.join('*' if n is None else str(n) for n in shape)}]"
