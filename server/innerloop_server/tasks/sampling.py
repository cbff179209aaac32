"""Drawing tasks: (seed, split, index) decides a task, wherever and whenever it is drawn."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from innerloop.arrays import Arrays
from innerloop_server.domain import Split, Task
from innerloop_server.errors import InvalidField
from innerloop_server.streams import Purpose, stream
from innerloop_server.tasks.family import Family

if TYPE_CHECKING:
    from innerloop_server.tasks.registry import Registry

_PURPOSES: Mapping[Split, Purpose] = {
    Split.TRAIN: Purpose.TASK_TRAIN,
    Split.VALIDATION: Purpose.TASK_VALIDATION,
    Split.TEST: Purpose.TASK_TEST,
}

_TASK_NAME = re.compile(rf"families/([A-Za-z0-9][A-Za-z0-9._-]{{0,127}})/tasks/({'|'.join(Split)})-([0-9]+)-([0-9]+)")


def sample_task(family: Family, seed: int, split: Split, index: int) -> Task:
    """The task at ``index`` of the stream ``(seed, split)``.

    Args:
        family: what to draw from.
        seed: non-negative.
        split: the three streams of a seed never meet.
        index: non-negative.

    Raises:
        InvalidField: ``seed`` or ``index`` is negative, or the family draws parameters outside its own space.
    """
    for field, value in (("seed", seed), ("index", index)):
        if value < 0:
            raise InvalidField(field, f"{value} is negative; give 0 or more")
    parameters = family.sample(stream(seed, _PURPOSES[split], index), split)
    return Task(family.name, family.check(parameters), split, seed, index)


def task_from_name(registry: Registry, name: str, field: str = "name") -> Task:
    """The task that ``families/{family}/tasks/{split}-{seed}-{index}`` names.

    Args:
        registry: where the family is looked up.
        name: resource name of a sampled task.
        field: what an error calls the name.

    Raises:
        InvalidField: the name has another form.
        NotFound: no such family.
    """
    family, split, seed, index = _parts(name, field)
    return sample_task(registry.get(family), int(seed), Split(split), int(index))


def family_of(name: str, field: str = "name") -> str:
    """The family in the name of a sampled task, options and all.

    Raises:
        InvalidField: the name has another form.
    """
    return _parts(name, field)[0]


def _parts(name: str, field: str) -> tuple[str, str, str, str]:
    match = _TASK_NAME.fullmatch(name)
    if match is None:
        raise InvalidField(
            field,
            f"{name!r} names no task; write families/FAMILY/tasks/SPLIT-SEED-INDEX, SPLIT one of {', '.join(Split)}",
        )
    family, split, seed, index = match.groups()
    return family, split, seed, index


def custom_task(family: Family, parameters: Arrays, field: str = "task.parameters") -> Task:
    """A task that a caller made up; it has no name.

    Raises:
        InvalidField: as ``family.check``.
    """
    return Task(family.name, family.check(parameters, field))


def parameter_bytes(family: Family) -> int:
    """Bytes that the parameters of one task of the family take."""
    parts = family.parameter_space.spaces.values()
    return sum(math.prod(part.shape or ()) * np.dtype(part.dtype).itemsize for part in parts)


def stack_parameters(tasks: Sequence[Task]) -> dict[str, np.ndarray]:
    """Parameters of B tasks of one family as ``Family.batch`` takes them: name -> [B, *shape]."""
    return {name: np.stack([task.parameters[name] for task in tasks]) for name in tasks[0].parameters}
