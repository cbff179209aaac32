"""What a task family is: a parameter space, a way to sample it, and one or two faces of the same environment.

A family is one file. It knows no learner and no transport, and imports no torch until its batch face is built.
Third-party families arrive through the entry point group ``innerloop.task_families``.
"""

from __future__ import annotations

import abc
import importlib.util
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium
import numpy as np

from innerloop.arrays import Array, Arrays, Box, Discrete, Space
from innerloop_server.domain import Features, Reference, Simulator, Split, Supervision, Task
from innerloop_server.errors import InvalidField, PreconditionFailed
from innerloop_server.tasks.batch import TaskBatch

if TYPE_CHECKING:
    import torch

SHOWN = 200
"""Characters of a wrong value that an error repeats: an error has to fit the headers of an answer."""


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
    supervision: Supervision | None = None
    """Set in a supervised family: its episodes are one step, and ``info["feedback"]`` of that step is the answer."""
    knows_success: bool = False
    """Its environments say ``info["success"]``, and its batch face :meth:`~.TaskBatch.success`; evaluations report the
    share of episodes."""
    splits_share_tasks: bool = False
    """There are so few tasks (two directions, 21 goals) that train, validation and test meet the same ones."""
    splits_hold_out: bool = False
    """The splits draw from parts of the parameter space that never meet (classes, scripts, environments), not only
    from streams that never meet: nobody but ``sample`` may make up parameters to train on."""
    environments_change_task: bool = False
    """Its environments have ``set_task(parameters)``, on themselves or on a wrapper, after which they are the same as
    new ones of that task: actors then use one for many tasks, where making one is expensive."""
    options: ClassVar[Mapping[str, int | str]] = {}
    """What can be chosen about the family, and the defaults: each is a keyword of the constructor. A family with other
    than default options is another family, called ``<name>.<option>-<value>`` (``bernoulli-bandit.arms-10``)."""

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

    @property
    def feedback_size(self) -> int:
        """F: numbers in the feedback of one step; 0 without supervision."""
        if self.supervision is None:
            return 0
        return 1 if isinstance(self.action_space, Discrete) else self.action_space.size

    def sample(self, rng: np.random.Generator, split: Split = Split.TRAIN) -> dict[str, Array]:  # noqa: ARG002
        """Draw the hidden parameters of one task; by default independent and uniform over the parameter space.

        Args:
            rng: the task's own stream; the streams of the splits never meet.
            split: for families that hold out more than a stream (whole classes, scripts, languages, tasks).
        """
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

    def enumerate(self, split: Split) -> Sequence[dict[str, Array]] | None:  # noqa: ARG002 - by default all splits are one
        """The parameters of every task of a split, in a fixed order; ``None`` where they are too many to count.

        An evaluation takes its tasks from here, in turn, so that it meets each equally often. By default: where the
        splits share their tasks, every combination of the parameters, the last one changing fastest.

        Args:
            split: for families that hold out more than a stream.
        """
        parts = self.parameter_space.spaces
        ranges = [
            range(part.start, part.start + part.n)
            for part in parts.values()
            if isinstance(part, gymnasium.spaces.Discrete)
        ]
        if not self.splits_share_tasks or len(ranges) < len(parts):
            return None
        return [dict(zip(parts, map(np.asarray, values), strict=True)) for values in itertools.product(*ranges)]

    def configured(self, options: Mapping[str, int | str]) -> Family:
        """This family with other options: a new one, under the name that says them.

        Args:
            options: a value for each of ``options``.

        Raises:
            InvalidField: a value that the family does not take; names ``options.<name>``.
        """
        return type(self)(**options)

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
        """Known from the definition alone; ``evaluation/references`` adds what is computed, measured or trained."""
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
                raise InvalidField(where, f"{textwrap.shorten(str(given.tolist()), SHOWN)} lies outside {part}")
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
