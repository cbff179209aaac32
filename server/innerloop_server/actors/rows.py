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


TIMED = frozenset({"observations", "actions", "rewards", "log_probs", "feedback"})
"""Fields of ``Experience`` with a time dimension: the one after the episodes'."""


def join(pieces: Mapping[int, Arrays], horizon: int) -> Experience[Array]:
    """Pieces of one order, keyed by their first row, as the experience of one task (B = 1).

    Args:
        pieces: first row -> field of ``Experience`` -> [rows, ...]; time may end before the horizon.
        horizon: T, to which time is filled up with zeros.
    """
    ordered = [pieces[start] for start in sorted(pieces)]
    return Experience(**{name: _join([piece[name] for piece in ordered], name, horizon)[None] for name in ordered[0]})


def concatenate(pieces: Mapping[int, Arrays]) -> dict[str, Array]:
    """Pieces [rows, ...] of one order, keyed by their first row, as one; nothing where they hold nothing."""
    ordered = [pieces[start] for start in sorted(pieces)]
    return {name: np.concatenate([piece[name] for piece in ordered]) for name in ordered[0]}


def _join(parts: list[Array], name: str, horizon: int) -> Array:
    if name not in TIMED:
        return np.concatenate(parts)
    joined = np.zeros((sum(len(part) for part in parts), horizon, *parts[0].shape[2:]), parts[0].dtype)
    row = 0
    for part in parts:
        joined[row : row + len(part), : part.shape[1]] = part
        row += len(part)
    return joined


def undiscounted(experience: Experience[Array]) -> Array:
    """[N] float64: the sum of each episode's rewards, for an experience of one task."""
    returns: Array = experience.rewards[0].astype(np.float64).sum(-1)
    return returns
