"""Arrays, spaces and words between numpy and protobuf: the client's half of ``innerloop.arrays``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from innerloop import arrays
from innerloop.arrays import Array, ArrayError, Box, Discrete, Space
from innerloop.errors import ProtocolError
from innerloop.v1 import array_pb2 as pb

_DTYPE_NUMBERS = {name: pb.Dtype.Value(f"DTYPE_{name.upper()}") for name in arrays.DTYPES}
_DTYPE_NAMES = {number: name for name, number in _DTYPE_NUMBERS.items()}


def array_to_pb(value: Any) -> pb.Array:
    """Any array-like as a message.

    Raises:
        ArrayError: its dtype cannot travel.
    """
    dtype, shape, data = arrays.encode(np.asarray(value))
    return pb.Array(dtype=_DTYPE_NUMBERS[dtype], shape=shape, data=data)


def array_from_pb(message: pb.Array) -> Array:
    """A message as an array.

    Raises:
        ProtocolError: dtype, shape and bytes do not belong together.
    """
    try:
        return arrays.decode(_DTYPE_NAMES.get(message.dtype, f"number {message.dtype}"), message.shape, message.data)
    except ArrayError as error:
        raise ProtocolError(f"the server sent a damaged array: {error}") from error


def space_to_pb(space: Space) -> pb.Space:
    """A space as a message."""
    if isinstance(space, Discrete):
        return pb.Space(discrete=pb.DiscreteSpace(n=space.n))
    return pb.Space(box=pb.BoxSpace(shape=space.shape, low=space.low.ravel(), high=space.high.ravel()))


def space_from_pb(message: pb.Space) -> Space:
    """A message as a space.

    Raises:
        ProtocolError: no kind is set, or the bounds do not fill the shape.
    """
    kind = message.WhichOneof("kind")
    if kind == "discrete":
        return Discrete(message.discrete.n)
    if kind != "box":
        raise ProtocolError("the server sent a space of a kind that this client does not know; update innerloop")
    box = message.box
    size = math.prod(box.shape)
    if len(box.low) != size or len(box.high) != size:
        raise ProtocolError(f"the server sent a box of shape {tuple(box.shape)} with {len(box.low)} lower bounds")
    shape = tuple(box.shape)
    return Box(np.array(box.low, np.float32).reshape(shape), np.array(box.high, np.float32).reshape(shape))


def word_from_enum(enum: Any, number: int) -> str:
    """``SESSION_STATE_ACTIVE`` as ``active``; a number this client does not know as its digits."""
    prefix = _prefix(enum)
    if number not in enum.values():
        return str(number)
    word = str(enum.Name(number)).removeprefix(prefix).lower()
    return "" if word == "unspecified" else word


def enum_from_word(enum: Any, word: str, what: str) -> int:
    """``active`` as ``SESSION_STATE_ACTIVE``; the empty word is unspecified.

    Raises:
        ValueError: no such word; says which there are.
    """
    words = {word_from_enum(enum, number): int(number) for number in enum.values()}
    if word not in words:
        raise ValueError(f"{what} {word!r} is unknown; use one of {', '.join(w for w in words if w)}")
    return words[word]


def time_from_pb(message: Message, field: str) -> datetime | None:
    """A timestamp field as an aware time in UTC; ``None`` when it is unset."""
    if not message.HasField(field):
        return None
    stamp: Timestamp = getattr(message, field)
    return stamp.ToDatetime(UTC)


def struct_from_pb(message: Struct) -> dict[str, Any]:
    """A struct as JSON values."""
    return MessageToDict(message)


def struct_to_pb(values: Mapping[str, Any]) -> Struct:
    """JSON values as a struct."""
    message = Struct()
    message.update(dict(values))
    return message


def _prefix(enum: Any) -> str:
    """What all names of an enumeration begin with (buf's STANDARD rules see to it): ``SESSION_STATE_``."""
    return str(enum.Name(0)).removesuffix("UNSPECIFIED")
