"""Messages to values and back: exact values first, then every value."""

from __future__ import annotations

import math
import struct

import gymnasium
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from google.protobuf import struct_pb2
from hypothesis import given

from innerloop.arrays import DTYPES, Box, Discrete
from innerloop.v1 import array_pb2, task_pb2
from innerloop_server.domain import Simulator, Split
from innerloop_server.errors import InvalidField
from innerloop_server.service.convert import enums, names, paging, values
from innerloop_server.service.convert.arrays import array_from_pb, array_to_pb
from innerloop_server.service.convert.families import family_to_pb
from innerloop_server.service.convert.spaces import gymnasium_space_to_pb, space_from_pb, space_to_pb
from innerloop_server.service.convert.tasks import task_from_pb, task_to_pb
from innerloop_server.store.pages import PageRequest
from innerloop_server.tasks.registry import Registry, load_registry
from innerloop_server.tasks.sampling import sample_task


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def refused(call: object, field: str, advice: str = "") -> None:
    with pytest.raises(InvalidField) as caught:
        call()  # type: ignore[operator]
    assert caught.value.field == field
    assert advice in caught.value.advice


# ---------------------------------------------------------------------------------------------------------- arrays


def test_an_array_is_little_endian_and_row_major() -> None:
    message = array_to_pb(np.array([[1, 2], [3, 4]], ">i2").T)
    assert message.dtype == array_pb2.DTYPE_INT16
    assert list(message.shape) == [2, 2]
    assert message.data == struct.pack("<4h", 1, 3, 2, 4)


@given(hnp.arrays(st.sampled_from([np.dtype(name) for name in DTYPES]), hnp.array_shapes(min_dims=0, min_side=0)))
def test_arrays_come_back(array: np.ndarray) -> None:
    again = array_from_pb(array_to_pb(array), "a", finite=False)
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [(np.float64, np.float32), (np.int64, np.float32), (np.uint8, np.float32), (np.int32, np.int64)],
)
def test_what_fits_is_converted(sent: type, wanted: type) -> None:
    array = array_from_pb(array_to_pb(np.array([1, 2], sent)), "a", dtype=wanted)
    assert array.dtype == wanted
    assert array.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("sent", "wanted", "advice"),
    [
        (np.array([1.0]), np.int64, "is float64; send int64"),
        (np.array([1]), np.bool_, "is int64; send bool"),
        (np.array([True]), np.int64, "is bool; send int64"),
        (np.array([300]), np.int8, "int8 cannot"),
    ],
)
def test_what_does_not_fit_is_refused(sent: np.ndarray, wanted: type, advice: str) -> None:
    refused(lambda: array_from_pb(array_to_pb(sent), "a", dtype=wanted), "a", advice)


# ---------------------------------------------------------------------------------------------------------- spaces


@pytest.mark.parametrize("space", [Discrete(3), Box.of(-1.0, np.inf, (2, 3)), Box.of(0.0, 0.0, ())])
def test_spaces_come_back(space: Box | Discrete) -> None:
    assert space_from_pb(space_to_pb(space), "s") == space


def test_gymnasium_bounds_keep_their_precision() -> None:
    space = gymnasium.spaces.Box(0.1, 0.2, (1,), np.float64)
    assert list(gymnasium_space_to_pb(space).box.low) == [0.1]
    refused(lambda: gymnasium_space_to_pb(gymnasium.spaces.Discrete(3, start=1)), "space", "starts at 0")


def box(shape: list[int], low: list[float], high: list[float]) -> array_pb2.Space:
    return array_pb2.Space(box=array_pb2.BoxSpace(shape=shape, low=low, high=high))


@pytest.mark.parametrize(
    ("message", "field", "advice"),
    [
        (array_pb2.Space(), "s", "give a box or a discrete space"),
        (array_pb2.Space(discrete=array_pb2.DiscreteSpace(n=0)), "s.discrete.n", "give 1 to"),
        (array_pb2.Space(discrete=array_pb2.DiscreteSpace(n=2**60)), "s.discrete.n", "give 1 to"),
        (box([2], [0.0], [1.0, 1.0]), "s.box.low", "has 1 bounds"),
        (box([1], [0.0], []), "s.box.high", "has 0 bounds"),
        (box([-1], [], []), "s.box.shape", "at least 1"),
        (box([2**40, 2**40], [], []), "s.box.shape", "at most"),
        (box([1] * 9, [0.0], [0.0]), "s.box.shape", "up to 8 dimensions"),
        (box([1], [math.nan], [1.0]), "s.box.low", "NaN"),
        (box([1], [2.0], [1.0]), "s.box.low", "above high"),
    ],
)
def test_spaces_that_cannot_be(message: array_pb2.Space, field: str, advice: str) -> None:
    refused(lambda: space_from_pb(message, "s"), field, advice)


# ----------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "parsed"),
    [("learners/a", ("a", None)), ("learners/a/revisions/12", ("a", 12))],
)
def test_learners_and_revisions(name: str, parsed: tuple[str, int | None]) -> None:
    assert names.parse_learner_or_revision(name, "learner") == parsed


@pytest.mark.parametrize("name", ["", "a", "learners/", "learners/a/", "learners/a\n", "learners/.."])
@pytest.mark.parametrize("end", ["", "/revisions/", "/revisions/0", "/revisions/-1", "/revisions/01", "/revisions/x"])
def test_names_of_no_learner(name: str, end: str) -> None:
    refused(
        lambda: names.parse_learner_or_revision(name + end, "plan.learner"), "plan.learner", "write learners/LEARNER"
    )


@pytest.mark.parametrize("number", ["", "0", "-1", "01", "x", "9" * 30, "9" * 5_000, "1/"])
def test_numbers_of_no_revision(number: str) -> None:
    refused(lambda: names.parse_revision(f"learners/a/revisions/{number}", "name"), "name", "write learners/LEARNER")


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True), st.integers(1, 10**18 - 1))
def test_names_come_back(name: str, number: int) -> None:
    assert names.SESSION.parse(names.SESSION.format(name), "name") == name
    assert names.parse_revision(names.format_revision(name, number), "name") == (name, number)


def test_ids_that_clients_choose() -> None:
    assert names.new_learner_id("learners/cartpole-2", "learner") == "cartpole-2"
    refused(lambda: names.new_learner_id("learners/Cartpole", "learner"), "learner", "[a-z0-9-]")
    refused(lambda: names.new_learner_id("learners/" + "a" * 64, "learner"), "learner", "63")
    assert names.request_id("") == ""
    assert names.request_id("a.B_9-") == "a.B_9-"
    refused(lambda: names.request_id("a b"), "request_id", "128")
    refused(lambda: names.request_id("a" * 129), "request_id", "128")


# ---------------------------------------------------------------------------------------------------------- values


def test_times() -> None:
    stamp = values.timestamp(1_700_000_000.25)
    assert (stamp.seconds, stamp.nanos) == (1_700_000_000, 250_000_000)
    assert values.optional_timestamp(None) is None
    assert values.seconds_from_pb(values.duration(1.5), "lease", 1, 10) == 1.5
    refused(lambda: values.seconds_from_pb(values.duration(0.5), "lease", 1, 10), "lease", "give 1 to 10")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none(bad: float) -> None:
    refused(lambda: values.finite(bad, "x"), "x", "finite")


def test_ranges() -> None:
    assert values.whole(3, "n", 1, 3) == 3
    refused(lambda: values.whole(4, "n", 1, 3), "n", "give 1 to 3")
    assert values.seed(2**63 - 1, "seed") == 2**63 - 1
    refused(lambda: values.seed(2**63, "seed"), "seed", "2^63 - 1")


def test_json_comes_back() -> None:
    given = {"rate": 0.1, "steps": 3, "on": True, "none": None, "sizes": [64, 64], "nested": {"a": "b"}}
    again = values.struct_from_pb(values.struct_to_pb(given), "settings")
    assert again == given
    assert type(again["steps"]) is int
    assert type(again["on"]) is bool


def test_json_that_doubles_cannot_hold_travels_as_text() -> None:
    again = values.struct_from_pb(values.struct_to_pb({"seed": 2**60 + 1, "worst": -math.inf}), "manifest")
    assert again == {"seed": str(2**60 + 1), "worst": "-inf"}


def test_json_that_is_none() -> None:
    message = struct_pb2.Struct(fields={"rate": struct_pb2.Value(number_value=math.nan)})
    refused(lambda: values.struct_from_pb(message, "settings"), "settings", "NaN")


# ----------------------------------------------------------------------------------------------------------- enums


def test_every_word_has_its_number() -> None:
    assert {enums.split_from_pb(enums.split_to_pb(split), "split") for split in Split} == set(Split)
    assert {enums.simulator_from_pb(enums.simulator_to_pb(s), "s") for s in Simulator} == set(Simulator)
    assert enums.simulator_from_pb(0, "simulator") is None
    assert enums.split_to_pb(None) == 0


# ----------------------------------------------------------------------------------------------------------- pages


@given(st.sets(st.text(min_size=1, max_size=4), max_size=30), st.integers(1, 7))
def test_pages_hold_everything_once(items: set[str], size: int) -> None:
    found: list[str] = []
    token = ""
    while True:
        page = paging.page_of(items, str, PageRequest(size, token), "list")
        found += page.items
        token = page.next_token
        if not token:
            break
    assert found == sorted(items)


def test_a_token_of_another_list_is_refused() -> None:
    token = paging.page_of("abc", str, PageRequest(1), "one").next_token
    assert paging.page_of("abc", str, PageRequest(1, token), "one").items == ("b",)
    refused(lambda: paging.page_of("abc", str, PageRequest(1, token), "two"), "page_token", "this list")


def test_page_sizes() -> None:
    assert paging.page_request(task_pb2.ListFamiliesRequest()).size == 100
    assert paging.page_request(task_pb2.ListFamiliesRequest(page_size=5_000)).size == 1_000


# ----------------------------------------------------------------------------------------------------------- tasks


def test_every_family_and_its_tasks_travel(registry: Registry) -> None:
    for name in registry.names():
        family = registry.get(name)
        message = family_to_pb(family)
        assert set(message.parameter_space) == set(family.parameter_space.spaces)
        task = sample_task(family, 3, Split.TEST, 5)
        for sent in (task_to_pb(task), task_pb2.Task(name=task.name)):
            again = task_from_pb(sent, registry)
            assert again.name == task.name
            assert {k: v.tolist() for k, v in again.parameters.items()} == {
                k: v.tolist() for k, v in task.parameters.items()
            }


def test_tasks_that_a_caller_makes_up(registry: Registry) -> None:
    made = task_pb2.Task(family="families/navigation-2d", parameters={"goal": array_to_pb(np.array([0.25, -0.5]))})
    task = task_from_pb(made, registry, "open.task")
    assert (task.name, task.parameters["goal"].tolist()) == ("", [0.25, -0.5])


@pytest.mark.parametrize(
    ("sent", "field", "advice"),
    [
        ({}, "open.task", "a name, or a family and parameters"),
        ({"name": "families/none/tasks/test-0-0"}, "open.task.name", "there are: "),
        ({"name": "nonsense"}, "open.task.name", "SPLIT-SEED-INDEX"),
        ({"family": "families/none"}, "open.task.family", "there are: "),
        ({"family": "families/navigation-2d"}, "open.task.parameters.goal", "missing"),
        (
            {"name": "families/navigation-2d/tasks/test-0-0", "family": "families/pendulum-dynamics"},
            "open.task.family",
            "drop the name",
        ),
    ],
)
def test_tasks_that_cannot_be(registry: Registry, sent: dict[str, str], field: str, advice: str) -> None:
    refused(lambda: task_from_pb(task_pb2.Task(**sent), registry, "open.task"), field, advice)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("goal", "field"),
    [
        ([0.0, 9.0], "task.parameters.goal"),
        ([0.0], "task.parameters.goal"),
        ([0.0, math.nan], "task.parameters.goal"),
    ],
)
def test_parameters_outside_their_space(registry: Registry, goal: list[float], field: str) -> None:
    sent = task_pb2.Task(family="families/navigation-2d", parameters={"goal": array_to_pb(np.array(goal))})
    refused(lambda: task_from_pb(sent, registry), field)
    unknown = task_pb2.Task(family="families/navigation-2d", parameters={"wind": array_to_pb(np.array(0.0))})
    refused(lambda: task_from_pb(unknown, registry), "task.parameters.wind", "navigation-2d has")


def test_a_name_and_another_tasks_parameters(registry: Registry) -> None:
    sent = task_to_pb(sample_task(registry.get("navigation-2d"), 0, Split.TEST, 0))
    sent.parameters["goal"].CopyFrom(array_to_pb(np.array([0.0, 0.0])))
    refused(lambda: task_from_pb(sent, registry), "task.parameters.goal", "drop the name")
