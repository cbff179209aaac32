"""Settings of Reptile: what each means, what it may be, and its default, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from innerloop_server.learners import setting_checks
from innerloop_server.learners.maml_settings import MOST_REPEATS
from innerloop_server.learners.setting_checks import require, require_start, require_widths, to_json

OPTIMISERS = ("adam", "sgd")
OUTER = frozenset({"updates", "tasks_per_update", "outer_step"})
"""Settings that only training reads: another training of the same learner may change these and no others."""


@dataclass(frozen=True)
class ReptileSettings:
    """How Reptile adapts and how it is trained. ``LearnerSpec.settings`` holds these as JSON values.

    On a supervised family, ``initial_log_std``, ``discount`` and ``inner_lambda`` are not read.
    """

    # The policy.
    hidden_sizes: tuple[int, ...] = (32, 32)
    """Widths of the hidden tanh layers."""
    last_layer_scale: float = 1.0
    """Shrinks the last layer at the start; 0.1 starts nearly indifferent."""
    initial_log_std: float = -1.0
    """Log standard deviation of raw actions at the start (Box actions)."""

    # The inner loop.
    inner_steps: int = 5
    """K: inner steps of a task in training. With one of them Reptile is joint training on all tasks."""
    episodes_per_step: int = 20
    """Fresh episodes a task and inner step, in training and as a session's default."""
    optimiser: str = "sgd"
    """Of the inner loop. ``adam`` is without momentum, as in the paper, and starts anew with every task."""
    rate: float = 0.1
    """Of the inner optimiser, for every parameter and step."""
    discount: float = 0.99
    """Per step."""
    inner_lambda: float = 1.0
    """GAE lambda."""

    # The outer loop.
    updates: int = 100
    """Meta-updates of a whole training."""
    tasks_per_update: int = 40
    """Fresh tasks a meta-update."""
    outer_step: float = 1.0
    """Share of the way to the mean of the adapted weights that the first update goes; it falls linearly to zero."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InvalidField: a value out of its range; names ``settings.<field>``.
        """
        require_widths(self, "hidden_sizes")
        require_start(self)
        require(self.inner_steps <= MOST_REPEATS, "inner_steps", f"give an integer of at most {MOST_REPEATS}")
        for name in ("inner_steps", "episodes_per_step", "updates", "tasks_per_update"):
            require(getattr(self, name) >= 1, name, "give an integer of at least 1")
        require(self.rate > 0, "rate", "give a positive number")
        require(0 < self.outer_step <= 1, "outer_step", "give a positive number of at most 1")
        for name in ("discount", "inner_lambda"):
            require(0 <= getattr(self, name) <= 1, name, "give a number from 0 to 1")
        require(self.optimiser in OPTIMISERS, "optimiser", f"use one of {', '.join(OPTIMISERS)}")

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> ReptileSettings:
        """Read settings; those left out take their defaults.

        Raises:
            InvalidField: unknown, of a wrong type, or out of its range; names ``settings.<field>``.
        """
        return setting_checks.read(ReptileSettings, "reptile", values)

    def to_json(self) -> dict[str, Any]:
        """Every setting as JSON values."""
        return to_json(self)
