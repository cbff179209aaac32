"""The guard: what keeps more adaptation steps from hurting.

When the episodes that a session samples anyway show that a step made the task's return fall, the session goes back to
its best state and halves its inner rate. Pure: a :class:`Guard` is a value, :func:`judge` gives the next one.

A method that remembers makes no updates: there the guard holds the memory of as many episodes as training let it
remember (``inner_loop.most_remembered``).

Public MAML code degrades past the trained number of steps (pytorch-maml-rl #42, #46); halving the rate on a fall kept
returns rising. With few episodes a step a fall is mostly noise, so below :data:`MINIMUM_EPISODES` the guard stays off.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace

MINIMUM_EPISODES = 20
"""Episodes a step from which the guard is on by default."""


class Verdict(enum.Enum):
    """What the episodes sampled with a state say about it."""

    KEEP = "keep"
    """It is the best so far: remember it and go on from it."""
    BACK = "back"
    """It is worse than the best: go back to that one."""


@dataclass(frozen=True)
class Guard:
    """What the guard remembers."""

    enabled: bool
    best_return: float = -math.inf
    """Mean sampled return of the best state."""
    rate_scale: float = 1.0
    """What the inner rates are multiplied by."""
    at_best: bool = True
    """The present state is the best one, so that its next sample refreshes ``best_return`` and judges nothing."""

    def moved(self) -> Guard:
        """After an update: the present state is a new one, not judged yet."""
        return replace(self, at_best=False)


def judge(guard: Guard, mean_return: float) -> tuple[Guard, Verdict]:
    """Take in the mean return of fresh episodes of the present state.

    Args:
        guard: what is remembered.
        mean_return: mean undiscounted return of episodes sampled with the present state.

    Returns:
        (what to remember now, whether to keep the present state or go back to the best one).
    """
    if not guard.enabled or guard.at_best or mean_return >= guard.best_return:
        return replace(guard, best_return=mean_return, at_best=True), Verdict.KEEP
    return replace(guard, rate_scale=guard.rate_scale * 0.5, at_best=True), Verdict.BACK
