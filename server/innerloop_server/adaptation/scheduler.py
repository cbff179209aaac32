"""Which needs to serve next, as one batch. Pure: needs in, a choice out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from innerloop_server.adaptation.orders import Priority


@dataclass(frozen=True)
class Ready:
    """A need that waits to be served."""

    key: int
    """Of the resident."""
    priority: Priority
    arrival: int
    """Order in which needs became ready; the oldest leads."""
    group: Hashable
    """Needs of equal group can share a batch."""
    weight: int
    """What it adds to a batch."""


def choose(ready: Sequence[Ready], limit: int, batching: bool) -> list[Ready]:
    """The next batch: the most urgent, oldest need, with all that can share its batch, up to ``limit`` in weight.

    Sessions join and leave between batches, so nobody waits for a batch to fill (continuous batching). A less urgent
    need may ride along, since its group's cost is shared; it never leads while an urgent one waits.

    Args:
        ready: all that waits.
        limit: largest sum of weights; a single need may exceed it.
        batching: False serves one at a time.
    """
    if not ready:
        return []
    ordered = sorted(ready, key=lambda need: (need.priority, need.arrival))
    leader = ordered[0]
    if not batching:
        return [leader]
    chosen: list[Ready] = []
    total = 0
    for need in ordered:
        if need.group != leader.group:
            continue
        if chosen and total + need.weight > limit:
            break
        chosen.append(need)
        total += need.weight
    return chosen
