"""A family whose hidden parameters are part of the observation: what an oracle is trained on.

Both faces show the same: the flattened observation, then every parameter mapped to [-1, 1] by its space; one of more
than two choices, which have no order, takes a number for each: 1 for what it is and -1 for what it is not. Showing them
makes another family, and its name says so like an option's: ``cartpole-dynamics.parameters-shown``. Every family has it
for the asking (:mod:`~innerloop_server.tasks.registry`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from innerloop.arrays import Array, Arrays, Box, Discrete, Space
from innerloop_server.domain import Reference, Split, Task
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.family import Family

if TYPE_CHECKING:
    import torch

OPTION, SHOWN = "parameters", "shown"
"""What the name of such a family ends with: ``.parameters-shown``."""
_SUFFIX = f".{OPTION}-{SHOWN}"
FEW = 2
"""Choices that fit one number."""


def shown_name(family: str) -> str:
    """The name of the family of that name with its parameters in view; that of one that shows them is its own."""
    return family if family.endswith(_SUFFIX) else family + _SUFFIX


class VisibleFamily(Family):
    """``family`` with its parameters in view. It draws the same tasks."""

    def __init__(self, family: Family) -> None:
        """Args:
            family: the one to show.

        Raises:
            InvalidField: its observations are Discrete, or a parameter has no bounds to show it by.
        """
        if isinstance(family.observation_space, Discrete):
            raise InvalidField("family", f"{family.name} has Discrete observations; an oracle needs a Box")
        for name, part in family.parameter_space.spaces.items():
            _bounds(name, part)
        self.hidden = family
        """The family that does not show them."""
        self._box = family.observation_space
        self.name = shown_name(family.name)
        self.title = f"{family.title}, parameters visible"
        self.description = family.description
        self.horizon = family.horizon
        self.discount = family.discount
        self.baseline = family.baseline
        self.extra = family.extra
        self.episodes_per_trial = family.episodes_per_trial
        self.supervision = family.supervision
        self.environments_change_task = family.environments_change_task
        self.knows_success = family.knows_success
        self.splits_share_tasks = family.splits_share_tasks
        self.splits_hold_out = family.splits_hold_out

    @property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """As the family's."""
        return self.hidden.parameter_space

    @property
    def observation_space(self) -> Space:
        """The flattened observation, then the parameters."""
        ones = np.ones(self._parameter_count, np.float32)
        return Box(np.concatenate([self._box.low.ravel(), -ones]), np.concatenate([self._box.high.ravel(), ones]))

    @property
    def action_space(self) -> Space:
        """As the family's."""
        return self.hidden.action_space

    @property
    def observation_shift(self) -> tuple[float, ...]:
        """As the family's; parameters are left as they are."""
        return (*self.hidden.observation_shift, *(0.0,) * self._parameter_count)

    @property
    def observation_scale(self) -> tuple[float, ...]:
        """As the family's; parameters are left as they are."""
        return (*self.hidden.observation_scale, *(1.0,) * self._parameter_count)

    @property
    def action_shift(self) -> tuple[float, ...]:
        """As the family's."""
        return self.hidden.action_shift

    @property
    def action_scale(self) -> tuple[float, ...]:
        """As the family's."""
        return self.hidden.action_scale

    def sample(self, rng: np.random.Generator, split: Split = Split.TRAIN) -> dict[str, Array]:
        """As the family."""
        return self.hidden.sample(rng, split)

    def enumerate(self, split: Split) -> Sequence[dict[str, Array]] | None:
        """As the family."""
        return self.hidden.enumerate(split)

    def check(self, parameters: Mapping[str, Array], field: str = "task.parameters") -> dict[str, Array]:
        """As the family."""
        return self.hidden.check(parameters, field)

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """The family's environment behind a wrapper that appends the parameters."""
        env, box = self.hidden.make(task), self.observation_space
        assert isinstance(box, Box)
        wrapper = _Shown if self.environments_change_task else _ShownForGood
        return wrapper(env, self.parameter_space, box, task.parameters)

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        """The family's batch with the parameters appended to each observation."""
        from innerloop_server.tasks.families.visible_batch import VisibleBatch

        return VisibleBatch(self.hidden.batch(parameters, device), normalise(self.parameter_space, parameters), device)

    @property
    def simulators(self) -> tuple[Any, ...]:
        """As the family's."""
        return self.hidden.simulators

    @property
    def references(self) -> tuple[Reference, ...]:
        """As the family's: the tasks are the same."""
        return self.hidden.references

    @property
    def _parameter_count(self) -> int:
        return sum(_size(part) for part in self.hidden.parameter_space.spaces.values())


class _ShownForGood(gymnasium.ObservationWrapper[Array, Any, Array]):
    """An environment of one task, whose parameters stand behind each observation."""

    def __init__(
        self, env: gymnasium.Env[Array, Any], parameter_space: gymnasium.spaces.Dict, box: Box, parameters: Arrays
    ) -> None:
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(box.low, box.high, dtype=np.float32)
        self._parameter_space = parameter_space
        self._show(parameters)

    def observation(self, observation: Array) -> Array:
        """The flattened observation, then the parameters."""
        return np.concatenate([np.ravel(observation), self._shown]).astype(np.float32)

    def _show(self, parameters: Arrays) -> None:
        self._shown = normalise(self._parameter_space, {name: value[None] for name, value in parameters.items()})[0]


class _Shown(_ShownForGood):
    """One whose environment can become another task: what is shown must change with it."""

    def set_task(self, parameters: Arrays) -> None:
        """As the environment's."""
        self.env.get_wrapper_attr("set_task")(parameters)
        self._show(parameters)


def normalise(space: gymnasium.spaces.Dict, parameters: Mapping[str, Array]) -> Array:
    """Parameters of B tasks as numbers in [-1, 1], in the order of the space's names.

    Args:
        space: Box (bounded) or Discrete parts.
        parameters: name -> [B, *shape].

    Returns:
        [B, P] float32.

    Raises:
        InvalidField: a part has no bounds.
    """
    columns = []
    for name, part in space.spaces.items():
        value = np.asarray(parameters[name], np.float64)
        low, high = _bounds(name, part)
        if isinstance(part, gymnasium.spaces.Discrete) and part.n > FEW:
            scaled = np.where(value[:, None] - low == np.arange(part.n), 1.0, -1.0)
        else:
            scaled = 2 * (value - low) / np.maximum(high - low, np.finfo(np.float64).tiny) - 1
        columns.append(scaled.reshape(len(value), -1))
    return np.concatenate(columns, 1).astype(np.float32)


def _size(part: gymnasium.Space[Any]) -> int:
    """Numbers that a parameter takes to show."""
    if isinstance(part, gymnasium.spaces.Discrete):
        return int(part.n) if part.n > FEW else 1
    return int(np.prod(part.shape or ()))


def _bounds(name: str, part: gymnasium.Space[Any]) -> tuple[Array, Array]:
    if isinstance(part, gymnasium.spaces.Discrete):
        return np.asarray(part.start), np.asarray(part.start + part.n - 1)
    if isinstance(part, gymnasium.spaces.Box) and part.is_bounded():
        return part.low, part.high
    raise InvalidField("family", f"parameter {name} lives in {part}, which has no bounds to show it by")
