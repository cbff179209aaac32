"""What returns say: means over tasks and how sure they are. Pure functions of arrays.

A task counts once however many episodes it was scored on, so everything here is over tasks: intervals are about
unseen tasks, which is what an evaluation asks about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from innerloop.arrays import Array
from innerloop_server.adaptation.measures import MSE, VARIANCE
from innerloop_server.domain import Reference, ReturnUnit, Score
from innerloop_server.streams import Purpose, stream

CONFIDENCE = 0.95
"""Coverage of the bootstrap interval."""
TRIAL_STREAM = 1_000
"""Counter of the stream that a trial's interval is resampled from, apart from those of every k."""
RESAMPLES = 2_000
"""Bootstrap resamples, as in rliable's examples."""
R2 = "r2"
"""Name of the metric: the share of the targets' variance within tasks that predictions explain."""
TRIAL_RETURN = "trial_return"
"""Name of the metric: the undiscounted return of a task's whole trial, by a policy that remembers. It is what
references of a trial are read against."""
TRIAL_LOW, TRIAL_HIGH = "trial_low", "trial_high"
"""Names of the metrics: the ends of its 95 % bootstrap interval, over tasks."""
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


def metrics(measures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What M tasks' measures come to: the mean of each over the tasks, and R2 in the place of the variance.

    R2 is ``1 - sum SSE / sum SST`` over the tasks, SST around each task's own mean: tasks weigh by how much there is to
    explain in them. The mean of the tasks' own R2 would be that of the flattest one or two.

    Args:
        measures: of each task, as ``adaptation.measures`` gives them: the same names for all.
    """
    found = {name: float(np.mean([one[name] for one in measures])) for name in (measures[0] if measures else ())}
    variance = found.pop(VARIANCE, 0.0)
    if variance > 0:
        found[R2] = 1 - found[MSE] / variance
    return found


def score(returns: Array, k: int, episodes: int, seed: int, measures: Sequence[Mapping[str, float]] = ()) -> Score:
    """What M tasks' returns after k steps come to.

    Args:
        returns: [M] mean undiscounted return of each task's episodes.
        k: adaptation steps behind the policies.
        episodes: evaluation episodes a task.
        seed: of the evaluation; names the stream of the resamples.
        measures: what else each task's episodes said.
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
        metrics=metrics(measures),
    )


def trial_metrics(returns: Array, seed: int) -> dict[str, float]:
    """What M tasks' whole trials come to; the interval only where there is more than one task.

    Args:
        returns: [M] undiscounted return of each task's trial.
        seed: of the evaluation; names the stream of the resamples.
    """
    low, high = bootstrap_interval(returns, stream(seed, Purpose.BOOTSTRAP, TRIAL_STREAM))
    interval = {} if math.isnan(low) else {TRIAL_LOW: low, TRIAL_HIGH: high}
    return {TRIAL_RETURN: float(np.mean(np.asarray(returns, np.float64))), **interval}


def comparable(references: Sequence[Reference], unit: ReturnUnit = ReturnUnit.EPISODE) -> tuple[Reference, ...]:
    """Those that a return of ``unit`` can be read against: scores are of an episode, ``trial_return`` of a trial."""
    return tuple(reference for reference in references if reference.unit is unit)


def gap_closed(mean: float, references: Sequence[Reference], unit: ReturnUnit = ReturnUnit.EPISODE) -> float | None:
    """``(mean - memoryless) / (oracle - memoryless)``: 0 is no better than not adapting, 1 as good as being told.

    Args:
        mean: return of what ``unit`` names.
        references: of either unit; those of the other one are not looked at.
        unit: what ``mean`` is summed over.

    Returns:
        The share; ``None`` where a reference is missing, or the two leave no gap.
    """
    values = {reference.name: reference.value for reference in comparable(references, unit)}
    if MEMORYLESS not in values or ORACLE not in values or values[ORACLE] == values[MEMORYLESS]:
        return None
    return (mean - values[MEMORYLESS]) / (values[ORACLE] - values[MEMORYLESS])
