"""Programs for TaskService."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from innerloop._core import reading
from innerloop._core.calls import PAGE, call, pages
from innerloop._core.codec import array_to_pb, enum_from_word
from innerloop._core.commands import Program, Rpc
from innerloop._core.names import resource
from innerloop.types import Family, Task
from innerloop.v1 import task_pb2 as pb

LIST_FAMILIES = Rpc("TaskService", "ListFamilies")
GET_FAMILY = Rpc("TaskService", "GetFamily")
SAMPLE_TASKS = Rpc("TaskService", "SampleTasks")
GET_TASK = Rpc("TaskService", "GetTask")

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


def sample_tasks(
    family: str, *, split: str, seed: int, count: int, start_index: int, generator: str
) -> Program[list[Task]]:
    """Tasks of one of a family's streams."""
    request = pb.SampleTasksRequest(
        family=resource("families", family),
        split=enum_from_word(pb.Split, split, "split"),  # type: ignore[arg-type]
        seed=seed,
        count=count,
        start_index=start_index,
        generator=generator,
    )
    return call(SAMPLE_TASKS, request, lambda response: list(map(reading.task, response.tasks)))


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


def _number(value: Any) -> Any:
    """Plain Python numbers as the dtypes that parameters have: float64, or int64 for a discrete one."""
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind == "f" else array
