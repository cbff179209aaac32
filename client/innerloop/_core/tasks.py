"""Programs for TaskService."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from google.protobuf.message import Message

from innerloop._core import reading
from innerloop._core.calls import PAGE, call, pages
from innerloop._core.codec import array_to_pb, enum_from_word, space_to_pb
from innerloop._core.commands import Program, Rpc, Unary
from innerloop._core.names import resource
from innerloop.arrays import Box, Discrete, Space
from innerloop.errors import InvalidRequest, ProtocolError
from innerloop.types import Family, Task
from innerloop.v1 import array_pb2
from innerloop.v1 import task_pb2 as pb

LIST_FAMILIES = Rpc("TaskService", "ListFamilies")
GET_FAMILY = Rpc("TaskService", "GetFamily")
SAMPLE_TASKS = Rpc("TaskService", "SampleTasks")
GET_TASK = Rpc("TaskService", "GetTask")

_BY_INDEX = ("", "uniform", "grid")
"""Generators whose tasks have a place in a stream: any part of it may be asked for by itself."""

DEFINE_FAMILY = Rpc("TaskService", "DefineFamily")
DELETE_FAMILY = Rpc("TaskService", "DeleteFamily")

ParameterLike = Space | int | tuple[Any, Any]
"""What a parameter is drawn from: a space; n for 0 to n - 1; or (low, high), numbers or arrays of one shape."""

TaskLike = Task | str | Mapping[str, Any]
"""A task, its name, or the parameters of one in the learner's family."""


def families() -> Program[list[Family]]:
    """All families, the broken ones too."""
    return pages(
        LIST_FAMILIES,
        lambda token: pb.ListFamiliesRequest(page_size=PAGE, page_token=token),
        lambda response: map(reading.family, response.families),
    )


def family(name: str) -> Program[Family]:
    """One family."""
    request = pb.GetFamilyRequest(name=resource("families", name))
    return call(GET_FAMILY, request, lambda response: reading.family(response.family))


def define_family(
    name: str,
    env_id: str,
    parameters: Mapping[str, ParameterLike],
    *,
    apply: str,
    horizon: int,
    episodes_per_trial: int,
) -> Program[Family]:
    """Make a family of an environment that is registered where the server runs."""
    request = pb.DefineFamilyRequest(
        name=resource("families", name),
        env_id=env_id,
        parameters={key: _parameter_space(key, value) for key, value in parameters.items()},
        apply=enum_from_word(pb.Apply, apply, "apply"),  # type: ignore[arg-type]
        horizon=horizon,
        episodes_per_trial=episodes_per_trial,
    )
    return call(DEFINE_FAMILY, request, lambda response: reading.family(response.family))


def delete_family(name: str) -> Program[None]:
    """Forget a family that was defined."""
    return call(DELETE_FAMILY, pb.DeleteFamilyRequest(name=resource("families", name)), lambda _: None)


def sample_tasks(
    family: str, *, split: str, seed: int, count: int, start_index: int, generator: str, training: str
) -> Program[list[Task]]:
    """Tasks of one of a family's streams, in as many calls as it takes where a task's place in the stream is known."""

    def request(n: int, first: int) -> pb.SampleTasksRequest:
        return pb.SampleTasksRequest(
            family=resource("families", family),
            split=enum_from_word(pb.Split, split, "split"),  # type: ignore[arg-type]
            seed=seed,
            count=n,
            start_index=first,
            generator=generator,
            training=resource("trainings", training) if training else "",
        )

    def read(response: pb.SampleTasksResponse) -> list[Task]:
        return list(map(reading.task, response.tasks))

    if generator not in _BY_INDEX:
        return call(SAMPLE_TASKS, request(count, start_index), read)
    return _sampled(request, read, count, start_index)


def task(name: str) -> Program[Task]:
    """The task behind a name."""
    request = pb.GetTaskRequest(name=resource("families", name))
    return call(GET_TASK, request, lambda response: reading.task(response.task))


def task_to_pb(task: TaskLike, family: str) -> pb.Task:
    """What a caller means by a task. A name alone is enough; the server looks up the rest.

    Args:
        task: a task, its name, or parameters.
        family: the learner's family, for parameters alone.
    """
    if isinstance(task, str):
        return pb.Task(name=resource("families", task))
    if isinstance(task, Task) and task.name:
        return pb.Task(name=task.name)
    given, parameters = (task.family, task.parameters) if isinstance(task, Task) else (family, task)
    return pb.Task(
        family=resource("families", given), parameters={k: array_to_pb(_number(v)) for k, v in parameters.items()}
    )


def _sampled(
    request: Callable[[int, int], Message], read: Callable[[Any], list[Task]], count: int, start_index: int
) -> Program[list[Task]]:
    """``count`` tasks from ``start_index`` on. Large ones come fewer at a time: the server says how many it sends."""
    found: list[Task] = []
    most = PAGE
    while True:
        wanted = min(count - len(found), most)
        try:
            answer = yield Unary(SAMPLE_TASKS, request(wanted, start_index + len(found)))
        except InvalidRequest as error:
            fitting = error.facts.get("largest", "")
            if error.field != "count" or not fitting.isdecimal() or not 0 < int(fitting) < wanted:
                raise
            most = int(fitting)
            continue
        some = read(answer)
        found += some
        if len(found) >= count:
            return found
        if not some:
            raise ProtocolError(f"the server sent {len(found)} of {count} tasks")


def _parameter_space(name: str, value: ParameterLike) -> array_pb2.Space:
    if isinstance(value, Box | Discrete):
        return space_to_pb(value)
    if isinstance(value, tuple) and len(value) == 2:
        low, high = np.broadcast_arrays(*(np.asarray(side, np.float64) for side in value))
        return array_pb2.Space(box=array_pb2.BoxSpace(shape=low.shape, low=low.ravel(), high=high.ravel()))
    if isinstance(value, int) and not isinstance(value, bool):
        return space_to_pb(Discrete(value))
    raise TypeError(f"parameter {name}: give a space, a number of values, or (low, high), not {value!r}")


def _number(value: Any) -> Any:
    """Plain Python numbers as the dtypes that parameters have: float64, or int64 for a discrete one."""
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind == "f" else array
