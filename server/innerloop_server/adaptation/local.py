"""The engine in this process: for the trainer, scripts and tests."""

from __future__ import annotations

import asyncio

from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.orders import Occupancy, Request
from innerloop_server.adaptation.waiting import WaitingEngine

_ACTORS_POLL_SECONDS = 0.002
"""How often the actors are asked while nothing else is to do."""


class LocalEngine(WaitingEngine):
    """Drives a core from the event loop. A batch blocks the loop while it is computed: not for the gateway."""

    def __init__(self, core: EngineCore) -> None:
        """Args:
        core: owned by this engine from now on.
        """
        super().__init__()
        self._core = core
        self._driver: asyncio.Task[None] | None = None

    async def occupancy(self) -> Occupancy:
        """What the engine holds."""
        return self._core.occupancy()

    def close(self) -> None:
        """Stop the actors. Idempotent."""
        self._core.close()

    def _send(self, request: Request) -> None:
        self._core.submit(request)
        if self._driver is None or self._driver.done():
            self._driver = asyncio.get_running_loop().create_task(self._drive())

    async def _drive(self) -> None:
        while True:
            await asyncio.sleep(0)  # whoever was answered may ask again before the next batch is chosen
            for answer in self._core.run():
                self._answered(answer)
            if self._core.idle:
                if not self._core.occupancy().pending:
                    return
                await asyncio.sleep(_ACTORS_POLL_SECONDS)
