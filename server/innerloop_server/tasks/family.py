"""What a task family is: a parameter space, a way to sample it, and one or two faces of the same environment.

A family is one file. It knows no learner and no transport, and imports no torch until its batch face is built.
Third-party families arrive through the entry point group ``innerloop.task_families``.
"""

from __future__ import annotations

import abc
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium
import numpy as np

from innerloop.arrays import Array, Arrays, Box, Discrete, Space
from innerloop_server.domain import Features, Reference, Simulator, Task
from innerloop_server.errors import InvalidField, PreconditionFailed

if TYPE_CHECKING:
    import torch


class TaskBatch(Protocol):
    """The tensor-native face: B tasks, N parallel episodes each, stepped as one batch of tensors.

    Pure: ``reset`` and ``step`` return new states and never touch old ones. Physics is float64; observations and
    rewards come out as float32. What a row computes does not depend on how many rows there are.
    """

    reset_uniforms: int
    """How many uniform numbers in [0, 1) one reset consumes (0: the start is fixed)."""

    def reset(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Start episodes.

        Args:
            uniforms: [B, N, reset_uniforms] float64 in [0, 1).

        Returns:
            (state [B, N, S] float64, observation [B, N, *O] float32).
        """
        ...

    def step(
        self, state: torch.Tensor, action: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """One step of every row, finished or not (the caller masks what is finished).

        Args:
            state: [B, N, S].
            action: [B, N, *A] float32 as an environment takes it (clipped and scaled), or [B, N] int64.

        Returns:
            (state [B, N, S], observation [B, N, *O] float32, reward [B, N] float32, terminated [B, N] bool).
        """
        ...


@dataclass(frozen=True)
class Extra:
    """An optional dependency a family needs."""

    name: str
    """Of the extra in pyproject, such as ``mujoco``."""
    modules: tuple[str, ...]
    """Modules that must be importable."""
    distribution: str = "innerloop"
    """Whose extra it is."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Those of ``modules`` that are not installed (looked for, not imported)."""
        return tuple(module for module in self.modules if importlib.util.find_spec(module) is None)

    @property
    def hint(self) -> str:
        """The command that installs it."""
        return f"pip install '{self.distribution}[{self.name}]'"

    def require(self, family: str) -> None:
        """Make sure that it is installed.

        Raises:
            PreconditionFailed: it is not; the message says which module is missing and what to run.
        """
        if self.missing:
            raise PreconditionFailed(
                f"{family} needs {', '.join(self.missing)}: {self.hint}",
                reason="EXTRA_MISSING",
                facts={"family": family, "extra": self.name},
            )


class Family(abc.ABC):
    """A distribution of tasks with one observation space, one action space and a parameter space."""

    name: str
    """kebab-case, such as ``cartpole-dynamics``."""
    title: str
    """One line for a table."""
    description: str
    """What is hidden, what the reward is, where the definition comes from and how it differs from its source."""
    horizon: int
    """Steps after which an episode is truncated."""
    episodes_per_trial: int = 1
    discount: float = 0.99
    baseline: Features = Features()
    extra: Extra | None = None

    @property
    @abc.abstractmethod
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """Name of each hidden parameter -> its space (Box, float64, or Discrete)."""

    @property
    @abc.abstractmethod
    def observation_space(self) -> Space:
        """What the policy sees. Never holds the hidden parameters."""

    @property
    @abc.abstractmethod
    def action_space(self) -> Space:
        """What the policy does."""

    @property
    def observation_shift(self) -> tuple[float, ...]:
        """Subtracted from flattened observations before the network; default zero."""
        return (0.0,) * _flat_size(self.observation_space)

    @property
    def observation_scale(self) -> tuple[float, ...]:
        """Divides flattened observations before the network; default one."""
        return (1.0,) * _flat_size(self.observation_space)

    @property
    def action_shift(self) -> tuple[float, ...]:
        """Centre of a Box action; empty for Discrete."""
        return () if isinstance(self.action_space, Discrete) else (0.0,) * self.action_space.size

    @property
    def action_scale(self) -> tuple[float, ...]:
        """An environment's action for one unit of raw action; empty for Discrete."""
        return () if isinstance(self.action_space, Discrete) else (1.0,) * self.action_space.size

    def sample(self, rng: np.random.Generator) -> dict[str, Array]:
        """Draw the hidden parameters of one task; by default independent and uniform over the parameter space."""
        drawn: dict[str, Array] = {}
        for name, part in self.parameter_space.spaces.items():
            if isinstance(part, gymnasium.spaces.Discrete):
                drawn[name] = np.asarray(rng.integers(part.start, part.start + part.n))
            elif isinstance(part, gymnasium.spaces.Box) and part.is_bounded():
                drawn[name] = np.asarray(rng.uniform(part.low, part.high))
            else:
                raise TypeError(
                    f"{name}: {part} has no uniform distribution; {type(self).__name__} must override sample"
                )
        return drawn

    @abc.abstractmethod
    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """The task as a Gymnasium environment, time limit included."""

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:  # noqa: ARG002 - the default refuses
        """The tensor-native face of B tasks.

        Args:
            parameters: name -> [B, *shape] stacked over tasks.
            device: where to step them.

        Raises:
            InvalidField: this family has no batch face.
        """
        raise InvalidField("simulator", f"family {self.name} runs on actors only", reason="SIMULATOR_UNSUPPORTED")

    @property
    def simulators(self) -> tuple[Simulator, ...]:
        """The simulators that can run this family, the default first."""
        if type(self).batch is Family.batch:
            return (Simulator.ACTORS,)
        return (Simulator.BATCH, Simulator.ACTORS)

    @property
    def references(self) -> tuple[Reference, ...]:
        """Exact numbers known from the definition alone (trained bounds live in ``evaluation/references``)."""
        return ()

    def check(self, parameters: Mapping[str, Array], field: str = "task.parameters") -> dict[str, Array]:
        """Parameters as this family wants them, or an error that names the field.

        Raises:
            InvalidField: one is missing, unknown, of a wrong shape, not finite, or out of its space.
        """
        checked: dict[str, Array] = {}
        space = self.parameter_space
        for name in parameters:
            if name not in space.spaces:
                raise InvalidField(f"{field}.{name}", f"unknown; {self.name} has {', '.join(space.spaces)}")
        for name, part in space.spaces.items():
            where = f"{field}.{name}"
            if name not in parameters:
                raise InvalidField(where, f"missing; give a value in {part}")
            given = np.asarray(parameters[name])
            if given.dtype.kind not in "biuf":
                raise InvalidField(where, f"is not numeric; give a value in {part}")
            if given.shape != part.shape:
                raise InvalidField(where, f"has shape {list(given.shape)}, the space is {part}")
            if not np.all(np.isfinite(given)):
                raise InvalidField(where, f"is not finite; give a value in {part}")
            with np.errstate(invalid="ignore"):  # a float too large for an integer is caught by the comparison
                value = given.astype(part.dtype)
            if np.any(value != given) or not part.contains(value):
                raise InvalidField(where, f"{given.tolist()} lies outside {part}")
            checked[name] = value
        return checked


def _flat_size(space: Space) -> int:
    return space.n if isinstance(space, Discrete) else space.size


def space_of(space: gymnasium.Space[Any]) -> Space:
    """A Gymnasium space in our words.

    Raises:
        InvalidField: neither Box nor Discrete starting at 0.
    """
    if isinstance(space, gymnasium.spaces.Box):
        return Box(np.asarray(space.low, np.float32), np.asarray(space.high, np.float32))
    if isinstance(space, gymnasium.spaces.Discrete) and space.start == 0:
        return Discrete(int(space.n))
    raise InvalidField("space", f"{space} is neither a Box nor a Discrete that starts at 0")
