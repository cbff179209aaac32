"""A small message must not cost much: the sizes of an array are looked at before they are multiplied."""

from __future__ import annotations

import pytest

from innerloop.arrays import MOST_DIMENSIONS, ArrayError, decode
from innerloop.v1 import array_pb2
from innerloop_server.errors import InvalidField
from innerloop_server.service.convert.arrays import array_from_pb
from innerloop_server.service.convert.spaces import space_from_pb

HUGE = [2**62] * 200_000
"""Multiplied out, a number of 12 million bits: minutes of one core."""


@pytest.mark.timeout(20)
def test_an_array_of_very_many_dimensions_is_refused_at_once() -> None:
    with pytest.raises(ArrayError, match="too many"):
        decode("float32", HUGE, b"")
    with pytest.raises(InvalidField, match=r"task\.parameters\.x.*too many"):
        array_from_pb(array_pb2.Array(dtype=array_pb2.DTYPE_FLOAT32, shape=HUGE), "task.parameters.x")


@pytest.mark.timeout(20)
def test_so_is_a_space() -> None:
    with pytest.raises(InvalidField, match="up to 8 dimensions"):
        space_from_pb(array_pb2.Space(box=array_pb2.BoxSpace(shape=HUGE)), "space")


def test_as_many_as_allowed_are_taken() -> None:
    assert decode("int8", [1] * MOST_DIMENSIONS, b"\x07").shape == (1,) * MOST_DIMENSIONS
