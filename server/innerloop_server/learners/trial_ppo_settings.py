"""Settings that every method has which learns by PPO on whole trials: meanings, ranges and defaults in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from innerloop_server.learners.setting_checks import require, to_json

MOST_EPISODES = 10_000
MOST_NUMBERS = 1_024
"""Of those that tell a task."""
MOST_EPOCHS = 100
OUTER = frozenset(
    {"updates", "tasks_per_update", "epochs", "minibatches", "learning_rate", "clip", "trace", "discount", "entropy"}
    | {"entropy_until", "value_weight", "value_unit", "gradient_clip", "limit_ends", "attempts"}
)
"""Those that only training reads: another training of the same learner may change these."""


@dataclass(frozen=True)
class TrialPpoSettings:
    """What PPO on trials reads of a method's settings."""

    # What the value knows.
    told: bool = False
    """The value is told the task in training, as nothing else is: it judges actions by what they bring in this task,
    not in all that look like it so far. Not for tasks that a policy fails before it finds out which they are: told
    that all is lost, the value blames no action for it."""
    task_size: int = 0
    """Numbers that tell a task. The family says how many."""

    # The trial.
    episodes_per_trial: int = 1
    """Episodes of a task in a row, memory kept."""

    # PPO on whole trials.
    discount: float = 0.99
    """Per step, across the episodes of a trial."""
    trace: float = 0.9
    """GAE lambda."""
    limit_ends: bool = True
    """Whether a trial whose last episode ran to its horizon is worth nothing from there on, as one that terminated.
    False: it is valued as if it went on, for control whose time limit is long and nobody sees coming."""
    clip: float = 0.2
    """How far the ratio may leave 1 and still be rewarded."""
    entropy: float = 0.05
    """Weight of the entropy bonus in the first update; falls linearly to zero."""
    entropy_until: float = 1.0
    """The share of the updates after which the entropy bonus is zero."""
    value_weight: float = 0.5
    """Weight of the squared error of the value."""
    value_unit: float = 1.0
    """Returns are measured in this many reward units, so that values lie around one."""
    updates: int = 120
    """Updates of a whole training."""
    attempts: int = 1
    """Trainings from fresh weights that the updates are divided among; the one whose trials bring most on the same
    training tasks is kept. Learning rates fall linearly to zero over each."""
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
        for name, most in {"episodes_per_trial": MOST_EPISODES, "epochs": MOST_EPOCHS}.items():
            require(1 <= getattr(self, name) <= most, name, f"give an integer from 1 to {most}")
        for name in ("updates", "attempts", "tasks_per_update", "minibatches"):
            require(getattr(self, name) >= 1, name, "give an integer of at least 1")
        fits = self.attempts <= self.updates
        require(fits, "updates", f"give at least {self.attempts}, as many as attempts, or set attempts too")
        fits = self.minibatches <= self.tasks_per_update
        require(fits, "tasks_per_update", f"give at least {self.minibatches}, as many as minibatches, or set those too")
        require(0 <= self.task_size <= MOST_NUMBERS, "task_size", f"give an integer from 0 to {MOST_NUMBERS}")
        require(0 < self.entropy_until <= 1, "entropy_until", "give a positive number of at most 1")
        for name in ("clip", "value_unit", "learning_rate"):
            require(getattr(self, name) > 0, name, "give a positive number")
        for name in ("entropy", "value_weight", "gradient_clip"):
            require(getattr(self, name) >= 0, name, "give a number of at least 0")
        for name in ("discount", "trace"):
            require(0 <= getattr(self, name) <= 1, name, "give a number from 0 to 1")

    def to_json(self) -> dict[str, Any]:
        """Every setting as JSON values."""
        return to_json(self)


def check_told(settings: TrialPpoSettings, family: str) -> None:
    """Check that the value is told tasks only where numbers tell them.

    Raises:
        InvalidField: they do not; names ``settings.told``.
    """
    require(not settings.told or settings.task_size > 0, "told", f"tasks of {family} cannot be told in numbers")
