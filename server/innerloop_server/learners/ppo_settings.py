"""Settings of PPO: what each means, what it may be, and its default, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from innerloop.policy import LOG_STD_FLOOR
from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.learners import setting_checks
from innerloop_server.learners.maml_settings import MOST_REPEATS
from innerloop_server.learners.setting_checks import require, require_start, require_widths, to_json

MOST_PARTS = 10_000
OUTER = frozenset(
    {"lowest_log_std", "discount", "trace", "clip", "entropy", "value_weight", "value_unit", "updates"}
    | {"tasks_per_update", "epochs", "minibatches", "learning_rate", "gradient_clip"}
)
"""Settings that only training reads: another training of the same learner may change these and no others."""


@dataclass(frozen=True)
class PpoSettings:
    """How PPO is trained. ``LearnerSpec.settings`` holds these as JSON values."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden tanh layers, of the policy and of the value network."""
    last_layer_scale: float = 0.01
    """Shrinks the policy's last layer at the start."""
    initial_log_std: float = -0.5
    """Log standard deviation of raw actions at the start (Box actions)."""
    lowest_log_std: float = LOG_STD_FLOOR
    """Where training stops it from falling further: mastered tasks take the noise away that new ones need."""
    discount: float = 0.99
    trace: float = 0.95
    """GAE lambda."""
    clip: float = 0.2
    entropy: float = 0.0
    """Weight of the entropy bonus."""
    value_weight: float = 0.5
    value_unit: float = 1.0
    """Discounted returns are measured in this many reward units, so that the value network works around one."""
    updates: int = 60
    tasks_per_update: int = 256
    """Fresh tasks an update, one episode each."""
    epochs: int = 4
    """Passes over an update's steps."""
    minibatches: int = 8
    """Parts of a pass."""
    learning_rate: float = 2e-3
    """Adam's; falls linearly to zero over the updates."""
    gradient_clip: float = 0.5
    """Largest norm of the gradient; 0: unbounded."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InvalidField: a value out of its range; names ``settings.<field>``.
        """
        require_widths(self, "hidden_sizes")
        require_start(self)
        require(self.minibatches <= MOST_PARTS, "minibatches", f"give an integer of at most {MOST_PARTS}")
        require(self.epochs <= MOST_REPEATS, "epochs", f"give an integer of at most {MOST_REPEATS}")
        for name in ("updates", "tasks_per_update", "epochs", "minibatches"):
            require(getattr(self, name) >= 1, name, "give an integer of at least 1")
        for name in ("clip", "value_unit", "learning_rate"):
            require(getattr(self, name) > 0, name, "give a positive number")
        for name in ("entropy", "value_weight", "gradient_clip"):
            require(getattr(self, name) >= 0, name, "give a number of at least 0")
        for name in ("discount", "trace"):
            require(0 <= getattr(self, name) <= 1, name, "give a number from 0 to 1")

    @property
    def inner_steps(self) -> int:
        """As ``Ppo.inner_steps``."""
        return 1

    @property
    def episodes_per_step(self) -> int:
        """As ``Ppo.episodes_per_step``."""
        return 1

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> PpoSettings:
        """Read settings; those left out take their defaults.

        Raises:
            InvalidField: unknown, of a wrong type, or out of its range; names ``settings.<field>``.
        """
        return setting_checks.read(PpoSettings, "ppo", values)

    def to_json(self) -> dict[str, Any]:
        """Every setting as JSON values."""
        return to_json(self)


def check_fits(spec: LearnerSpec) -> None:
    """Check what depends on the family.

    Raises:
        InvalidField: a supervised family: ``method``.
    """
    if spec.supervision is not None:
        raise InvalidField("method", f"{spec.method} learns from rewards, and {spec.family} has labelled examples")
