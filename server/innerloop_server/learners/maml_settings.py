"""Settings of MAML: what each means, what it may be, and its default, in one place."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from innerloop_server.errors import InvalidField

RATES = ("fixed", "learned")
MOST_LAYERS = 4
WIDEST_LAYER = 1_024
"""Of the hidden layers. Sessions hold such weights by the thousand."""
MOST_REPEATS = 100
"""Inner steps, and optimiser steps an update."""
OUTER = frozenset(
    {"updates", "tasks_per_update", "epochs", "learning_rate", "rates_learning_rate"}
    | {"clip", "outer_lambda", "gradient_clip"}
)
"""Settings that only training reads: another training of the same learner may change these and no others."""


@dataclass(frozen=True)
class MamlSettings:
    """How MAML adapts and how it is trained. ``LearnerSpec.settings`` holds these as JSON values.

    On a supervised family, ``initial_log_std``, ``discount``, ``inner_lambda``, ``outer_lambda`` and ``clip`` are not
    read: its losses know no returns.
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
    first_order: bool = False
    """Drop the second-order term of the meta-gradient (FOMAML)."""
    discount: float = 0.99
    """Per step."""
    inner_lambda: float = 1.0
    """GAE lambda of the inner surrogate."""

    # The outer loop.
    updates: int = 100
    """Meta-updates of a whole training; learning rates fall linearly to zero over them."""
    tasks_per_update: int = 40
    """Fresh tasks a meta-update."""
    epochs: int = 2
    """Adam steps on the same episodes."""
    learning_rate: float = 3e-3
    """Adam's, for the initial weights."""
    rates_learning_rate: float = 3e-2
    """Adam's, for the log inner rates."""
    clip: float = 0.2
    """PPO clip of the outer surrogate."""
    outer_lambda: float = 1.0
    """GAE lambda of the outer surrogate."""
    gradient_clip: float = 0.0
    """Largest norm of the whole meta-gradient; 0: unbounded."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InvalidField: a value out of its range; names ``settings.<field>``.
        """
        fits = len(self.hidden_sizes) <= MOST_LAYERS and all(0 < n <= WIDEST_LAYER for n in self.hidden_sizes)
        _require(fits, "hidden_sizes", f"give at most {MOST_LAYERS} widths of 1 to {WIDEST_LAYER}")
        for name in ("inner_steps", "epochs"):
            _require(getattr(self, name) <= MOST_REPEATS, name, f"give an integer of at most {MOST_REPEATS}")
        for name in ("inner_steps", "episodes_per_step", "updates", "tasks_per_update", "epochs"):
            _require(getattr(self, name) >= 1, name, "give an integer of at least 1")
        for name in ("last_layer_scale", "initial_rate", "learning_rate", "clip"):
            _require(getattr(self, name) > 0, name, "give a positive number")
        for name in ("rates_learning_rate", "gradient_clip"):
            _require(getattr(self, name) >= 0, name, "give a number of at least 0")
        for name in ("discount", "inner_lambda", "outer_lambda"):
            _require(0 <= getattr(self, name) <= 1, name, "give a number from 0 to 1")
        _require(self.rates in RATES, "rates", f"use one of {', '.join(RATES)}")

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> MamlSettings:
        """Read settings; those left out take their defaults.

        Raises:
            InvalidField: unknown, of a wrong type, or out of its range; names ``settings.<field>``.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(MamlSettings)}
        read: dict[str, Any] = {}
        for name, value in values.items():
            _require(name in defaults, name, f"unknown; maml has {', '.join(defaults)}")
            read[name] = _convert(name, value, defaults[name])
        return MamlSettings(**read)

    def to_json(self) -> dict[str, Any]:
        """Every setting as JSON values."""
        return {**dataclasses.asdict(self), "hidden_sizes": list(self.hidden_sizes)}


def _convert(name: str, value: Any, default: Any) -> Any:
    """``value`` in the type of ``default``; JSON writes 1.0 as 1, so an integer is a float too."""
    if isinstance(default, tuple):
        fits = isinstance(value, (list, tuple)) and all(type(n) is int for n in value)
        _require(fits, name, "give a list of integers")
        return tuple(value)
    if isinstance(default, float):
        _require(type(value) in (int, float) and math.isfinite(value), name, "give a finite number")
        return float(value)
    kinds = {bool: "true or false", int: "an integer", str: "a string"}
    _require(type(value) is type(default), name, f"give {kinds[type(default)]}")
    return value


def _require(holds: bool, name: str, advice: str) -> None:
    if not holds:
        raise InvalidField(f"settings.{name}", advice)
