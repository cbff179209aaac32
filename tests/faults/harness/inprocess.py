"""A whole server in the process of the test, so that what it holds can be counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from harness import learners
from innerloop_server.adaptation.orders import Occupancy
from innerloop_server.app import App
from innerloop_server.settings import Settings

SETTLE_SECONDS = 20.0


@asynccontextmanager
async def running(data_dir: Path, actors: int = 1) -> AsyncIterator[App]:
    """A server with its engine and environment actors."""
    learners.install(data_dir)
    app = App(Settings(data_dir=data_dir, port=0, device="cpu", actors=actors))
    try:
        await app.start()
        yield app
    finally:
        await app.close()


async def settled(app: App) -> Occupancy:
    """What the server holds when nobody is attached to it any more: it has a moment to notice that streams ended."""
    async with asyncio.timeout(SETTLE_SECONDS):
        while app.hub.attached or (held := await app.engine.occupancy()).device_rows or held.actor_slots:
            await asyncio.sleep(0.01)
        return held
