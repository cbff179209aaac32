"""A reference that takes too long to compute whenever it is listed: measured once, by ``scripts/references``, and kept
in ``zoo/references/<family>.json``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from innerloop_server.domain import ReturnUnit
from innerloop_server.tasks.family import Family


@dataclass(frozen=True)
class Measured:
    """What a strategy, a planner or a policy earns."""

    value: float
    """Mean undiscounted return."""
    standard_error: float
    """Of ``value``; 0 where it is exact."""
    samples: int
    """Returns behind ``value``, each of a task of its own; 0 where it is exact."""
    source: str
    """What was measured, and how."""
    unit: ReturnUnit = ReturnUnit.EPISODE


class Measure(Protocol):
    """Measures the references of one family."""

    def __call__(self, family: Family, samples: int | None, seed: int) -> dict[str, Measured]:
        """Name -> value, in the order in which they are listed.

        Args:
            family: with its options.
            samples: tasks to measure on; ``None``: as many as are customary.
            seed: of everything drawn.

        Raises:
            InvalidField: not a family that this knows to measure.
        """
        ...
