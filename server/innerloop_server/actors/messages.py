"""What a pool and its actors say to each other: frozen values over a pipe between our own processes.

Pool to actor: Run, Drop, Stop. Actor to pool: Ready once; Done or Failed for each Run, unless a Drop came first;
Dropped for each Drop.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from innerloop.arrays import Arrays
from innerloop_server.actors.orders import EpisodesOrder


@dataclass(frozen=True)
class Run:
    """Run rows ``start`` to ``stop`` (exclusive) of an order."""

    ticket: int
    """Never used twice by a pool, so that an answer to a dropped run can be told from any later one."""
    order: EpisodesOrder
    start: int
    stop: int
    deaths: int = 0
    """How often an actor died with these rows on it."""

    @property
    def rows(self) -> int:
        """Environments it takes."""
        return self.stop - self.start


@dataclass(frozen=True)
class Drop:
    """Forget a run, wherever it is."""

    ticket: int


@dataclass(frozen=True)
class Stop:
    """Close every environment and exit."""


@dataclass(frozen=True)
class Ready:
    """The actor is up and looks at its mailbox."""


@dataclass(frozen=True)
class Done:
    """The rows of a run."""

    ticket: int
    start: int
    arrays: Arrays
    """Fields of ``Experience`` without the task dimension, [rows, ...]; time may be shorter than the horizon."""
    memory: Arrays = field(default_factory=dict)
    """[rows, ...]: as in ``orders.EpisodesResult``."""


@dataclass(frozen=True)
class Failed:
    """An environment raised, or gave numbers that are not finite. Text only: foreign exceptions stay where they are."""

    ticket: int
    message: str


@dataclass(frozen=True)
class Dropped:
    """Nothing of that run is left here."""

    ticket: int


FromPool = Run | Drop | Stop
FromActor = Ready | Done | Failed | Dropped
