"""Settings of the prototype head: what each means, what it may be, and its default, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from innerloop_server.domain import LearnerSpec, Supervision
from innerloop_server.errors import InvalidField
from innerloop_server.learners import setting_checks
from innerloop_server.learners.maml_settings import MOST_REPEATS
from innerloop_server.learners.setting_checks import MOST_LAYERS, WIDEST_LAYER, require, to_json

OUTER = frozenset({"updates", "tasks_per_update", "epochs", "learning_rate", "gradient_clip"})
"""Settings that only training reads: another training of the same learner may change these and no others."""


@dataclass(frozen=True)
class PrototypeSettings:
    """The embedding and how it is trained. ``LearnerSpec.settings`` holds these as JSON values."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the tanh layers; the last one is the embedding."""
    episodes_per_step: int = 10
    """Labelled examples a task, for support and queries alike, and a session's default."""
    updates: int = 1000
    """Meta-updates of a whole training; the learning rate falls linearly to zero over them."""
    tasks_per_update: int = 50
    """Fresh tasks a meta-update."""
    epochs: int = 1
    """Adam steps on the same examples."""
    learning_rate: float = 3e-3
    """Adam's."""
    gradient_clip: float = 0.0
    """Largest norm of the gradient; 0: unbounded."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InvalidField: a value out of its range; names ``settings.<field>``.
        """
        fits = 0 < len(self.hidden_sizes) <= MOST_LAYERS and all(0 < n <= WIDEST_LAYER for n in self.hidden_sizes)
        require(fits, "hidden_sizes", f"give 1 to {MOST_LAYERS} widths of 1 to {WIDEST_LAYER}")
        require(self.epochs <= MOST_REPEATS, "epochs", f"give an integer of at most {MOST_REPEATS}")
        for name in ("episodes_per_step", "updates", "tasks_per_update", "epochs"):
            require(getattr(self, name) >= 1, name, "give an integer of at least 1")
        require(self.learning_rate > 0, "learning_rate", "give a positive number")
        require(self.gradient_clip >= 0, "gradient_clip", "give a number of at least 0")

    @property
    def inner_steps(self) -> int:
        """One: all examples at once are as good as one after the other."""
        return 1

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> PrototypeSettings:
        """Read settings; those left out take their defaults.

        Raises:
            InvalidField: unknown, of a wrong type, or out of its range; names ``settings.<field>``.
        """
        return setting_checks.read(PrototypeSettings, "prototype", values)

    def to_json(self) -> dict[str, Any]:
        """Every setting as JSON values."""
        return to_json(self)


def check_fits(spec: LearnerSpec) -> None:
    """Check what depends on the family.

    Raises:
        InvalidField: a family without labels: ``method``.
    """
    if spec.supervision is not Supervision.CLASSIFICATION:
        raise InvalidField("method", f"prototype learns from labelled examples, and {spec.family} has none; use maml")
