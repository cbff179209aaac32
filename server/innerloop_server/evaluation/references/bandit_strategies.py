"""What people do in a Bernoulli bandit, and what it earns.

A strategy is a function of what was seen: it scores every arm, and one of the best is pulled, ties broken at random.
Arms are uniform on [0, 1] (prior Beta(1, 1)); rewards are summed without discount.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from innerloop.arrays import Array
from innerloop_server.evaluation.references.gittins import fitting_discount, gittins_indices
from innerloop_server.streams import Purpose, stream

_BLOCK = 500_000
"""Arms that are simulated at a time; it bounds memory, and is part of what a seed means."""


class Strategy(Protocol):
    """Scores arms by what was seen of them."""

    def __call__(self, successes: Array, failures: Array, rng: np.random.Generator) -> Array:
        """One score an arm: the highest is pulled.

        Args:
            successes: [M, arms] int64, in each of M trials that are equally far.
            failures: [M, arms] int64.
            rng: for strategies that draw.

        Returns:
            [M, arms] float64.
        """
        ...


def at_random(successes: Array, failures: Array, rng: np.random.Generator) -> Array:  # noqa: ARG001
    """Any arm."""
    return np.zeros(successes.shape)


def greedy(successes: Array, failures: Array, rng: np.random.Generator) -> Array:  # noqa: ARG001
    """The arm of the highest posterior mean."""
    return np.asarray((successes + 1) / (successes + failures + 2))


def thompson(successes: Array, failures: Array, rng: np.random.Generator) -> Array:
    """The arm that is best in a world drawn from the posterior (Thompson 1933)."""
    return rng.beta(successes + 1, failures + 1)


def ucb1(successes: Array, failures: Array, rng: np.random.Generator) -> Array:  # noqa: ARG001
    """UCB1 as in the textbooks (Auer et al. 2002): each arm once, then mean + sqrt(2 ln t / m), after t pulls, of
    which m were of the arm.
    """
    m = successes + failures
    seen = np.maximum(m, 1)
    log_t = math.log(max(int(m[0].sum()), 1))
    return np.where(m == 0, np.inf, successes / seen + np.sqrt(2 * log_t / seen))


@dataclass(frozen=True)
class SmoothedUcb:
    """An index in the manner of UCB1 on posterior means: (s + 1) / (m + 2) + sqrt(2 c ln t / (m + 1)) at the t-th pull.

    The column "UCB1" of the RL2 paper's table is not textbook UCB1: its values are those of a smoothed index with a
    small tuned constant, such as this one.
    """

    c: float = 0.02

    def __call__(self, successes: Array, failures: Array, rng: np.random.Generator) -> Array:  # noqa: ARG002
        """See :class:`Strategy`."""
        m = successes + failures
        log_t = math.log(int(m[0].sum()) + 1)
        return np.asarray((successes + 1) / (m + 2) + np.sqrt(2 * self.c * log_t / (m + 1)))


class Gittins:
    """The arm of the highest discounted Gittins index."""

    def __init__(self, pulls: int, discount: float | None = None) -> None:
        """Indices for trials of ``pulls``.

        Args:
            pulls: in a trial.
            discount: of the index; left out: one that fits the number of pulls.
        """
        self.discount = fitting_discount(pulls) if discount is None else discount
        self._indices = gittins_indices(pulls, self.discount)

    def __call__(self, successes: Array, failures: Array, rng: np.random.Generator) -> Array:  # noqa: ARG002
        """See :class:`Strategy`."""
        return np.asarray(self._indices[successes, failures])


def simulate(strategy: Strategy, arms: int, pulls: int, trials: int, seed: int) -> tuple[float, float]:
    """What a strategy earns in a trial. Under one seed all strategies meet the same arms.

    Args:
        strategy: who plays.
        arms: in a trial.
        pulls: in a trial.
        trials: at least 2.
        seed: of the arms, of what they pay, and of what the strategy draws.

    Returns:
        (mean sum of rewards, its standard error).
    """
    size = max(1, _BLOCK // arms)
    totals = np.concatenate(
        [
            _play(strategy, arms, pulls, min(size, trials - start), stream(seed, Purpose.REFERENCE, start))
            for start in range(0, trials, size)
        ]
    )
    return float(totals.mean()), float(totals.std(ddof=1) / math.sqrt(trials))


def _play(strategy: Strategy, arms: int, pulls: int, trials: int, rng: np.random.Generator) -> Array:
    """[trials]: the sum of rewards of each."""
    probabilities = rng.random((trials, arms))
    paying = rng.random((pulls, trials))
    successes = np.zeros((trials, arms), np.int64)
    failures = np.zeros((trials, arms), np.int64)
    rows = np.arange(trials)
    for u in paying:
        scores = strategy(successes, failures, rng)
        best = scores == scores.max(-1, keepdims=True)
        arm = np.where(best, rng.random(best.shape, np.float32), -1).argmax(-1)
        paid = u < probabilities[rows, arm]
        successes[rows, arm] += paid
        failures[rows, arm] += ~paid
    return np.asarray(successes.sum(-1))
