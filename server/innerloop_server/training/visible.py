"""A family whose hidden parameters are part of the observation: what an oracle is trained on.

Both faces show the same: the flattened observation, then every parameter mapped to [-1, 1] by its space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from innerloop.arrays import Array, Arrays, Box, Discrete, Space
from innerloop_server.domain import Split, Task
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import Registry, load_registry

if TYPE_CHECKING:
    import torch


class VisibleFamily(Family):
    """``family`` with its parameters in view. It draws the same tasks under the same name."""

    def __init__(self, family: Family) -> None:
        """Args:
            family: the one to show.

        Raises:
            InvalidField: its observations are Discrete.
        """
        if isinstance(family.observation_space, Discrete):
            raise InvalidField("family", f"{family.name} has Discrete observations; an oracle needs a Box")
        self._family = family
        self._box = family.observation_space
        self.name = family.name
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
        self.options = family.options  # type: ignore[misc]  # of each instance here: what it shows has them

    @property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """As the family's."""
        return self._family.parameter_space

    @property
    def observation_space(self) -> Space:
        """The flattened observation, then the parameters."""
        ones = np.ones(self._parameter_count, np.float32)
        return Box(np.concatenate([self._box.low.ravel(), -ones]), np.concatenate([self._box.high.ravel(), ones]))

    @property
    def action_space(self) -> Space:
        """As the family's."""
        return self._family.action_space

    @property
    def observation_shift(self) -> tuple[float, ...]:
        """As the family's; parameters are left as they are."""
        return (*self._family.observation_shift, *(0.0,) * self._parameter_count)

    @property
    def observation_scale(self) -> tuple[float, ...]:
        """As the family's; parameters are left as they are."""
        return (*self._family.observation_scale, *(1.0,) * self._parameter_count)

    @property
    def action_shift(self) -> tuple[float, ...]:
        """As the family's."""
        return self._family.action_shift

    @property
    def action_scale(self) -> tuple[float, ...]:
        """As the family's."""
        return self._family.action_scale

    def configured(self, options: Mapping[str, int | str]) -> VisibleFamily:
        """The family with other options, shown."""
        return VisibleFamily(self._family.configured(options))

    def sample(self, rng: np.random.Generator, split: Split = Split.TRAIN) -> dict[str, Array]:
        """As the family."""
        return self._family.sample(rng, split)

    def check(self, parameters: Mapping[str, Array], field: str = "task.parameters") -> dict[str, Array]:
        """As the family."""
        return self._family.check(parameters, field)

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """The family's environment behind a wrapper that appends the parameters."""
        env, box = self._family.make(task), self.observation_space
        assert isinstance(box, Box)
        wrapper = _Shown if self.environments_change_task else _ShownForGood
        return wrapper(env, self.parameter_space, box, task.parameters)

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        """The family's batch with the parameters appended to each observation."""
        from innerloop_server.training.batches import VisibleBatch

        return VisibleBatch(self._family.batch(parameters, device), normalise(self.parameter_space, parameters), device)

    @property
    def simulators(self) -> tuple[Any, ...]:
        """As the family's."""
        return self._family.simulators

    @property
    def _parameter_count(self) -> int:
        return sum(int(np.prod(part.shape or ())) for part in self.parameter_space.spaces.values())


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
    """Parameters of B tasks mapped to [-1, 1] by their spaces, in the order of the space's names.

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
        if isinstance(part, gymnasium.spaces.Discrete):
            low, high = np.asarray(part.start), np.asarray(part.start + part.n - 1)
        elif isinstance(part, gymnasium.spaces.Box) and part.is_bounded():
            low, high = part.low, part.high
        else:
            raise InvalidField("family", f"parameter {name} lives in {part}, which has no bounds to show it by")
        scaled = 2 * (value - low) / np.maximum(high - low, np.finfo(np.float64).tiny) - 1
        columns.append(scaled.reshape(len(value), -1))
    return np.concatenate(columns, 1).astype(np.float32)


def load_visible_registry() -> Registry:
    """The installed families with Box observations, their parameters in view: a source for environment actors."""
    families = load_registry().families
    return Registry(
        {name: VisibleFamily(one) for name, one in families.items() if not isinstance(one.observation_space, Discrete)}
    )
