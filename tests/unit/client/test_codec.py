from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from innerloop import arrays, errors
from innerloop._core import codec
from innerloop._core.names import resource, short
from innerloop._core.tasks import task_to_pb
from innerloop.arrays import Box, Discrete
from innerloop.types import Task
from innerloop.v1 import array_pb2, task_pb2

ANY_ARRAY = st.sampled_from(sorted(arrays.DTYPES)).flatmap(
    lambda name: hnp.arrays(np.dtype(name), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


@given(ANY_ARRAY)
def test_arrays_come_back_as_they_went(array):
    back = codec.array_from_pb(array_pb2.Array.FromString(codec.array_to_pb(array).SerializeToString()))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_every_dtype_of_the_contract_is_known():
    assert {name.removeprefix("DTYPE_").lower() for name in array_pb2.Dtype.keys()} - {"unspecified"} == set(  # noqa: SIM118
        arrays.DTYPES
    )


@pytest.mark.parametrize(
    "message",
    [
        array_pb2.Array(dtype=array_pb2.DTYPE_FLOAT32, shape=[2], data=b"1234"),
        array_pb2.Array(dtype=0, shape=[], data=b""),
        array_pb2.Array(dtype=99, shape=[], data=b""),
    ],
)
def test_damaged_arrays_are_the_servers_fault(message):
    with pytest.raises(errors.ProtocolError, match="damaged array"):
        codec.array_from_pb(message)


@pytest.mark.parametrize("space", [Discrete(3), Box.of(-np.inf, 2.0, (2, 3)), Box.of(0, 1, ())])
def test_spaces_come_back_as_they_went(space):
    assert codec.space_from_pb(codec.space_to_pb(space)) == space


def test_damaged_spaces_are_the_servers_fault():
    with pytest.raises(errors.ProtocolError, match="update innerloop"):
        codec.space_from_pb(array_pb2.Space())
    with pytest.raises(errors.ProtocolError, match="lower bounds"):
        codec.space_from_pb(array_pb2.Space(box=array_pb2.BoxSpace(shape=[2], low=[0.0], high=[0.0])))


def test_words():
    assert codec.word_from_enum(task_pb2.Split, task_pb2.SPLIT_TEST) == "test"
    assert codec.word_from_enum(task_pb2.Split, 0) == ""
    assert codec.word_from_enum(task_pb2.Split, 77) == "77"
    assert codec.enum_from_word(task_pb2.Split, "validation", "split") == task_pb2.SPLIT_VALIDATION
    with pytest.raises(ValueError, match="use one of train, validation, test"):
        codec.enum_from_word(task_pb2.Split, "tset", "split")


def test_names():
    assert resource("families", "a") == resource("families", "families/a") == "families/a"
    assert short("families/a") == "a"
    with pytest.raises(ValueError, match="families/"):
        resource("families", "")


def test_tasks_are_named_or_spelled_out():
    assert task_to_pb("f/tasks/test-0-1", "").name == "families/f/tasks/test-0-1"
    named = task_to_pb(Task("families/f", {"a": 1.0}, name="families/f/tasks/test-0-1"), "")
    assert (named.name, named.family, dict(named.parameters)) == ("families/f/tasks/test-0-1", "", {})
    made = task_to_pb({"mass": np.float32(0.5), "sign": 1}, "families/f")
    assert made.family == "families/f"
    assert codec.array_from_pb(made.parameters["mass"]).dtype == np.float64
    assert codec.array_from_pb(made.parameters["sign"]).dtype == np.int64
    assert task_to_pb(Task("g", {"a": 1.0}), "families/f").family == "families/g"


def test_tasks_are_equal_when_their_parameters_are():
    assert Task("f", {"a": np.array([1.0, 2.0])}) == Task("f", {"a": [1.0, 2.0]})
    assert Task("f", {"a": 1.0}) != Task("f", {"a": 2.0})
    assert Task("f", {"a": 1.0}) != Task("f", {"b": 1.0})
    assert len({Task("f", {"a": 1.0}), Task("f", {"a": 1.0})}) == 1
