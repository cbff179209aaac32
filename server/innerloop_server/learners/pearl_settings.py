"""Settings of PEARL: what each means, what it may be, and its default, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.learners.setting_checks import (
    LARGEST_BATCH,
    read,
    require,
    require_start,
    require_widths,
    to_json,
)

MOST_LATENT = 32
LARGEST_REPLAY = 100_000_000
"""Transitions that a replay may hold: it is part of every checkpoint."""
OUTER = frozenset(
    {"updates", "tasks_per_update", "inner_steps", "warmup_updates", "gradient_steps", "meta_batch", "batch"}
    | {"context", "replay_tasks", "replay_steps", "learning_rate", "final_learning_rate", "target_rate"}
    | {"kl_weight", "reach_weight", "temperature", "final_temperature", "gradient_clip"}
)
"""Settings that only training reads: another training of the same learner may change these and no others."""


@dataclass(frozen=True)
class PearlSettings:
    """How PEARL infers and how it is trained. ``LearnerSpec.settings`` holds these as JSON values."""

    # The networks and the belief.
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the policy's hidden tanh layers."""
    critic_sizes: tuple[int, ...] = (128, 128)
    """Widths of the critics' hidden layers."""
    encoder_sizes: tuple[int, ...] = (64, 64)
    """Widths of the encoder's hidden layers."""
    latent: int = 5
    """Dimensions of z."""
    measurements: int = 2
    """Linear measurements of z that one transition makes."""
    squares: bool = False
    """Whether the encoder also sees the squares of the reward and of the observation that followed."""
    initial_log_std: float = -0.5
    """Log standard deviation of raw actions at the start (Box actions)."""
    reward_scale: float = 1.0
    """Rewards are multiplied by this before any network sees them."""
    discount: float = 0.99
    """Per step."""

    # Adaptation.
    episodes_per_step: int = 1
    """Episodes of an adaptation step, in training and as a session's default."""
    sampled_steps: int = 0
    """A session acts on a z drawn from its belief until it has taken so many steps, then on the belief's mean."""

    # Training.
    updates: int = 100
    """Meta-updates of a whole training: each plays fresh tasks, then takes ``gradient_steps``."""
    tasks_per_update: int = 16
    """Fresh tasks a meta-update."""
    inner_steps: int = 2
    """Adaptation steps on each of them; with the first, so many steps plus one are played."""
    warmup_updates: int = 2
    """Meta-updates that only play, to fill the replay."""
    gradient_steps: int = 100
    """Optimiser steps a meta-update."""
    meta_batch: int = 16
    """Tasks an optimiser step."""
    batch: int = 64
    """Transitions of each task that an optimiser step values."""
    context: int = 64
    """Transitions of each task that z is inferred from in an optimiser step: at most, a number drawn afresh."""
    replay_tasks: int = 500
    """Tasks that are remembered, the newest."""
    replay_steps: int = 200
    """Transitions that are remembered of a task; of more, so many drawn at random."""
    learning_rate: float = 1e-3
    """Adam's at the first update; falls linearly."""
    final_learning_rate: float = 1e-4
    """Adam's at the last update."""
    target_rate: float = 5e-3
    """Share of the critics that their targets take over in an optimiser step."""
    kl_weight: float = 1e-2
    """Of the belief's KL to the prior."""
    model_weight: float = 1.0
    """Of the error of a model that predicts reward and change from z; 0: no model, z serves the critics alone."""
    reach_weight: float = 1.0
    """Of the penalty on mean actions that the environment would clip (Box actions)."""
    temperature: float = 0.1
    """Scaled reward that one nat of the policy's entropy is worth at the first update; falls geometrically."""
    final_temperature: float = 0.01
    """The same at the last update."""
    gradient_clip: float = 10.0
    """Largest norm of the gradient; 0: unbounded."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InvalidField: a value out of its range; names ``settings.<field>``.
        """
        require_widths(self, "hidden_sizes", "critic_sizes", "encoder_sizes")
        require_start(self)
        for name in ("latent", "episodes_per_step", "updates", "tasks_per_update", "gradient_steps", "meta_batch"):
            require(getattr(self, name) >= 1, name, "give an integer of at least 1")
        for name in ("measurements", "batch", "context", "replay_tasks", "replay_steps"):
            require(getattr(self, name) >= 1, name, "give an integer of at least 1")
        for name in ("latent", "measurements"):
            require(getattr(self, name) <= MOST_LATENT, name, f"give an integer of at most {MOST_LATENT}")
        for name in ("batch", "context"):
            fits = getattr(self, name) * self.meta_batch <= LARGEST_BATCH
            require(fits, name, f"times meta_batch it may come to {LARGEST_BATCH}")
        for name in ("sampled_steps", "inner_steps"):
            require(0 <= getattr(self, name) <= 100, name, "give an integer from 0 to 100")
        require(self.warmup_updates >= 0, "warmup_updates", "give an integer of at least 0")
        require(
            self.updates > self.warmup_updates, "updates", f"give more than the {self.warmup_updates} that only play"
        )
        require(self.replay_tasks >= self.tasks_per_update, "replay_tasks", "give at least tasks_per_update")
        require(
            self.replay_tasks * self.replay_steps <= LARGEST_REPLAY,
            "replay_steps",
            f"times replay_tasks it may come to {LARGEST_REPLAY}",
        )
        for name in ("reward_scale", "learning_rate", "final_learning_rate", "temperature", "final_temperature"):
            require(getattr(self, name) > 0, name, "give a positive number")
        for name in ("kl_weight", "model_weight", "reach_weight", "gradient_clip"):
            require(getattr(self, name) >= 0, name, "give a number of at least 0")
        for name in ("discount", "target_rate"):
            require(0 <= getattr(self, name) <= 1, name, "give a number from 0 to 1")

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> PearlSettings:
        """Read settings; those left out take their defaults.

        Raises:
            InvalidField: unknown, of a wrong type, or out of its range; names ``settings.<field>``.
        """
        return read(PearlSettings, "pearl", values)

    def to_json(self) -> dict[str, Any]:
        """Every setting as JSON values."""
        return to_json(self)


def check_fits(spec: LearnerSpec) -> None:
    """Raises:
    InvalidField: the family is supervised; names ``method``.
    """
    if spec.supervision is not None:
        raise InvalidField("method", f"pearl learns from rewards, and {spec.family} has labelled examples")
