"""Settings of learning from scratch: what each means, what it may be, and its default, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from innerloop_server.learners import setting_checks
from innerloop_server.learners.maml_settings import MOST_REPEATS
from innerloop_server.learners.setting_checks import require, require_start, require_widths, to_json

OUTER = frozenset({"updates", "tasks_per_update"})
"""Settings that only training reads: another training of the same learner may change these and no others."""


@dataclass(frozen=True)
class ScratchSettings:
    """How a task is learned from nothing. ``LearnerSpec.settings`` holds these as JSON values.

    On a supervised family, ``initial_log_std``, ``discount``, ``trace`` and ``clip`` are not read.
    """

    # The policy.
    hidden_sizes: tuple[int, ...] = (32, 32)
    """Widths of the hidden tanh layers."""
    last_layer_scale: float = 0.1
    """Shrinks the last layer at the start, so that it starts out nearly indifferent."""
    initial_log_std: float = -1.0
    """Log standard deviation of raw actions at the start (Box actions)."""

    # The inner loop: all there is.
    inner_steps: int = 10
    """K: adaptation steps that a training shows, and that validation takes. Sessions may go on."""
    episodes_per_step: int = 20
    """Fresh episodes a step, in training and as a session's default."""
    epochs: int = 10
    """Adam steps on each step's episodes."""
    learning_rate: float = 1e-2
    """Adam's."""
    clip: float = 0.2
    """PPO's clip of the surrogate."""
    discount: float = 0.99
    """Per step."""
    trace: float = 0.95
    """GAE lambda."""

    # What a training looks at: nothing is learned there.
    updates: int = 1
    """Batches of training tasks that a training tries it on."""
    tasks_per_update: int = 20
    """Fresh tasks of each."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InvalidField: a value out of its range; names ``settings.<field>``.
        """
        require_widths(self, "hidden_sizes")
        require_start(self)
        for name in ("inner_steps", "epochs"):
            require(getattr(self, name) <= MOST_REPEATS, name, f"give an integer of at most {MOST_REPEATS}")
        for name in ("inner_steps", "episodes_per_step", "epochs", "updates", "tasks_per_update"):
            require(getattr(self, name) >= 1, name, "give an integer of at least 1")
        for name in ("learning_rate", "clip"):
            require(getattr(self, name) > 0, name, "give a positive number")
        for name in ("discount", "trace"):
            require(0 <= getattr(self, name) <= 1, name, "give a number from 0 to 1")

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> ScratchSettings:
        """Read settings; those left out take their defaults.

        Raises:
            InvalidField: unknown, of a wrong type, or out of its range; names ``settings.<field>``.
        """
        return setting_checks.read(ScratchSettings, "scratch", values)

    def to_json(self) -> dict[str, Any]:
        """Every setting as JSON values."""
        return to_json(self)
