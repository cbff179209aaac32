"""What returns say: means over tasks and how sure they are. Pure functions of arrays.

A task counts once however many episodes it was scored on, so everything here is over tasks: intervals are about
unseen tasks, which is what an evaluation asks about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from innerloop.arrays import Array
from innerloop_server.domain import Reference, Score
from innerloop_server.streams import Purpose, stream

CONFIDENCE = 0.95
"""Coverage of the bootstrap interval."""
RESAMPLES = 2_000
"""Bootstrap resamples, as in rliable's examples."""
MEMORYLESS = "memoryless"
"""Name of the reference that a policy reaches without adapting."""
ORACLE = "oracle"
"""Name of the reference that a policy reaches when it sees the task's parameters."""


def interquartile_mean(values: Array) -> float:
    """Mean of the middle half (Agarwal et al. 2021, https://arxiv.org/abs/2108.13264).

    Where M / 4 is not whole, the values at the quartiles count in part: each of the M sorted values stands for an
    M-th of the distribution and weighs what of it lies between the quartiles. Where it is whole this is rliable's
    ``trim_mean(values, 0.25)``.

    Args:
        values: [M], M >= 1.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    edges = np.arange(len(ordered) + 1) / len(ordered)
    weights = np.clip(edges[1:], 0.25, 0.75) - np.clip(edges[:-1], 0.25, 0.75)
    return float((ordered * weights).sum() / weights.sum())


def standard_error(values: Array) -> float:
    """Standard error of the mean of [M] values; NaN for one value."""
    if len(values) < 2:
        return math.nan
    return float(np.std(np.asarray(values, np.float64), ddof=1) / math.sqrt(len(values)))


def bootstrap_interval(values: Array, rng: np.random.Generator, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean, with coverage :data:`CONFIDENCE`.

    Args:
        values: [M].
        rng: draws the resamples.
        resamples: how many.

    Returns:
        (low, high); both NaN for one value, which says nothing about others.
    """
    if len(values) < 2:
        return math.nan, math.nan
    chosen = rng.integers(0, len(values), (resamples, len(values)))
    means = np.asarray(values, np.float64)[chosen].mean(-1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def score(returns: Array, k: int, episodes: int, seed: int) -> Score:
    """What M tasks' returns after k steps come to.

    Args:
        returns: [M] mean undiscounted return of each task's episodes.
        k: adaptation steps behind the policies.
        episodes: evaluation episodes a task.
        seed: of the evaluation; names the stream of the resamples.
    """
    low, high = bootstrap_interval(returns, stream(seed, Purpose.BOOTSTRAP, k))
    return Score(
        k=k,
        tasks=len(returns),
        episodes=episodes,
        mean=float(np.mean(np.asarray(returns, np.float64))),
        interquartile_mean=interquartile_mean(returns),
        low=low,
        high=high,
        standard_error=standard_error(returns),
    )


def gap_closed(mean: float, references: Sequence[Reference]) -> float | None:
    """``(mean - memoryless) / (oracle - memoryless)``: 0 is no better than not adapting, 1 as good as being told.

    Returns:
        The share; ``None`` where a reference is missing or the two leave no gap.
    """
    values = {reference.name: reference.value for reference in references}
    if MEMORYLESS not in values or ORACLE not in values or values[ORACLE] == values[MEMORYLESS]:
        return None
    return (mean - values[MEMORYLESS]) / (values[ORACLE] - values[MEMORYLESS])
