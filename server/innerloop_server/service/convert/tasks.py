"""Tasks between messages and domain values, and the families that requests name."""

from __future__ import annotations

import re

import numpy as np

from innerloop.v1 import task_pb2
from innerloop_server.domain import Task
from innerloop_server.errors import InvalidField, NotFound
from innerloop_server.service.convert.arrays import array_from_pb, array_to_pb
from innerloop_server.service.convert.enums import split_to_pb
from innerloop_server.service.convert.names import FAMILY, LONGEST
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import Registry
from innerloop_server.tasks.sampling import custom_task, parameter_bytes, task_from_name

_LARGEST = 2**64 - 1
_PER_TASK = 160
"""Bytes of a task without its parameters and its family's name: words in names, numbers, tags and lengths."""
_PER_ARRAY, _PER_SIZE = 40, 10
"""Bytes of a parameter beside its name and numbers, and of each number of its shape."""
_NUMBERS = re.compile(r"-([0-9]+)-([0-9]+)$")


def task_to_pb(task: Task) -> task_pb2.Task:
    """A task as a message."""
    return task_pb2.Task(
        name=task.name,
        family=FAMILY.format(task.family),
        parameters={name: array_to_pb(np.asarray(value)) for name, value in task.parameters.items()},
        split=split_to_pb(task.split),
        seed=task.seed or 0,
        index=task.index or 0,
    )


def task_bytes(family: Family) -> int:
    """Bytes of a task of the family as a message, at most."""
    spaces = family.parameter_space.spaces
    around = sum(len(name.encode()) + _PER_ARRAY + _PER_SIZE * len(part.shape or ()) for name, part in spaces.items())
    return parameter_bytes(family) + around + 2 * len(family.name.encode()) + _PER_TASK


def find_family(registry: Registry, name: str, field: str) -> Family:
    """The family of a resource name that points at one from another resource's request.

    Raises:
        InvalidField: not a name of a family, or there is none of it; the advice lists those there are. Or an option
            that it does not have.
        PreconditionFailed: it is announced but does not load.
    """
    family = FAMILY.parse(name, field)
    try:
        return registry.get(family)
    except NotFound as error:
        raise InvalidField(field, error.message, reason="UNKNOWN_FAMILY") from error
    except InvalidField as error:
        raise InvalidField(field, error.message) from error


def find_task(registry: Registry, name: str, field: str) -> Task:
    """The task behind the name of a sampled one.

    Raises:
        InvalidField: the name has another form, or numbers that no name of ours has.
        NotFound: no such family.
        PreconditionFailed: it is announced but does not load.
    """
    if not name:
        raise InvalidField(field, "is missing; write families/FAMILY/tasks/SPLIT-SEED-INDEX")
    if len(name) > LONGEST:
        raise InvalidField(field, "is too long; write families/FAMILY/tasks/SPLIT-SEED-INDEX")
    numbers = _NUMBERS.search(name)
    if numbers is not None and max(map(int, numbers.groups())) > _LARGEST:
        raise InvalidField(field, "has a seed or an index of 2^64 or more; give 0 to 2^64 - 1")
    try:
        return task_from_name(registry, name, field)
    except InvalidField as error:
        if error.field == field:
            raise
        raise InvalidField(field, error.message) from error  # an option in the family's part of the name


def task_from_pb(message: task_pb2.Task, registry: Registry, field: str = "task") -> Task:
    """The task that a request means: by name alone, or by family and parameters.

    A message with a name may carry the rest too, as ``SampleTasks`` answered it; what it carries must then be that
    task's own.

    Raises:
        InvalidField: neither; an unknown family; parameters that the family refuses, or that the name does not have.
        PreconditionFailed: the family is announced but does not load.
    """
    if message.name:
        try:
            task = find_task(registry, message.name, f"{field}.name")
        except NotFound as error:
            raise InvalidField(f"{field}.name", error.message, reason="UNKNOWN_FAMILY") from error
        _check_same(message, task, registry, field)
        return task
    if not message.family:
        raise InvalidField(field, "is missing; give a name, or a family and parameters")
    family = find_family(registry, message.family, f"{field}.family")
    return custom_task(family, _parameters(message, field), f"{field}.parameters")


def _parameters(message: task_pb2.Task, field: str) -> dict[str, np.ndarray]:
    return {name: array_from_pb(value, f"{field}.parameters.{name}") for name, value in message.parameters.items()}


def _check_same(message: task_pb2.Task, task: Task, registry: Registry, field: str) -> None:
    if message.family and FAMILY.parse(message.family, f"{field}.family") != task.family:
        raise InvalidField(f"{field}.family", f"is not the family of {task.name}; leave it empty or drop the name")
    if not message.parameters:
        return
    given = registry.get(task.family).check(_parameters(message, field), f"{field}.parameters")
    for name, value in given.items():
        if not np.array_equal(value, task.parameters[name]):
            raise InvalidField(
                f"{field}.parameters.{name}", f"is not that of {task.name}; drop the name to make up a task"
            )
