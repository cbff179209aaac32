"""The pool: what the owner of environment actors talks to. Single-threaded, and never waits."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Self

from innerloop.arrays import Arrays
from innerloop_server.actors.environments import INSTALLED
from innerloop_server.actors.messages import Done, Failed, Run
from innerloop_server.actors.orders import Answer, EpisodesFailure, EpisodesOrder, EpisodesResult
from innerloop_server.actors.rows import concatenate, join, share, undiscounted
from innerloop_server.actors.supervision import STOP_SECONDS, Place
from innerloop_server.errors import Exhausted, Unavailable

RETRIES = 3
"""Rows are run again this often after an actor died with them."""
SUSPECT_DEATHS = 2
"""Rows that this many actors died with run alone from then on, so that they take nobody else along."""
START_RETRIES = 5
"""When every actor failed to start this often in a row, nobody is kept waiting for one."""


@dataclass(frozen=True)
class PoolStatistics:
    """What a pool holds at one moment."""

    slots_total: tuple[int, ...]
    """Environments each actor may hold."""
    slots_used: tuple[int, ...]
    queued: int
    """Orders with rows that wait for a slot."""
    running: int
    """Orders with rows on an actor."""
    restarts: int
    """Actors that were replaced, since the pool began."""
    pids: tuple[int, ...]
    """Of the actors that live."""


@dataclass
class _Job:
    """An order that has not been answered."""

    order: EpisodesOrder
    waiting: deque[tuple[int, int, int]]
    """(start, stop, deaths) of rows to be handed out."""
    running: dict[int, Place] = field(default_factory=dict)
    """Ticket -> where."""
    pieces: dict[int, Arrays] = field(default_factory=dict)
    """First row -> what came back."""
    memories: dict[int, Arrays] = field(default_factory=dict)
    """First row -> what its rows remember."""
    began: float = 0.0


class ActorPool:
    """Environment actors, and the orders they work on, first come first served.

    The owner submits orders, sleeps on ``waitables`` (waking now and then: an actor that is stuck makes no sound)
    and polls for answers. Every order that was submitted and not cancelled is answered exactly once.
    """

    def __init__(self, actors: int, slots: int, family_source: str = INSTALLED, backlog: int = 1_024) -> None:
        """Start the actors. They are daemons of this process, which must not be a daemonic process itself.

        Args:
            actors: processes.
            slots: environments that each of them holds at most.
            family_source: ``module:callable`` that gives an actor its ``tasks.registry.Registry``.
            backlog: orders that may wait for slots.
        """
        self._places = [Place(family_source, slots) for _ in range(actors)]
        self._backlog = backlog
        self._jobs: dict[int, _Job] = {}
        self._tickets = itertools.count()
        self._owners: dict[int, _Job] = {}
        self._answers: list[Answer] = []
        self._closed = False

    def submit(self, order: EpisodesOrder) -> None:
        """Take an order. Its answer comes out of ``poll``.

        Raises:
            Exhausted: ``backlog`` orders wait already.
            Unavailable: the pool is closed.
            ValueError: the key is that of an order not yet answered, there is nothing to run, or its memory is not
                what its policy keeps.
        """
        if self._closed:
            raise Unavailable("the environment actors are closed")
        if order.key in self._jobs:
            raise ValueError(f"order {order.key} has not been answered yet")
        if order.episodes < 1 or order.horizon < 1:
            raise ValueError(f"order {order.key} asks for {order.episodes} episodes of {order.horizon} steps")
        if bool(order.memory) != order.header.remembers:
            raise ValueError(f"order {order.key} carries a memory or lacks one against its policy's architecture")
        if self._queued() >= self._backlog:
            raise Exhausted(
                f"{self._backlog} orders for episodes wait for the environment actors; try again later",
                reason="ACTORS_BUSY",
            )
        self._jobs[order.key] = _Job(order, deque([(0, order.episodes, 0)]))
        self._dispatch()

    def cancel(self, key: int) -> bool:
        """Forget an order; its slots are free at once. False: there is none of that key to be answered."""
        job = self._jobs.get(key)
        if job is None:
            return False
        self._forget(job)
        self._dispatch()
        return True

    def poll(self) -> list[Answer]:
        """Answers that have come since the last call. Restarts dead actors and hands out what waits."""
        if not self._closed:
            for place in self._places:
                for message in place.hear():
                    self._take(message)
                if place.dead:
                    self._rescue(place.replace())
            if all(place.failed_starts >= START_RETRIES for place in self._places):
                self._fail_all("no environment actor could be started")
            self._dispatch()
        answers, self._answers = self._answers, []
        return answers

    @property
    def waitables(self) -> list[Connection[Any, Any] | int]:
        """For ``multiprocessing.connection.wait``; they change when an actor is replaced, so ask each time."""
        return [] if self._closed else [waitable for place in self._places for waitable in place.waitables]

    def statistics(self) -> PoolStatistics:
        """What the pool holds now."""
        return PoolStatistics(
            slots_total=tuple(place.slots for place in self._places),
            slots_used=tuple(place.used for place in self._places),
            queued=self._queued(),
            running=sum(bool(job.running) for job in self._jobs.values()),
            restarts=sum(place.restarts for place in self._places),
            pids=() if self._closed else tuple(place.pid for place in self._places if place.pid is not None),
        )

    def close(self) -> None:
        """End the actors. Whoever waits is answered with a failure, which ``poll`` still gives out. Idempotent."""
        if self._closed:
            return
        self._fail_all("the environment actors are closing")
        self._closed = True
        for place in self._places:
            place.stop()
        until = time.monotonic() + STOP_SECONDS
        for place in self._places:
            place.finish(until)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------------

    def _queued(self) -> int:
        return sum(bool(job.waiting) for job in self._jobs.values())

    def _dispatch(self) -> None:
        """Hand out rows, oldest order first, until none wait or the next ones find no slot."""
        for job in self._jobs.values():
            while job.waiting:
                start, stop, deaths = job.waiting.popleft()
                for place, rows in self._room(stop - start, suspect=deaths >= SUSPECT_DEATHS):
                    if not job.pieces and not job.running:
                        job.began = time.monotonic()
                    run = Run(next(self._tickets), job.order, start, start + rows, deaths)
                    self._owners[run.ticket] = job
                    job.running[run.ticket] = place
                    place.give(run)
                    start += rows
                if start < stop:
                    job.waiting.appendleft((start, stop, deaths))
                    return

    def _room(self, rows: int, *, suspect: bool) -> Iterator[tuple[Place, int]]:
        """Where that many rows can go now, as far as they can."""
        if suspect:
            places = [place for place in self._places if not place.runs and place.free][:1]
        else:
            places = [p for p in self._places if all(run.deaths < SUSPECT_DEATHS for run in p.runs.values())]
        counts = share(rows, [place.free for place in places])
        return ((place, count) for place, count in zip(places, counts, strict=True) if count)

    def _take(self, message: Done | Failed) -> None:
        """An answer of an actor, to a run that its place still had: so the order still waits."""
        job = self._owners.pop(message.ticket)
        del job.running[message.ticket]
        if isinstance(message, Failed):
            self._fail(job, message.message, retryable=False)
            return
        job.pieces[message.start] = message.arrays
        job.memories[message.start] = message.memory
        if not job.running and not job.waiting:
            del self._jobs[job.order.key]
            experience = join(job.pieces, job.order.horizon)
            self._answers.append(
                EpisodesResult(
                    key=job.order.key,
                    experience=experience,
                    returns=undiscounted(experience),
                    seconds=time.monotonic() - job.began,
                    env_steps=int(experience.lengths.sum()),
                    memory=concatenate(job.memories),
                )
            )

    def _rescue(self, lost: list[Run]) -> None:
        """Queue the rows of a dead actor again, or give up on an order that too many died with."""
        bereft = [(run, self._owners.pop(run.ticket)) for run in lost]
        for run, job in bereft:
            del job.running[run.ticket]
        for run, job in bereft:
            if run.deaths < RETRIES:
                job.waiting.append((run.start, run.stop, run.deaths + 1))
            elif self._jobs.get(job.order.key) is job:  # not given up already, for another of its runs
                message = f"family {job.order.family}: {run.deaths + 1} environment actors died running its episodes"
                self._fail(job, message, retryable=True)

    def _fail(self, job: _Job, message: str, *, retryable: bool) -> None:
        self._forget(job)
        self._answers.append(EpisodesFailure(job.order.key, message, retryable))

    def _fail_all(self, message: str) -> None:
        for job in list(self._jobs.values()):
            self._fail(job, message, retryable=True)

    def _forget(self, job: _Job) -> None:
        del self._jobs[job.order.key]
        for ticket, place in job.running.items():
            del self._owners[ticket]
            place.drop(ticket)
