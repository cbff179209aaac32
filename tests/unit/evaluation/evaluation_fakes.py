"""An engine whose returns are known exactly: a task's return after k steps is ``10 * index + k``."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import numpy as np

from innerloop_server.adaptation.orders import (
    Attach,
    Attached,
    RevisionRef,
    RolledOut,
    RolloutOrder,
    StepOrder,
    Stepped,
)
from innerloop_server.domain import Experience
from innerloop_server.errors import Exhausted, Unavailable


class FakeEngine:
    """Answers on the next turn of the loop; counts what is resident."""

    def __init__(self, rows: int = 1_000) -> None:
        self.rows = rows
        self.resident: dict[int, Attach] = {}
        self.attached: list[Attach] = []
        self.steps: list[StepOrder] = []
        self.rollouts: list[RolloutOrder] = []
        self.most_resident = 0
        self.before_rollout: Callable[[RolloutOrder], None] = lambda order: None
        self.gate: asyncio.Event | None = None
        self.reached = asyncio.Event()
        self._numbers: dict[int, int] = {}
        self._keys = itertools.count(1)

    def new_key(self) -> int:
        return next(self._keys)

    async def attach(self, order: Attach) -> Attached:
        if len(self.resident) >= self.rows:
            raise Exhausted("the device is full")
        self.resident[order.key] = order
        self.attached.append(order)
        self.most_resident = max(self.most_resident, len(self.resident))
        self._numbers[order.key] = 0
        await asyncio.sleep(0)
        return Attached(order.key, b"")

    def detach(self, key: int) -> None:
        self.resident.pop(key, None)

    async def step(self, order: StepOrder) -> Stepped:
        self._require(order.key)
        assert order.number == self._numbers[order.key] + 1
        self._numbers[order.key] = order.number
        self.steps.append(order)
        await asyncio.sleep(0)
        return Stepped(order.key, order.number, "", 0.0, 0.0, False, 1.0, 40, 0.0, {}, b"", b"")

    async def rollout(self, order: RolloutOrder) -> RolledOut:
        self._require(order.key)
        assert order.k == self._numbers[order.key]
        self.rollouts.append(order)
        self.before_rollout(order)
        self.reached.set()
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        self._require(order.key)
        task = self.resident[order.key].task
        assert task is not None
        assert task.index is not None
        spread = np.arange(order.episodes) - (order.episodes - 1) / 2  # exact in float32, and 0 on average
        experience = empty_experience() if order.trajectories else None
        return RolledOut(order.key, (10 * task.index + order.k + spread).astype(np.float32), experience)

    def _require(self, key: int) -> None:
        if key not in self.resident:
            raise Unavailable("the session was detached")


def empty_experience() -> Experience[np.ndarray]:
    zero = np.zeros((1, 1, 1))
    return Experience(*(zero,) * 10)


def a_ref() -> RevisionRef:
    return RevisionRef("learners/l/revisions/1", "hash", "/nowhere", None)  # type: ignore[arg-type]
