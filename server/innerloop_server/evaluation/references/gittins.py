"""The discounted Gittins index of a Bernoulli arm, by calibration (Gittins, Glazebrook and Weber 2011, chapter 8).

The index of an arm is the sure reward at which a player who may retire to it for ever, and only once, does not care
whether to pull the arm once more first. Pulling the arm of the highest index is optimal when rewards are
discounted and the game never ends; for n pulls without discount it is a strong approximation at a fitting discount.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from innerloop.arrays import Array

GRID = 1_000
"""Sure rewards that are tried, evenly on [0, 1]; indices are interpolated between them."""
_HORIZONS = (1, 10, 100, 500, 5_000)
_DISCOUNT_LENGTHS = (1, 10, 50, 200, 2_000)


def fitting_discount(pulls: int) -> float:
    """The discount whose index does well over ``pulls`` undiscounted pulls: 0.9 for 10, 0.98 for 100, 0.995 for 500.

    Its length 1 / (1 - discount) is interpolated between those, in logarithms.
    """
    length = math.exp(float(np.interp(math.log(pulls), np.log(_HORIZONS), np.log(_DISCOUNT_LENGTHS))))
    return 1 - 1 / length


def look_ahead(discount: float) -> int:
    """Pulls after which what an arm still teaches is neglected: less than 2 % of the discounted future."""
    return 60 + math.ceil(4 / (1 - discount))


@functools.lru_cache(maxsize=8)
def gittins_indices(pulls: int, discount: float) -> Array:
    """Indices of all arms that were pulled fewer than ``pulls`` times, prior Beta(1, 1).

    Backward induction over the numbers of successes and failures, for all sure rewards at once. Takes
    O((pulls + look_ahead)^2 * GRID): 0.02 s for 10 pulls, 0.2 s for 100, 5 s for 500.

    Args:
        pulls: at least 1.
        discount: in [0, 1).

    Returns:
        [pulls, pulls] float64, read-only: the index after s successes and f failures, NaN where s + f >= pulls.
    """
    sure = np.linspace(0, 1, GRID)
    deepest = pulls + look_ahead(discount)
    indices = np.full((pulls, pulls), np.nan)
    # Values are means per step, (1 - discount) * return: retiring is worth `sure`. In the end nothing more is learned.
    value = np.maximum(_mean(deepest)[:, None], sure)
    for pulled in range(deepest - 1, -1, -1):
        p = _mean(pulled)[:, None]
        failed, succeeded = value[:-1], value[1:]
        pull = (1 - discount) * p + discount * (failed + p * (succeeded - failed))
        if pulled < pulls:
            successes = np.arange(pulled + 1)
            indices[successes, pulled - successes] = _crossing(pull - sure, sure)
        value = np.maximum(pull, sure)
    indices.flags.writeable = False
    return indices


def _mean(pulled: int) -> Array:
    """[pulled + 1]: posterior mean reward of an arm after 0 .. ``pulled`` successes in that many pulls."""
    return (np.arange(pulled + 1) + 1) / (pulled + 2)


def _crossing(gain: Array, sure: Array) -> Array:
    """Where ``gain`` [M, L], falling along the sure rewards [L], is zero: [M], linear between the two around it."""
    right = np.clip((gain > 0).sum(-1), 1, len(sure) - 1)
    rows = np.arange(len(gain))
    above, below = gain[rows, right - 1], gain[rows, right]
    return np.asarray(sure[right - 1] + (sure[right] - sure[right - 1]) * above / (above - below))
