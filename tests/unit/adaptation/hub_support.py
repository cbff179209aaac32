"""A hub over a real store and an engine in this process, and a client's end of its streams."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import drift
import numpy as np

from innerloop_server.adaptation.hub import Ended, SessionHub
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.messages import (
    Adapted,
    Advance,
    ClientMessage,
    Finish,
    Observe,
    Open,
    Opened,
    ServerMessage,
    StepTaken,
    Trajectories,
)
from innerloop_server.adaptation.session import LiveSession
from innerloop_server.domain import Budget
from innerloop_server.settings import Limits, Settings
from innerloop_server.store.store import Store

T = TypeVar("T")
OWNER = "ann"
LEARNER = "drift-maml"


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def open_simulated(speed: float = 0.2, fault: int = 0, **changes: Any) -> Open:
    message = Open(LEARNER, None, drift.task(speed, fault), Budget(steps=3), seed=5, guard=False)
    return replace(message, **changes)


def open_owned(**changes: Any) -> Open:
    return replace(Open(LEARNER, None, None, Budget(), seed=5, guard=False), **changes)


class Stream:
    """A client on a live session. Messages are taken in one after the other, as ``service/adaptation`` does."""

    def __init__(self, hub: SessionHub, live: LiveSession) -> None:
        self.hub = hub
        self.live = live
        self._messages = live.messages(60.0)

    @property
    def session(self) -> str:
        return self.live.record.id

    async def next(self, kind: type[T]) -> T:
        message = await anext(self._messages)
        assert isinstance(message, kind), message
        return message

    async def rest(self) -> list[ServerMessage]:
        return [message async for message in self._messages]

    async def say(self, message: ClientMessage) -> None:
        await self.live.receive(message)

    async def leave(self) -> None:
        await self.hub.leave(self.live)


@dataclass
class House:
    """One server's sessions; ``reopened`` is the same after a restart."""

    folder: Path
    limits: Limits = field(default_factory=Limits)
    clock: Clock = field(default_factory=Clock)
    engine_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store.open(self.folder, clock=self.clock)
        if not self.store.list_learners().items:
            self.store.put_learner(drift.spec())
            self.store.add_revision(LEARNER, drift.weights(drift.spec()), {})
            self.store.promote(LEARNER, 1)
        self.engine: LocalEngine = drift.engine(**self.engine_options)
        self.hub = SessionHub(
            self.engine, self.store, drift.registry(), Settings(data_dir=self.folder, limits=self.limits)
        )

    async def open(self, message: Open, owner: str = OWNER) -> Stream:
        live = await self.hub.open(owner, message)
        assert isinstance(live, LiveSession)
        return Stream(self.hub, live)

    async def resume(self, session: str, last_step: int = 0) -> Stream:
        live = await self.hub.resume(OWNER, session, last_step)
        assert isinstance(live, LiveSession)
        return Stream(self.hub, live)

    async def ended(self, session: str, last_step: int = 0) -> tuple[ServerMessage, ...]:
        ended = await self.hub.resume(OWNER, session, last_step)
        assert isinstance(ended, Ended)
        return ended.messages

    async def rows(self) -> tuple[int, int, int]:
        """(device rows, orders, actor slots) in use."""
        occupancy = await self.engine.occupancy()
        return occupancy.device_rows, occupancy.pending, occupancy.actor_slots

    def killed(self) -> House:
        """The server after kill -9 and a restart: nothing was said to anybody."""
        self.store.close()
        return House(self.folder, self.limits, self.clock, self.engine_options)


async def whole(house: House, message: Open) -> tuple[list[StepTaken], Adapted]:
    """A simulated session from beginning to end."""
    stream = await house.open(message)
    await stream.next(Opened)
    *steps, adapted = await stream.rest()
    await stream.leave()
    assert isinstance(adapted, Adapted)
    assert all(isinstance(step, StepTaken) for step in steps)
    return [step for step in steps if isinstance(step, StepTaken)], adapted


async def settled(condition: Callable[[], bool]) -> None:
    """Let the loop turn until ``condition``."""
    for _ in itertools.count():
        if condition():
            return
        await asyncio.sleep(0.001)


def observe(
    sequence: int, step: int, rows: Sequence[int] = (0,), terminated: Sequence[int] = (), **changes: Any
) -> Observe:
    """Rows at the place of their id, paid 1; ``terminated`` names rows."""
    n = len(rows)
    message = Observe(
        sequence=sequence,
        step=step,
        row_ids=tuple(rows),
        observations=np.array(rows, np.float32).reshape(n, 1),
        rewards=np.ones(n, np.float32),
        terminated=np.array([row in terminated for row in rows]),
        truncated=np.zeros(n, bool),
        final_observations=np.zeros((n, 1), np.float32),
    )
    return replace(message, **changes)


def trajectories(sequence: int, step: int, n: int = 2, *, log_probs: bool = True, reward: float = 1.0) -> Trajectories:
    rng = np.random.default_rng(n)
    return Trajectories(
        sequence=sequence,
        step=step,
        observations=rng.standard_normal((n, 3, 1)).astype(np.float32),
        raw_actions=rng.standard_normal((n, 3, 1)).astype(np.float32),
        rewards=np.full((n, 3), reward, np.float32) + rng.standard_normal((n, 3)).astype(np.float32) * 0.1,
        lengths=np.full(n, 3),
        truncated=np.zeros(n, bool),
        final_observations=np.zeros((n, 1), np.float32),
        log_probs=np.full((n, 3), -1, np.float32) if log_probs else None,
    )


__all__ = ["Advance", "Finish"]
