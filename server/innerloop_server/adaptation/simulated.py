"""A session whose episodes the server's own simulators run: step after step, until a bound is reached."""

from __future__ import annotations

import asyncio

from innerloop_server import faults
from innerloop_server.adaptation.messages import ClientMessage, EndReason, Finish, StepTaken
from innerloop_server.adaptation.orders import StepOrder
from innerloop_server.adaptation.session import LiveSession
from innerloop_server.errors import PreconditionFailed


class SimulatedSession(LiveSession):
    """Runs by itself; the client may only end it."""

    _finish_sequence: int | None = None

    async def _take(self, message: ClientMessage) -> None:
        if not isinstance(message, Finish):
            raise PreconditionFailed(
                "the server runs the episodes of this session; only finish may be sent", reason="SIMULATED_SESSION"
            )
        self._finish_sequence = message.sequence

    async def _run(self) -> None:
        """Step after step until a bound is reached. The next step is computed while this one goes to disk."""
        ahead = asyncio.ensure_future(self._engine.step(self._next_step(self.record.step + 1)))
        try:
            while True:
                stepped = await ahead
                faults.point("step.computed")
                finish = self._finish_sequence
                reason = self._reached(StepTaken.of(stepped, self.record, 0), after=stepped)
                if reason is None and finish is not None:
                    reason = EndReason.FINISHED
                if reason is None:
                    ahead = asyncio.ensure_future(self._engine.step(self._next_step(stepped.number + 1)))
                event = await self._shielded(self._settle(stepped, None))
                await self._outbox.put(event)
                if reason is not None:
                    await self._finish(reason, finish or 0, [])
                    return
        finally:
            ahead.cancel()

    def _next_step(self, number: int) -> StepOrder:
        return StepOrder(self.key, number, policy=self.options.policy_in_steps)
