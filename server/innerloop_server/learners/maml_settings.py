"""Settings of MAML: what each means, what it may be, and its default, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from innerloop_server.domain import LearnerSpec
from innerloop_server.learners import setting_checks
from innerloop_server.learners.setting_checks import require, require_start, require_widths, to_json

ORDERS = ("second", "first")
RATES = ("fixed", "learned")
ADAPTS = ("all", "head")
OUTERS = ("ppo", "promp", "trpo")
FIRST_ORDER = "first_order"
"""What ``order`` was called when it was true or false. Stored learners have it; where both stand, ``order`` counts."""
MOST_REPEATS = 100
"""Inner steps, and optimiser steps an update."""
OUTER = frozenset(
    {"order", "outer", "updates", "tasks_per_update", "epochs", "learning_rate", "rates_learning_rate"}
    | {"clip", "outer_lambda", "gradient_clip", "kl_penalty", "kl_limit"}
)
"""Settings that only training reads: another training of the same learner may change these and no others."""


@dataclass(frozen=True)
class MamlSettings:
    """How MAML adapts and how it is trained. ``LearnerSpec.settings`` holds these as JSON values.

    On a supervised family, ``initial_log_std``, ``discount``, ``inner_lambda``, ``outer_lambda`` and ``clip`` are not
    read: its losses know no returns. For the same reason ``outer`` may then only be what it is by default.
    """

    # The policy.
    hidden_sizes: tuple[int, ...] = (32, 32)
    """Widths of the hidden tanh layers."""
    last_layer_scale: float = 1.0
    """Shrinks the last layer at the start; 0.1 starts nearly indifferent."""
    initial_log_std: float = -1.0
    """Log standard deviation of raw actions at the start (Box actions)."""

    # The inner loop.
    inner_steps: int = 3
    """K: inner steps that training unrolls. Sessions may go on; past K the last step's rates repeat."""
    episodes_per_step: int = 20
    """Fresh episodes a task and inner step, in training and as a session's default."""
    rates: str = "learned"
    """``fixed``: ``initial_rate`` for ever. ``learned``: one rate per parameter and per inner step, in log space."""
    initial_rate: float = 0.1
    """Inner rate that every parameter and step starts with."""
    adapt: str = "all"
    """What inner steps move. ``all``: every weight. ``head``: the last layer and, with Box actions, the log standard
    deviation, which is as much a part of the answer; the layers below learn in the outer loop alone (ANIL)."""
    discount: float = 0.99
    """Per step."""
    inner_lambda: float = 1.0
    """GAE lambda of the inner surrogate."""

    # The outer loop.
    order: str = "second"
    """``second``: the meta-gradient goes through the inner gradients. ``first``: they are constants to it (FOMAML)."""
    outer: str = "ppo"
    """``ppo``: Adam on the clipped surrogate. ``promp``: the same with ``kl_penalty``. ``trpo``: one natural-gradient
    step an update, as far as ``kl_limit`` allows."""
    updates: int = 100
    """Meta-updates of a whole training; Adam's learning rates fall linearly to zero over them."""
    tasks_per_update: int = 40
    """Fresh tasks a meta-update."""
    epochs: int = 2
    """Adam steps on the same episodes."""
    learning_rate: float = 3e-3
    """Adam's, for the initial weights."""
    rates_learning_rate: float = 3e-2
    """Adam's, for the log inner rates."""
    clip: float = 0.2
    """PPO clip of the outer surrogate (``ppo``, ``promp``)."""
    kl_penalty: float = 5e-4
    """Weight of the KL of the policies that sampled before each inner step from what they have become (``promp``)."""
    kl_limit: float = 0.01
    """Largest mean KL of the adapted policies from what an update makes of them (``trpo``, which reads neither
    ``epochs`` nor a learning rate)."""
    outer_lambda: float = 1.0
    """GAE lambda of the outer surrogate."""
    gradient_clip: float = 0.0
    """Largest norm of the whole meta-gradient; 0: unbounded."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InvalidField: a value out of its range; names ``settings.<field>``.
        """
        require_widths(self, "hidden_sizes")
        require_start(self)
        for name in ("inner_steps", "epochs"):
            require(getattr(self, name) <= MOST_REPEATS, name, f"give an integer of at most {MOST_REPEATS}")
        for name in ("inner_steps", "episodes_per_step", "updates", "tasks_per_update", "epochs"):
            require(getattr(self, name) >= 1, name, "give an integer of at least 1")
        for name in ("initial_rate", "learning_rate", "clip", "kl_limit"):
            require(getattr(self, name) > 0, name, "give a positive number")
        for name in ("rates_learning_rate", "gradient_clip", "kl_penalty"):
            require(getattr(self, name) >= 0, name, "give a number of at least 0")
        for name in ("discount", "inner_lambda", "outer_lambda"):
            require(0 <= getattr(self, name) <= 1, name, "give a number from 0 to 1")
        for name, choices in (("order", ORDERS), ("rates", RATES), ("adapt", ADAPTS), ("outer", OUTERS)):
            require(getattr(self, name) in choices, name, f"use one of {', '.join(choices)}")

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> MamlSettings:
        """Read settings; those left out take their defaults.

        Raises:
            InvalidField: unknown, of a wrong type, or out of its range; names ``settings.<field>``.
        """
        values = dict(values)
        if FIRST_ORDER in values:
            first = setting_checks.convert(FIRST_ORDER, values.pop(FIRST_ORDER), False)
            values.setdefault("order", "first" if first else "second")
        return setting_checks.read(MamlSettings, "maml", values)

    def to_json(self) -> dict[str, Any]:
        """Every setting as JSON values."""
        return to_json(self)


def check_fits(spec: LearnerSpec) -> None:
    """Check what depends on the family.

    Raises:
        InvalidField: an ``outer`` that goes by returns, on a supervised family; or a setting that cannot be at all.
    """
    settings = MamlSettings.from_json(spec.settings)
    require(spec.supervision is None or settings.outer == "ppo", "outer", "a supervised family has no returns; use ppo")
