"""Settings of meta-DQN: what each means, what it may be, and its default, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from innerloop.arrays import Discrete
from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.learners.setting_checks import LARGEST_BATCH, WIDEST_LAYER, read, require, require_widths, to_json

MOST_EPISODES = 10_000
LONGEST_STRETCH = 10_000
"""Steps of ``burn_in`` and ``window`` together: an optimiser step runs through all of them."""
LARGEST_REPLAY = 100_000_000
"""Steps that a replay may hold: it is part of every checkpoint."""
OUTER = frozenset(
    {"updates", "tasks_per_update", "warmup_updates", "gradient_steps", "batch", "window", "burn_in", "replay"}
    | {"discount", "lookahead", "value_unit", "target_rate", "learning_rate", "final_learning_rate", "gradient_clip"}
    | {"limit_ends", "exploration", "exploration_spread"}
)
"""Settings that only training reads: another training of the same learner may change these and no others."""


@dataclass(frozen=True)
class MetaDqnSettings:
    """The network of meta-DQN and how it is trained. ``LearnerSpec.settings`` holds these as JSON values."""

    # The network.
    encoder_sizes: tuple[int, ...] = (64,)
    """Widths of the tanh layers in front of the memory."""
    memory_size: int = 64
    """Width of the memory."""
    hidden_sizes: tuple[int, ...] = (64,)
    """Widths of the hidden tanh layers behind the memory, of the advantages and of the value."""
    temperature: float = 0.01
    """The policy is a softmax of action values divided by this, in ``value_unit``: actions that are worth the same are
    taken alike, and greedy is the largest value. Near 0 sampling is greedy too."""

    # The trial.
    episodes_per_trial: int = 1
    """Episodes of a task in a row, memory kept."""

    # Training: Q-learning on stretches of trials.
    discount: float = 0.99
    """Per step, across the episodes of a trial."""
    limit_ends: bool = True
    """Whether a trial whose last episode ran to its horizon is worth nothing from there on, as one that terminated.
    False: it is valued as if it went on, for control whose time limit is long and nobody sees coming."""
    lookahead: int = 5
    """Rewards that a target sums before it takes the target network's word; fewer where the trial ends or an action was
    not greedy."""
    value_unit: float = 1.0
    """Returns are measured in this many reward units, so that values lie around one."""
    updates: int = 200
    """Updates of a whole training: each plays fresh tasks, then takes ``gradient_steps``."""
    tasks_per_update: int = 32
    """Fresh tasks an update, one trial each."""
    warmup_updates: int = 2
    """Updates that only play, to fill the replay."""
    gradient_steps: int = 50
    """Optimiser steps an update."""
    batch: int = 64
    """Stretches that an optimiser step learns from."""
    window: int = 80
    """Steps that a stretch teaches. Shorter trials are one stretch."""
    burn_in: int = 20
    """Steps before them that only bring the memory up to date; where a trial begins they teach too."""
    replay: int = 4_000
    """Stretches that are remembered, the newest."""
    learning_rate: float = 1e-3
    """Adam's at the first update; falls linearly."""
    final_learning_rate: float = 1e-4
    """Adam's at the last update."""
    target_rate: float = 5e-3
    """Share of the network that the target network takes over in an optimiser step."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient; 0: unbounded."""
    exploration: float = 0.4
    """How often the first trial of an update takes a random action."""
    exploration_spread: float = 7.0
    """The last one does so ``exploration ^ (1 + exploration_spread)`` of the time, the others in between."""

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
        require_widths(self, "encoder_sizes", "hidden_sizes")
        for name, most in (("memory_size", WIDEST_LAYER), ("episodes_per_trial", MOST_EPISODES)):
            require(1 <= getattr(self, name) <= most, name, f"give an integer from 1 to {most}")
        for name in ("lookahead", "updates", "tasks_per_update", "gradient_steps", "batch", "window", "replay"):
            require(getattr(self, name) >= 1, name, "give an integer of at least 1")
        for name in ("warmup_updates", "burn_in"):
            require(getattr(self, name) >= 0, name, "give an integer of at least 0")
        stretch = self.burn_in + self.window
        require(stretch <= LONGEST_STRETCH, "window", f"with burn_in it may come to {LONGEST_STRETCH}")
        require(self.batch * stretch <= LARGEST_BATCH, "batch", f"times a stretch it may come to {LARGEST_BATCH}")
        require(
            self.updates > self.warmup_updates, "updates", f"give more than the {self.warmup_updates} that only play"
        )
        require(self.lookahead <= stretch, "lookahead", "give at most burn_in + window")
        require(self.replay * stretch <= LARGEST_REPLAY, "replay", f"times a stretch it may come to {LARGEST_REPLAY}")
        for name in ("temperature", "value_unit", "learning_rate", "final_learning_rate"):
            require(getattr(self, name) > 0, name, "give a positive number")
        for name in ("gradient_clip", "exploration_spread"):
            require(getattr(self, name) >= 0, name, "give a number of at least 0")
        for name in ("discount", "target_rate", "exploration"):
            require(0 <= getattr(self, name) <= 1, name, "give a number from 0 to 1")

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> MetaDqnSettings:
        """Read settings; those left out take their defaults.

        Raises:
            InvalidField: unknown, of a wrong type, or out of its range; names ``settings.<field>``.
        """
        return read(MetaDqnSettings, "meta-dqn", values)

    def to_json(self) -> dict[str, Any]:
        """Every setting as JSON values."""
        return to_json(self)


def check_fits(spec: LearnerSpec) -> None:
    """Check what depends on the family.

    Raises:
        InvalidField: a supervised family, or one whose actions are not Discrete: ``method``.
    """
    if spec.supervision is not None:
        raise InvalidField(
            "method", f"meta-dqn learns from rewards, and {spec.family} gives the right answers; use maml"
        )
    if not isinstance(spec.action_space, Discrete):
        raise InvalidField(
            "method", f"meta-dqn values every action, and those of {spec.family} cannot be counted; use rl2 or pearl"
        )
