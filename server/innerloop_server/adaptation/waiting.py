"""Who waits for which answer: the part that both engines share."""

from __future__ import annotations

import abc
import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from innerloop_server.adaptation.orders import (
    Acted,
    ActOrder,
    AdaptOrder,
    Answer,
    Attach,
    Attached,
    Detach,
    Exported,
    ExportOrder,
    Failed,
    KeepOrder,
    Order,
    Replayed,
    ReplayOrder,
    Request,
    RolledOut,
    RolloutOrder,
    StepOrder,
    Stepped,
)
from innerloop_server.errors import DataLoss, Exhausted, InnerloopError, PreconditionFailed, Unavailable

AnswerT = TypeVar("AnswerT")

_ERRORS: dict[str, type[InnerloopError]] = {
    "EXHAUSTED": Exhausted,
    "ACTORS_BUSY": Exhausted,
    "UNAVAILABLE": Unavailable,
    "DATA_LOSS": DataLoss,
    "FAILED_PRECONDITION": PreconditionFailed,
    "DIVERGED": PreconditionFailed,
    "ENVIRONMENT_FAILED": PreconditionFailed,
}


class WaitingEngine(abc.ABC):
    """The coroutine face of an engine. Subclasses say how requests get there; answers come to :meth:`_answered`.

    Orders of one key are answered in order, so a queue of futures a key is all the bookkeeping there is.
    """

    def __init__(self) -> None:
        self._keys = itertools.count(1)
        self._waiting: dict[int, deque[asyncio.Future[Answer]]] = {}

    @abc.abstractmethod
    def _send(self, request: Request) -> None:
        """Get a request to the engine; its answer comes to :meth:`_answered`."""

    def new_key(self) -> int:
        """A key that was never used."""
        return next(self._keys)

    async def attach(self, order: Attach) -> Attached:
        """Make a state resident."""
        try:
            return await self._ask(order, Attached)
        except BaseException:
            self.detach(order.key)
            raise

    def detach(self, key: int) -> None:
        """Free everything a key holds, at once. Whoever waits on it gets ``Unavailable``."""
        self._send(Detach(key))
        for future in self._waiting.pop(key, ()):
            if not future.done():
                future.set_exception(Unavailable("the session was detached"))
                future.exception()  # a waiter that is gone already must not make the loop complain

    async def step(self, order: StepOrder) -> Stepped:
        """One adaptation step of a simulated session."""
        return await self._ask(order, Stepped)

    async def adapt(self, order: AdaptOrder) -> Stepped:
        """One adaptation step on a client's own episodes."""
        return await self._ask(order, Stepped)

    async def keep(self, order: KeepOrder) -> Stepped:
        """A step of a session whose rows remember."""
        return await self._ask(order, Stepped)

    async def act(self, order: ActOrder) -> Acted:
        """Actions for a client's rows."""
        return await self._ask(order, Acted)

    async def replay(self, order: ReplayOrder) -> Replayed:
        """Whole episodes shown to a row that remembers."""
        return await self._ask(order, Replayed)

    async def rollout(self, order: RolloutOrder) -> RolledOut:
        """Fresh evaluation episodes."""
        return await self._ask(order, RolledOut)

    async def export(self, order: ExportOrder) -> Exported:
        """The portable policy of a state."""
        return await self._ask(order, Exported)

    async def _ask(self, request: Attach | Order, kind: type[AnswerT]) -> AnswerT:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(request.key, deque()).append(future)
        self._send(request)
        answer = await future
        if isinstance(answer, Failed):
            raise _ERRORS.get(answer.reason, InnerloopError)(answer.message, reason=answer.reason)
        assert isinstance(answer, kind)
        return answer

    def _answered(self, answer: Answer) -> None:
        futures = self._waiting.get(answer.key)
        if not futures:
            return  # detached meanwhile
        future = futures.popleft()
        if not future.done():
            future.set_result(answer)

    def _lost(self, error: Callable[[], InnerloopError]) -> None:
        """Everything that waits fails."""
        waiting, self._waiting = self._waiting, {}
        for futures in waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error())
                    future.exception()
