"""The families as Gymnasium environments::

    task = "families/navigation-2d/tasks/test-0-3"
    gymnasium.make("innerloop_server.tasks.gymnasium:innerloop/Navigation2D-v0", task=task)

Importing this module (Gymnasium does it for the part before the colon) registers ``innerloop/{class of the
family}-v0`` for every family that is installed. Loads no torch.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import gymnasium

from innerloop.arrays import Arrays
from innerloop_server.domain import Split, Task
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.registry import GROUP, load_registry
from innerloop_server.tasks.sampling import custom_task, sample_task, task_from_name

NAMESPACE = "innerloop"


def make_env(family: str, task: Task | str | Arrays | None = None) -> gymnasium.Env[Any, Any]:
    """One task as an environment, time limit included.

    Args:
        family: its name.
        task: a task, the resource name of one, its parameters, or ``None`` for the first training task of seed 0.

    Raises:
        NotFound: no such family.
        InvalidField: the task is of another family, or is no task at all.
        PreconditionFailed: the family lacks its extra.
    """
    registry = load_registry()
    chosen = registry.get(family)
    if task is None:
        task = sample_task(chosen, 0, Split.TRAIN, 0)
    elif isinstance(task, str):
        task = task_from_name(registry, task, "task")
    elif not isinstance(task, Task):
        task = custom_task(chosen, task, "task")
    if task.family != family:
        raise InvalidField("task", f"is of {task.family}, not of {family}")
    return chosen.make(task)


def register() -> tuple[str, ...]:
    """Register every installed family that is not registered yet; families are not loaded until one is made.

    Returns:
        The ids, sorted.
    """
    ids = {f"{NAMESPACE}/{ep.attr}-v0": ep.name for ep in importlib.metadata.entry_points(group=GROUP)}
    for env_id, family in ids.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point=f"{__name__}:make_env", kwargs={"family": family})
    return tuple(sorted(ids))


register()
