"""The words of innerloop as values. Every room above speaks them; nothing here computes.

Shape legend, used everywhere: B tasks, N episodes a task, T steps (capacity), O observation, A action.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from innerloop.arrays import Array, Arrays, Space

ArrayT = TypeVar("ArrayT")
"""numpy arrays at the borders, torch tensors on the device. domain.py does not care which."""


class Split(enum.StrEnum):
    """Which of the three task streams a task came from. The streams never meet."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Simulator(enum.StrEnum):
    """What runs the episodes of a simulated session or a training."""

    BATCH = "batch"
    """The family's tensor-native face, on the learner's device."""
    ACTORS = "actors"
    """Environment-actor processes, each holding many Gymnasium environments."""


class Supervision(enum.StrEnum):
    """What a supervised family's feedback is. Its episodes are one step: an example in, a prediction out."""

    CLASSIFICATION = "classification"
    """The action is a label (Discrete), the feedback the right one, the reward 1 where they agree."""
    REGRESSION = "regression"
    """The action is a prediction (Box), the feedback its target, the reward minus the mean squared error over the
    target's dimensions."""


class Adaptation(enum.StrEnum):
    """How a learning method's state changes in the inner loop."""

    UPDATE = "update"
    """By ``adapt``, on whole episodes: fast weights, a posterior."""
    MEMORY = "memory"
    """By acting: a hidden state that every step goes through. Its adaptation step is the episode."""


class ReturnUnit(enum.StrEnum):
    """What a return was summed over."""

    EPISODE = "episode"
    TRIAL = "trial"
    """All episodes of a task's lifetime."""


@dataclass(frozen=True)
class Task:
    """One member of a family."""

    family: str
    """Name of the family, such as ``navigation-2d``."""
    parameters: Arrays
    """Name of the parameter -> its value (float64 unless the space is Discrete). Hidden from the policy."""
    split: Split | None = None
    seed: int | None = None
    index: int | None = None
    """(split, seed, index) is where a sampled task came from; all ``None`` for one that a caller made up."""

    @property
    def name(self) -> str:
        """``families/{family}/tasks/{split}-{seed}-{index}``; empty for a task that a caller made up."""
        if self.split is None or self.seed is None or self.index is None:
            return ""
        return f"families/{self.family}/tasks/{self.split}-{self.seed}-{self.index}"


@dataclass(frozen=True)
class Experience(Generic[ArrayT]):
    """Episodes of B tasks, padded to a fixed capacity. Steps at or past an episode's length are zero."""

    observations: ArrayT
    """[B, N, T, *O] float32: what the policy saw before each action."""
    actions: ArrayT
    """[B, N, T, A] float32 raw actions (before clip and scale), or [B, N, T] int64."""
    rewards: ArrayT
    """[B, N, T] float32."""
    log_probs: ArrayT
    """[B, N, T] float32: log-probability of each action under the policy that took it; in classification, of the
    right label."""
    lengths: ArrayT
    """[B, N] int64: steps in each episode; 0 for a padded episode."""
    bootstrap: ArrayT
    """[B, N] bool: the episode was cut before its end (a segment of a longer one), so its value goes on from
    ``final_observations``. False where it terminated or ran to the family's own horizon."""
    final_observations: ArrayT
    """[B, N, *O] float32: what was seen after the last step. Always there where ``bootstrap`` is set; elsewhere actors
    give it and others leave zeros."""
    time_offset: ArrayT
    """[B, N] int64: the step of the task's episode at which this segment began; 0 for a whole episode."""
    feedback: ArrayT
    """[B, N, T, F] float32: the right answers of a supervised family (F = 1: the label, as a number; else the target);
    F = 0 where there is no supervision."""
    success: ArrayT
    """[B, N] bool: the environment said ``success`` at some step; False where a family knows no success."""


@dataclass(frozen=True)
class LearnerSpec:
    """What a learner is bound to: the shapes of a family and the settings of its method."""

    name: str
    """Resource id, such as ``navigation-2d-maml``."""
    method: str
    """Name of the learning method, such as ``maml``."""
    family: str
    observation_space: Space
    action_space: Space
    observation_shift: tuple[float, ...]
    observation_scale: tuple[float, ...]
    action_shift: tuple[float, ...]
    action_scale: tuple[float, ...]
    """See ``innerloop.policy.Header``; both empty for Discrete actions."""
    horizon: int
    """Steps in an episode of the family."""
    baseline: Features
    """What the value baseline is regressed on."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The method's own settings as JSON values; each method documents and checks its own."""
    supervision: Supervision | None = None
    """Of a supervised family."""


@dataclass(frozen=True)
class Features:
    """Features of (observation, time) that a family declares for its value baselines (ridge regression).

    ``linear``: o, o^2, t, t^2, t^3, 1 with t = step / 100 (Duan et al. 2016, https://arxiv.org/abs/1604.06778).
    ``polynomial``: all monomials of the observation up to ``degree``, and t, t^2, t^3 with t = step / horizon.
    """

    kind: str = "linear"
    degree: int = 1


class SessionState(enum.StrEnum):
    """Where a session is in its life."""

    ACTIVE = "active"
    """Adapting, or waiting for its client; resumable."""
    FINISHED = "finished"
    """Ended by ``finish`` or by its budget; its policy exists."""
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Budget:
    """When a session ends by itself. ``None``: not bounded by this. The first that is reached ends it."""

    steps: int | None = None
    episodes: int | None = None
    """All that were sampled, the guard's too."""
    seconds: float | None = None
    """Of computing, without queueing or the client's own time."""
    target_return: float | None = None
    """Mean sampled return of a step's episodes."""
    auto: bool = False
    """As many steps as were worth their episodes on validation tasks (``adaptation.worth``)."""


@dataclass(frozen=True)
class Score:
    """An evaluator's result for one k, over M tasks."""

    k: int
    """Adaptation steps behind the policies scored."""
    tasks: int
    episodes: int
    """Evaluation episodes a task."""
    mean: float
    """Of the tasks' mean undiscounted returns."""
    interquartile_mean: float
    low: float
    high: float
    """95 % bootstrap interval of the mean, over tasks."""
    standard_error: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What else was measured, each a mean over the tasks: ``success`` (share of episodes), ``accuracy``,
    ``cross_entropy`` (nats), ``mse``; and ``r2``, of all tasks at once. Only those that the family knows. Of a method
    that remembers, at the k of a trial's last episode: ``trial_return``, the sum over the trial's episodes, and
    ``trial_low`` and ``trial_high``, its 95 % bootstrap interval over tasks."""


@dataclass(frozen=True)
class Reference:
    """A number that a score is read against."""

    name: str
    """``oracle``, ``memoryless``, ``no-move``, ``random``, ..."""
    value: float
    """Mean undiscounted return."""
    source: str
    """Where it comes from: a formula, or the manifest of a training."""
    unit: ReturnUnit = ReturnUnit.EPISODE
    """What ``value`` is summed over."""


__all__ = [
    "Adaptation",
    "Array",
    "ArrayT",
    "Arrays",
    "Budget",
    "Experience",
    "Features",
    "LearnerSpec",
    "Reference",
    "ReturnUnit",
    "Score",
    "SessionState",
    "Simulator",
    "Space",
    "Split",
    "Supervision",
    "Task",
]
