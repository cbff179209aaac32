"""The families as Gymnasium environments::

    import gymnasium
    import innerloop_server.tasks.gymnasium  # registers innerloop/{class of the family}-v0 for all that are installed

    gymnasium.make("innerloop/Navigation2D-v0", task="families/navigation-2d/tasks/test-0-3")
    gymnasium.make("innerloop/BernoulliBandit-v0", arms=10)  # a family's options are keywords

Gymnasium from 1.0 on loads no plugins by itself: an environment is known once the module that registers it was imported
(``gymnasium.make("innerloop_server.tasks.gymnasium:innerloop/Navigation2D-v0")`` does both). Importing this loads no
family and no torch; making an environment loads its family alone.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from typing import Any

import gymnasium

from innerloop.arrays import Arrays
from innerloop_server.domain import Split, Task
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.options import configured_name, read_options
from innerloop_server.tasks.registry import GROUP, Registry, load_registry
from innerloop_server.tasks.sampling import custom_task, family_of, sample_task, task_from_name

NAMESPACE = "innerloop"


def make_env(family: str, task: Task | str | Arrays | None = None, **options: int | str) -> gymnasium.Env[Any, Any]:
    """One task as an environment, time limit included.

    Args:
        family: its own name, without options.
        task: a task, the name of one (with or without ``families/``), its parameters, or ``None`` for the first
            training task of seed 0.
        **options: of the family; left out: as the task's name says, else the defaults.

    Raises:
        NotFound: no such family.
        InvalidField: an option that the family does not have or take; the task is of another family, or is no task.
        PreconditionFailed: the family did not load, or lacks its extra.
    """
    if isinstance(task, str):
        task = f"families/{task.removeprefix('families/')}"
    registry = load_registry(importlib.metadata.entry_points(group=GROUP, name=family))
    chosen = _configured(registry, family, task, options)
    if task is None:
        task = sample_task(chosen, 0, Split.TRAIN, 0)
    elif isinstance(task, str):
        task = task_from_name(registry, task, "task")
    elif not isinstance(task, Task):
        task = custom_task(chosen, task, "task")
    if task.family != chosen.name:
        raise InvalidField("task", f"is of {task.family}, not of {chosen.name}")
    return chosen.make(task)


def register() -> tuple[str, ...]:
    """Register every installed family that is not registered yet; families are not loaded until one is made.

    Where two families' classes have one name, the id is that of ours, else of the first by family name; a warning says
    how the other is made.

    Returns:
        The ids, sorted.
    """
    ids: dict[str, str] = {}
    for entry_point in sorted(importlib.metadata.entry_points(group=GROUP), key=_precedence):
        env_id, family = f"{NAMESPACE}/{entry_point.attr}-v0", entry_point.name
        if ids.setdefault(env_id, family) != family:
            warnings.warn(
                f"{env_id} is family {ids[env_id]}, so {family} ({entry_point.value}) has no id; make it by "
                f"{__name__}.make_env({family!r})",
                stacklevel=2,
            )
    for env_id, family in ids.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point=f"{__name__}:make_env", kwargs={"family": family})
    return tuple(sorted(ids))


def _precedence(entry_point: importlib.metadata.EntryPoint) -> tuple[bool, str]:
    """Sorts our own families before others', then by name: the order must not hang on how packages were installed."""
    distribution = entry_point.dist
    return distribution is None or distribution.name != "innerloop", entry_point.name


def _configured(
    registry: Registry, family: str, task: Task | str | Arrays | None, options: dict[str, int | str]
) -> Family:
    """The family with the options that were given, or else those of the task's family."""
    base = registry.get(family)
    if options:
        chosen = read_options(family, base.options, {name: str(value) for name, value in options.items()})
        return registry.get(configured_name(family, base.options, chosen))
    named = task.family if isinstance(task, Task) else family_of(task, "task") if isinstance(task, str) else family
    if named.partition(".")[0] != family:
        raise InvalidField("task", f"is of {named}, not of {family}")
    return registry.get(named)


register()
