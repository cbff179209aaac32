"""How an order's rows are shared out among actors, and put together again. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from innerloop.arrays import Array, Arrays
from innerloop_server.domain import Experience


def share(rows: int, free: Sequence[int]) -> list[int]:
    """How many of ``rows`` each actor takes so that what stays free is as even as it can be.

    Args:
        rows: to be placed, >= 0.
        free: slots free on each actor, >= 0.

    Returns:
        A count for each actor, at most its ``free``; they sum to ``min(rows, sum(free))``.
    """
    left = list(free)
    for _ in range(min(rows, sum(free))):
        most = max(range(len(left)), key=left.__getitem__)
        left[most] -= 1
    return [before - after for before, after in zip(free, left, strict=True)]


def join(pieces: Mapping[int, Arrays]) -> Experience[Array]:
    """Pieces of one order, keyed by their first row, as the experience of one task (B = 1)."""
    ordered = [pieces[start] for start in sorted(pieces)]
    return Experience(**{name: np.concatenate([p[name] for p in ordered])[None] for name in ordered[0]})


def undiscounted(experience: Experience[Array]) -> Array:
    """[N] float64: the sum of each episode's rewards, for an experience of one task."""
    returns: Array = experience.rewards[0].astype(np.float64).sum(-1)
    return returns
