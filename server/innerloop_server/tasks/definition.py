"""A family that a client defined by naming an environment: what is kept of it, as a value and as JSON."""

from __future__ import annotations

import fnmatch
import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from innerloop.arrays import Space, space_from_json, space_to_json
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.gymnasium_family import Apply, GymnasiumFamily, check_parameters

LARGEST_HORIZON = 100_000
LARGEST_TRIAL = 10_000
"""Episodes."""
MOST_PARAMETERS = 100
"""Numbers in the parameters of one task."""
LATEST = 253_402_300_799.0
"""Unix seconds: the end of the year 9999, past which no timestamp goes."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ENV_ID = re.compile(r"(?:[A-Za-z_][\w.]*:)?[\w./-]{1,150}")


@dataclass(frozen=True)
class FamilyDefinition:
    """What a client said, and what its environment was found to be."""

    name: str
    env_id: str
    parameters: Mapping[str, gymnasium.Space[Any]]
    """Name -> Box (float64, finite bounds) or Discrete from 0."""
    apply: Apply
    """ARGUMENTS or ATTRIBUTES."""
    horizon: int
    episodes_per_trial: int = 1
    owner: str = ""
    created_at: float = 0.0
    """Unix seconds."""
    spaces: tuple[Space, Space] | None = None
    """Of observations and actions; ``None`` until somebody has looked."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InvalidField: one that cannot be, under its name in ``DefineFamilyRequest``.
        """
        if not is_name(self.name):
            raise InvalidField("name", "has not the right form; use 1 to 63 characters of [a-z0-9-] after families/")
        if len(self.env_id) > 200 or _ENV_ID.fullmatch(self.env_id) is None:
            raise InvalidField("env_id", f"{self.env_id[:80]!r} is no id of Gymnasium's; write one like CartPole-v1")
        if self.apply is Apply.FUNCTION:
            raise InvalidField("apply", "a function cannot be sent; use arguments or attributes")
        check_parameters(self.parameters, self.apply)
        for name, space in self.parameters.items():
            if isinstance(space, gymnasium.spaces.Box) and not space.is_bounded():
                raise InvalidField(
                    f"parameters.{name}", "needs finite bounds on both sides: it is drawn from uniformly"
                )
        size = sum(math.prod(space.shape or ()) for space in self.parameters.values())
        if size > MOST_PARAMETERS:
            raise InvalidField("parameters", f"come to {size} numbers; give at most {MOST_PARAMETERS}")
        for field, largest in (("horizon", LARGEST_HORIZON), ("episodes_per_trial", LARGEST_TRIAL)):
            value = getattr(self, field)
            if type(value) is not int or not 1 <= value <= largest:
                raise InvalidField(field, f"is {value!r:.80}; give 1 to {largest}")
        if not isinstance(self.owner, str):
            raise InvalidField("owner", f"is {self.owner!r:.80}; give text")
        if not 0 <= self.created_at <= LATEST:
            raise InvalidField("created_at", f"is {self.created_at}; give Unix seconds")

    @property
    def asked(self) -> dict[str, Any]:
        """What a client said, as JSON values: equal for equal requests."""
        return {key: value for key, value in self.to_json().items() if key not in ("owner", "created_at", "spaces")}

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        spaces = None if self.spaces is None else [space_to_json(space) for space in self.spaces]
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "apply": self.apply.value,
            "parameters": {name: _parameter_to_json(space) for name, space in sorted(self.parameters.items())},
            "spaces": spaces,
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> FamilyDefinition:
        """Undo :meth:`to_json`.

        Raises:
            InvalidField: a field that cannot be.
            Exception: not what :meth:`to_json` gives; what is raised depends on what is there instead.
        """
        parameters = {name: _parameter_from_json(space) for name, space in values["parameters"].items()}
        spaces = values["spaces"]
        return FamilyDefinition(
            **{name: values[name] for name in _PLAIN},
            apply=Apply(values["apply"]),
            parameters=parameters,
            spaces=None if spaces is None else (space_from_json(spaces[0]), space_from_json(spaces[1])),
        )


class DefinedFamily(GymnasiumFamily):
    """The family of a definition. Describing it does not make its environment."""

    def __init__(self, definition: FamilyDefinition) -> None:
        self.definition = definition
        self.name = definition.name
        self.env_id = definition.env_id
        self.apply = definition.apply
        self.horizon = definition.horizon
        self.episodes_per_trial = definition.episodes_per_trial
        self.title = f"{definition.env_id} with hidden {', '.join(definition.parameters)}"
        self.description = (
            f"Gymnasium's {definition.env_id}. Hidden: {', '.join(definition.parameters)}, uniform, given as "
            f"{definition.apply}. Defined by {definition.owner}."
        )
        super().__init__()
        if definition.spaces is not None:  # else it is made to be looked at, as every family of its kind
            self.observation_space, self.action_space = definition.spaces

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """As defined."""
        return gymnasium.spaces.Dict(dict(self.definition.parameters))


def is_name(text: str) -> bool:
    """Whether a family can be defined under that name: 1 to 63 characters of [a-z0-9-], the first no hyphen."""
    return _NAME.fullmatch(text) is not None


def is_allowed(env_id: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns lets an environment be used.

    ``*``, ``?`` and ``[...]`` stand for characters of a name, never for a module: making ``module:Name-v0`` imports the
    module, so it must be written out.

    >>> is_allowed("CartPole-v1", ["CartPole-*"]), is_allowed("os:CartPole-v1", ["*"])
    (True, False)
    """
    module, _, name = env_id.rpartition(":")
    for pattern in patterns:
        allowed_module, _, allowed_name = pattern.rpartition(":")
        if module == allowed_module and fnmatch.fnmatchcase(name, allowed_name):
            return True
    return False


_PLAIN = ("name", "env_id", "horizon", "episodes_per_trial", "owner", "created_at")


def _parameter_to_json(space: gymnasium.Space[Any]) -> dict[str, Any]:
    if isinstance(space, gymnasium.spaces.Box):
        return {"low": space.low.tolist(), "high": space.high.tolist()}
    assert isinstance(space, gymnasium.spaces.Discrete)
    return {"n": int(space.n)}


def _parameter_from_json(value: Mapping[str, Any]) -> gymnasium.Space[Any]:
    if "n" in value:
        return gymnasium.spaces.Discrete(value["n"])
    low, high = (np.asarray(value[side], np.float64) for side in ("low", "high"))
    return gymnasium.spaces.Box(low, high, dtype=np.float64)
