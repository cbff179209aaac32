"""Settings of RL2: what each means, what it may be, and its default, in one place."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.learners.setting_checks import read, require

MOST_LAYERS = 4
WIDEST_LAYER = 1_024
"""Of every layer. Sessions hold such memories by the thousand."""
MOST_EPISODES = 10_000
MOST_EPOCHS = 100
OUTER = frozenset(
    {"updates", "tasks_per_update", "epochs", "minibatches", "learning_rate", "clip", "trace", "discount", "entropy"}
    | {"value_weight", "value_unit", "gradient_clip"}
)
"""Settings that only training reads: another training of the same learner may change these and no others."""


@dataclass(frozen=True)
class Rl2Settings:
    """The network of RL2 and how it is trained. ``LearnerSpec.settings`` holds these as JSON values."""

    # The network.
    encoder_sizes: tuple[int, ...] = (64,)
    """Widths of the tanh layers in front of the memory."""
    memory_size: int = 64
    """Width of the memory."""
    hidden_sizes: tuple[int, ...] = (64,)
    """Widths of the hidden tanh layers behind the memory, of the policy and of the value."""
    last_layer_scale: float = 0.01
    """Shrinks the policy's last layer at the start, so that it starts out indifferent."""
    initial_log_std: float = -0.5
    """Log standard deviation of raw actions at the start (Box actions)."""

    # The trial.
    episodes_per_trial: int = 1
    """Episodes of a task in a row, memory kept."""

    # Training: PPO on whole trials.
    discount: float = 0.99
    """Per step, across the episodes of a trial."""
    trace: float = 0.9
    """GAE lambda."""
    clip: float = 0.2
    """How far the ratio may leave 1 and still be rewarded."""
    entropy: float = 0.05
    """Weight of the entropy bonus in the first update; falls linearly to zero over the updates."""
    value_weight: float = 0.5
    """Weight of the squared error of the value."""
    value_unit: float = 1.0
    """Returns are measured in this many reward units, so that values lie around one."""
    updates: int = 120
    """Updates of a whole training; learning rate and entropy bonus fall linearly to zero over them."""
    tasks_per_update: int = 512
    """Fresh tasks an update, one trial each."""
    epochs: int = 4
    """Passes over an update's trials."""
    minibatches: int = 4
    """Parts of a pass, of whole trials."""
    learning_rate: float = 3e-3
    """Adam's in the first update."""
    gradient_clip: float = 0.5
    """Largest norm of the gradient; 0: unbounded."""

    @property
    def inner_steps(self) -> int:
        """Episodes that a trial remembers in the end: all but its last."""
        return self.episodes_per_trial - 1

    @property
    def episodes_per_step(self) -> int:
        """One: what a row remembers is its own."""
        return 1

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InvalidField: a value out of its range; names ``settings.<field>``.
        """
        for name in ("encoder_sizes", "hidden_sizes"):
            widths = getattr(self, name)
            fits = len(widths) <= MOST_LAYERS and all(0 < n <= WIDEST_LAYER for n in widths)
            require(fits, name, f"give at most {MOST_LAYERS} widths of 1 to {WIDEST_LAYER}")
        largest = {"memory_size": WIDEST_LAYER, "episodes_per_trial": MOST_EPISODES, "epochs": MOST_EPOCHS}
        for name, most in largest.items():
            require(1 <= getattr(self, name) <= most, name, f"give an integer from 1 to {most}")
        for name in ("updates", "tasks_per_update", "minibatches"):
            require(getattr(self, name) >= 1, name, "give an integer of at least 1")
        require(self.minibatches <= self.tasks_per_update, "minibatches", "give at most tasks_per_update")
        for name in ("last_layer_scale", "clip", "value_unit", "learning_rate"):
            require(getattr(self, name) > 0, name, "give a positive number")
        for name in ("entropy", "value_weight", "gradient_clip"):
            require(getattr(self, name) >= 0, name, "give a number of at least 0")
        for name in ("discount", "trace"):
            require(0 <= getattr(self, name) <= 1, name, "give a number from 0 to 1")

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Rl2Settings:
        """Read settings; those left out take their defaults.

        Raises:
            InvalidField: unknown, of a wrong type, or out of its range; names ``settings.<field>``.
        """
        return read(Rl2Settings, "rl2", values)

    def to_json(self) -> dict[str, Any]:
        """Every setting as JSON values."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def check_fits(spec: LearnerSpec) -> None:
    """Check what depends on the family.

    Raises:
        InvalidField: a supervised family: ``method``.
    """
    if spec.supervision is not None:
        raise InvalidField("method", f"rl2 learns from rewards, and {spec.family} gives the right answers; use maml")
