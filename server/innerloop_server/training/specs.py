"""Binding a learning method to a family: shapes from the family, settings from a readable file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.learners import registry
from innerloop_server.tasks.family import Family
from innerloop_server.training import task_numbers

CONFIGS = resources.files("innerloop_server.training") / "configs"
"""``<method>/<family>.toml`` holds what a pair is trained with; ``<method>/default.toml`` serves every other family."""


def preset(method: str, family: str) -> dict[str, Any]:
    """The settings that a method is trained with on a family.

    Raises:
        InvalidField: no such method.
    """
    if method not in registry.METHODS:
        raise InvalidField("method", f"{method!r} is unknown; use one of {', '.join(registry.METHODS)}")
    base, *options = family.split(".")
    # A name with options takes what there is for the last of them alone, before what there is for none.
    for name in (*(".".join([base, *options[i:]]) for i in range(len(options) + 1)), "default"):
        file = CONFIGS / method / f"{name}.toml"
        if file.is_file():
            return tomllib.loads(file.read_text(encoding="utf-8"))
    return {}


def _of_family(family: Family, method: str) -> dict[str, Any]:
    """What the family itself says of the settings that the method has."""
    known = registry.get(method).settings({}).to_json()
    said = {"discount": family.discount, "episodes_per_trial": family.episodes_per_trial}
    if "task_size" in known:
        said["task_size"] = task_numbers.size(family)
    return {name: value for name, value in said.items() if name in known}


def learner_id(family: str, method: str) -> str:
    """The id of a family's learner that nobody named otherwise: ``bernoulli-bandit-arms-10-maml``."""
    return re.sub("[^a-z0-9-]", "-", f"{family}-{method}".lower())


def spec_for(
    family: Family, method: str = "maml", name: str | None = None, settings: Mapping[str, Any] | None = None
) -> LearnerSpec:
    """What ``registry.build`` needs to make a learner of ``method`` for ``family``.

    Args:
        family: where spaces, normalisers, horizon and baseline come from.
        method: name of the learning method.
        name: resource id of the learner; see :func:`learner_id` when left out.
        settings: over the preset, key by key.

    Raises:
        InvalidField: no such method.
    """
    return LearnerSpec(
        name=name or learner_id(family.name, method),
        method=method,
        family=family.name,
        observation_space=family.observation_space,
        action_space=family.action_space,
        observation_shift=family.observation_shift,
        observation_scale=family.observation_scale,
        action_shift=family.action_shift,
        action_scale=family.action_scale,
        horizon=family.horizon,
        baseline=family.baseline,
        settings={**_of_family(family, method), **preset(method, family.name), **(settings or {})},
        supervision=family.supervision,
    )
