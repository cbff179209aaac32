"""What several seeds' scores on the same tasks come to. Pure functions of arrays.

A learner that one seed trained is scored on every task, so its scores rise and fall together: a bootstrap that drew the
runs of each task apart, as where tasks are trained on one by one (Agarwal et al. 2021, https://arxiv.org/abs/2108.13264),
would find intervals far too narrow. Here whole seeds are drawn, and every task counts once for each of them.
"""

from __future__ import annotations

import numpy as np

from innerloop.arrays import Array
from innerloop_server.evaluation.scores import CONFIDENCE, RESAMPLES, interquartile_mean


def seed_interval(scores: Array, rng: np.random.Generator, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Percentile bootstrap interval of the interquartile mean over seeds, the tasks as strata.

    Args:
        scores: [S, M] of S seeds on M tasks.
        rng: draws the resamples.
        resamples: how many.

    Returns:
        (low, high) with coverage ``CONFIDENCE``; both NaN for one seed, which says nothing about others. With three
        seeds the interval all but spans the worst and the best.
    """
    seeds = len(scores)
    if seeds < 2:
        return float("nan"), float("nan")
    chosen = np.sort(rng.integers(0, seeds, (resamples, seeds)), -1)
    kinds, times = np.unique(chosen, axis=0, return_counts=True)
    means = np.repeat([interquartile_mean(np.asarray(scores)[kind].ravel()) for kind in kinds], times)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def trial_returns(returns: Array, consumed: tuple[int, ...], episodes: int) -> Array:
    """What a whole trial brings: its i-th episode is played by the policy that the i episodes before it made.

    Args:
        returns: [..., K + 1] mean return of an episode after k steps.
        consumed: [K + 1] episodes of the task behind each k, rising, from 0.
        episodes: in a trial.

    Returns:
        [...]: where no policy of that age is, the newest younger one plays.
    """
    newest = np.searchsorted(np.asarray(consumed), np.arange(episodes), side="right") - 1
    total: Array = np.asarray(returns, np.float64)[..., newest].sum(-1)
    return total
