"""What one end writes the other reads: the client's codec and the server's are two programs and one format."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from innerloop import arrays
from innerloop._core import codec
from innerloop.arrays import Array, ArrayError, Box, Discrete, Space
from innerloop.v1 import array_pb2
from innerloop_server.service.convert.arrays import array_from_pb, array_to_pb
from innerloop_server.service.convert.spaces import space_from_pb, space_to_pb

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
DTYPES = st.sampled_from(sorted(arrays.DTYPES)).map(np.dtype)
ARRAYS = st.tuples(DTYPES, st.sampled_from("<>")).flatmap(lambda d: hnp.arrays(d[0].newbyteorder(d[1]), SHAPES))
LAYOUTS = st.sampled_from([lambda a: a, lambda a: a.T, lambda a: a[::-1] if a.ndim else a, np.asfortranarray])
BOUNDS = st.floats(-1e6, 1e6, width=32) | st.sampled_from([-np.inf, np.inf])


def same(a: Array, b: Array) -> bool:
    """Equal in dtype, shape and every bit (NaN and -0.0 among them)."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    shape = draw(hnp.array_shapes(max_dims=3, max_side=3))
    first, second = (draw(hnp.arrays(np.float32, shape, elements=BOUNDS)) for _ in range(2))
    return Box(np.minimum(first, second), np.maximum(first, second))


@given(ARRAYS, LAYOUTS)
def test_decode_undoes_encode(array: Array, layout: object) -> None:
    sent = layout(array)  # type: ignore[operator]
    name, shape, data = arrays.encode(sent)
    assert len(data) == sent.size * sent.itemsize
    assert same(arrays.decode(name, shape, data), np.ascontiguousarray(sent.astype(name)).reshape(sent.shape))


@given(ARRAYS)
def test_arrays_cross_either_way(array: Array) -> None:
    native = array.astype(array.dtype.newbyteorder("="))
    there = array_pb2.Array.FromString(codec.array_to_pb(array).SerializeToString())
    assert same(array_from_pb(there, "a", finite=False), native)
    back = array_pb2.Array.FromString(array_to_pb(array).SerializeToString())
    assert same(codec.array_from_pb(back), native)


@given(st.builds(Discrete, st.integers(1, 1_000)) | boxes())
def test_spaces_cross_either_way(space: Space) -> None:
    assert space_from_pb(codec.space_to_pb(space), "space") == space
    assert codec.space_from_pb(space_to_pb(space)) == space


@given(DTYPES, SHAPES, st.sampled_from([-1, 1, 8]))
def test_bytes_that_do_not_fill_the_shape_are_refused(dtype: np.dtype, shape: tuple[int, ...], extra: int) -> None:
    size = int(np.prod(shape)) * dtype.itemsize
    with pytest.raises(ArrayError, match="takes"):
        arrays.decode(dtype.name, shape, bytes(size + extra if size else 1))


def test_bytes_are_little_endian_and_row_major() -> None:
    assert arrays.encode(np.array([[1, 2], [3, 4]], ">i4").T) == ("int32", (2, 2), struct.pack("<4i", 1, 3, 2, 4))
    assert arrays.encode(np.array(True)) == ("bool", (), b"\x01")
    assert arrays.encode(np.zeros((0, 3), np.float64)) == ("float64", (0, 3), b"")
