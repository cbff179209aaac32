"""Settings of VariBAD: what each means, what it may be, and its default, in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from innerloop.arrays import Discrete, Space
from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.learners import trial_ppo_settings
from innerloop_server.learners.setting_checks import WIDEST_LAYER, read, require, require_start, require_widths
from innerloop_server.learners.trial_ppo_settings import TrialPpoSettings, check_told

MOST_LATENT = 64
MOST_STATES = 10_000
LARGEST_BUFFER = 20_000_000
"""Steps that a buffer may hold: it is part of every checkpoint."""
DECODERS = ("transitions", "states", "goal")
OUTER = trial_ppo_settings.OUTER | {
    "belief_steps",
    "belief_batch",
    "belief_learning_rate",
    "belief_terms",
    "decoded_steps",
    "belief_gradient_clip",
    "kl_weight",
    "buffer_trials",
    "statistics_rate",
}
"""Settings that only training reads: another training of the same learner may change these and no others."""


@dataclass(frozen=True)
class VaribadSettings(TrialPpoSettings):
    """The networks of VariBAD and how they are trained. ``LearnerSpec.settings`` holds these as JSON values."""

    # The belief.
    encoder_sizes: tuple[int, ...] = (64,)
    """Widths of the tanh layers in front of the memory."""
    memory_size: int = 64
    """Width of the memory that the belief is read from."""
    latent: int = 5
    """Dimensions of the belief."""
    decoder: str = "transitions"
    """What a latent has to explain. ``transitions``: the reward of an observation and an action, and with ``dynamics``
    the change. ``states``: in which of finitely many states a step is paid (its reward is positive), each by a chance
    of its own, from the latent alone. ``goal``: the same where one state is paid and no other."""
    decoder_sizes: tuple[int, ...] = (64, 64)
    """Widths of the decoder's rectified layers."""
    dynamics: bool = True
    """``transitions`` explain how the observation changes, too."""

    # The policy.
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden tanh layers of the policy and of the value, which see the observation and the belief."""
    last_layer_scale: float = 0.01
    """Shrinks the policy's last layer at the start, so that it starts out indifferent."""
    initial_log_std: float = -0.5
    """Log standard deviation of raw actions at the start (Box actions)."""

    # Training the belief: the evidence lower bound on trials from a buffer.
    belief_steps: int = 16
    """Optimiser steps an update."""
    belief_batch: int = 128
    """Trials of a step."""
    belief_learning_rate: float = 3e-3
    """Adam's in the first update."""
    belief_terms: int = 64
    """Beliefs of a trial that are asked to explain it; all of them where the trial has no more."""
    decoded_steps: int = 64
    """Steps of a trial that each of them has to explain (``transitions``); all where the trial has no more."""
    kl_weight: float = 0.1
    """Of the KL of each belief from the one before (beta)."""
    belief_gradient_clip: float = 1.0
    """Largest norm of the gradient of the bound per step of a trial; 0: unbounded."""
    buffer_trials: int = 2_048
    """Trials that are kept, the newest."""
    statistics_rate: float = 0.05
    """Share of an update's trials in the running statistics that inputs and targets are normalised by."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InvalidField: a value out of its range; names ``settings.<field>``.
        """
        super().__post_init__()
        require_widths(self, "encoder_sizes", "decoder_sizes", "hidden_sizes")
        require_start(self)
        for name, most in {"memory_size": WIDEST_LAYER, "latent": MOST_LATENT}.items():
            require(1 <= getattr(self, name) <= most, name, f"give an integer from 1 to {most}")
        for name in ("belief_batch", "belief_terms", "decoded_steps"):
            require(getattr(self, name) >= 1, name, "give an integer of at least 1")
        require(self.belief_steps >= 0, "belief_steps", "give an integer of at least 0")
        require(self.buffer_trials >= self.tasks_per_update, "buffer_trials", "give at least tasks_per_update")
        require(self.decoder in DECODERS, "decoder", f"give one of {', '.join(DECODERS)}")
        require(self.belief_learning_rate > 0, "belief_learning_rate", "give a positive number")
        for name in ("kl_weight", "belief_gradient_clip"):
            require(getattr(self, name) >= 0, name, "give a number of at least 0")
        require(0 <= self.statistics_rate <= 1, "statistics_rate", "give a number from 0 to 1")

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> VaribadSettings:
        """Read settings; those left out take their defaults.

        Raises:
            InvalidField: unknown, of a wrong type, or out of its range; names ``settings.<field>``.
        """
        return read(VaribadSettings, "varibad", values)


def check_fits(spec: LearnerSpec) -> None:
    """Check what depends on the family.

    Raises:
        InvalidField: a supervised family: ``method``. A decoder over states where there is no list of them:
            ``settings.decoder``. Tasks to be told that take no numbers: ``settings.told``. A buffer of too many steps:
            ``settings.buffer_trials``.
    """
    if spec.supervision is not None:
        raise InvalidField(
            "method", f"varibad learns from rewards, and {spec.family} gives the right answers; use maml"
        )
    settings = VaribadSettings.from_json(spec.settings)
    check_told(settings, spec.family)
    if settings.decoder != "transitions":
        require(
            0 < states(spec.observation_space) <= MOST_STATES,
            "decoder",
            f"{spec.family} does not show which of finitely many states it is in; use transitions",
        )
    most = LARGEST_BUFFER // (spec.horizon * settings.episodes_per_trial)
    for name in ("buffer_trials", "belief_batch"):
        require(getattr(settings, name) <= most, name, f"give at most {most}: trials are long")


def states(space: Space) -> int:
    """How many states an observation tells apart: a Discrete one its n, a Box the whole numbers within its bounds,
    where they are finite; else 0.
    """
    if isinstance(space, Discrete):
        return space.n
    sides = grid(space)
    return math.prod(sides) if sides else 0


def grid(space: Space) -> tuple[int, ...]:
    """Whole numbers within the bounds of a Box, along each dimension; empty where a bound is not a whole number."""
    assert not isinstance(space, Discrete)
    low, high = np.ravel(space.low), np.ravel(space.high)
    whole = np.isfinite(low) & np.isfinite(high) & (low == np.round(low)) & (high == np.round(high))
    return tuple(int(n) for n in high - low + 1) if whole.all() else ()
