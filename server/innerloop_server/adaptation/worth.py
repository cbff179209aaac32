"""Learned time (budget ``auto``): how many steps are worth their episodes, by what steps brought on validation tasks.

The evidence is a revision's validation curve, the mean return of fresh episodes after k = 0 .. K steps, which promotion
leaves in the manifest. So how long a session adapts is known when it opens, and is the same after a crash. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from innerloop.arrays import Array

PRICE = 0.01
"""What a step must bring, as a share of the most that adaptation brings in all: a step that brings less is not seen in
a score. Relative, because returns have no common unit."""


@dataclass(frozen=True)
class Gain:
    """What going on from some k brings, at best: the mean gain a step over the next ``steps`` steps."""

    steps: int
    """At which the mean gain is the largest; looking one step ahead would stop at a plateau before a rise."""
    gain: float
    """Of return, a step."""
    standard_error: float | None
    """Of ``gain``, over tasks; ``None`` where it is not known."""


@dataclass(frozen=True)
class Curve:
    """A revision's validation curve."""

    means: tuple[float, ...]
    """[K + 1] mean return after k steps, K at least 1."""
    gains: tuple[Gain, ...]
    """[K] of going on from k = 0 .. K - 1."""
    episodes_per_step: int
    """Of the sessions that it was measured on."""

    @staticmethod
    def of(manifest: Mapping[str, Any]) -> Curve | None:
        """The curve that a revision's manifest holds; ``None`` where it holds none, only k = 0, or returns
        that were not finite.

        Manifests that were written without ``gains`` have the scores' own standard errors. These hold how tasks differ
        from one another, which the same tasks' difference does not: too large an error, so such a curve errs on the
        side of stopping.
        """
        validation = manifest.get("validation") or {}
        scores = sorted(validation.get("scores") or (), key=lambda score: int(score["k"]))
        stored = validation.get("gains")
        numbers = [score["mean"] for score in scores] + [one["gain"] for one in stored or ()]
        if len(scores) < 2 or None in numbers:
            return None
        means = tuple(float(score["mean"]) for score in scores)
        if stored:
            gains = tuple(Gain(int(one["steps"]), float(one["gain"]), one["standard_error"]) for one in stored)
        else:
            errors = [score["standard_error"] for score in scores]
            gains = tuple(_unpaired(means, errors, k) for k in range(len(means) - 1))
        return Curve(means, gains, int(validation["protocol"]["episodes_per_step"]))


@dataclass(frozen=True)
class Worth:
    """What a session with budget ``auto`` goes by; kept with its record."""

    steps: int
    """How many are worth their episodes."""
    gains: tuple[float, ...]
    """[K] what step k + 1 brought on validation tasks, in mean return."""

    def expected_gain(self, step: int) -> float | None:
        """Of one more step after ``step``; ``None`` past the curve's end."""
        return self.gains[step] if step < len(self.gains) else None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"steps": self.steps, "gains": list(self.gains)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Worth:
        """Undo :meth:`to_json`."""
        return Worth(int(value["steps"]), tuple(value["gains"]))


def worth(curve: Curve, episodes_per_step: int | None) -> Worth:
    """How many steps a session should take.

    The first is always taken: a session that does nothing answers nobody. After k steps it goes on where the best mean
    gain a step is more than a step's price and more than its standard error (the one-standard-error rule of Breiman et
    al. 1984, section 3.4.3: what noise alone would show is no reason to go on), and never past the curve's end.

    Args:
        curve: of the session's revision.
        episodes_per_step: of the session, where steps use up episodes: one that takes twice as many as the curve's has
            to bring twice as much. ``None``: steps cost what the curve's did.
    """
    share = 1.0 if episodes_per_step is None else episodes_per_step / curve.episodes_per_step
    price = PRICE * (max(curve.means) - curve.means[0]) * share
    steps = 1
    while steps < len(curve.gains) and curve.gains[steps].gain > max(price, curve.gains[steps].standard_error or 0.0):
        steps += 1
    return Worth(steps, tuple(after - before for before, after in zip(curve.means, curve.means[1:], strict=False)))


def gains(returns: Array) -> tuple[Gain, ...]:
    """What going on from k = 0 .. K - 1 brings, each task compared with itself.

    Args:
        returns: [M, K + 1] mean return of each task's fresh episodes after k steps.
    """
    found = []
    for k in range(returns.shape[1] - 1):
        steps = _best(returns.mean(0), k)
        each = (returns[:, k + steps] - returns[:, k]) / steps
        error = float(each.std(ddof=1) / math.sqrt(len(each))) if len(each) > 1 else None
        found.append(Gain(steps, float(each.mean()), error))
    return tuple(found)


def _unpaired(means: Sequence[float], errors: Sequence[float | None], k: int) -> Gain:
    steps = _best(means, k)
    before, after = errors[k], errors[k + steps]
    error = None if before is None or after is None else math.hypot(before, after) / steps
    return Gain(steps, (means[k + steps] - means[k]) / steps, error)


def _best(means: Sequence[float] | Array, k: int) -> int:
    """The fewest steps from ``k`` over which the mean gain a step is the largest."""
    ahead = np.asarray(means, np.float64)[k + 1 :]
    return int(np.argmax((ahead - means[k]) / np.arange(1, len(ahead) + 1))) + 1
