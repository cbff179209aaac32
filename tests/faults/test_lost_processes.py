"""``kill -9`` of the engine and of an environment actor while sessions run in them: the work goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))  # harness
from harness.clients import Client, Conversation, Interruption, Lost, Owner, Simulated, lost
from harness.inprocess import running, settled

from innerloop.v1 import task_pb2
from innerloop_server.app import App

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module")]

RESTART_SECONDS = 60.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    async with running(tmp_path_factory.mktemp("server") / "data") as server:
        yield server


def clients(name: str) -> list[Client]:
    """One of each kind whose hashes a lost stream does not change."""
    return [
        Simulated(f"{name}-batch", steps=6),
        Simulated(f"{name}-actors", steps=6, simulator=task_pb2.SIMULATOR_ACTORS),
        Owner(f"{name}-experience", steps=4, experience=True),
    ]


def killed(pid: int) -> Interruption:
    """After two replies."""

    def happens(_: Conversation) -> None:
        os.kill(pid, signal.SIGKILL)

    return Interruption(2, happens)


def come_back(client: Client, address: str) -> None:
    """Run until the session has ended, as often as that takes."""
    deadline = time.monotonic() + RESTART_SECONDS
    while not client.policy:
        try:
            client.run(address)
        except Lost:
            assert time.monotonic() < deadline
            time.sleep(0.1)  # what a client does on UNAVAILABLE


def actors_of(pid: int) -> list[int]:
    """Processes that an engine spawned; its resource tracker is none of them."""
    return [child.pid for child in psutil.Process(pid).children() if "spawn_main" in " ".join(child.cmdline())]


async def test_an_engine_killed_under_its_sessions(app: App) -> None:
    twins, victims = clients("twin"), clients("victim")
    await asyncio.gather(*(asyncio.to_thread(twin.run, app.address) for twin in twins))
    for victim in victims:
        before = app.engine.pid
        assert before is not None
        with lost():
            await asyncio.to_thread(victim.run, app.address, killed(before))
        await asyncio.to_thread(come_back, victim, app.address)
        assert app.engine.pid not in (before, None)
    for twin, victim in zip(twins, victims, strict=True):
        assert victim.acknowledged == twin.acknowledged
        assert victim.policy == twin.policy
    held = await settled(app)
    assert (held.device_rows, held.actor_slots, held.pending) == (0, 0, 0)


async def test_an_actor_killed_under_a_session(app: App) -> None:
    def make(name: str) -> Client:
        return Simulated(name, steps=8, simulator=task_pb2.SIMULATOR_ACTORS)

    twin, client = make("twin-actor"), make("actor")
    await asyncio.to_thread(twin.run, app.address)
    assert app.engine.pid is not None
    (actor,) = actors_of(app.engine.pid)
    restarts = (await app.engine.occupancy()).actor_restarts
    await asyncio.to_thread(client.run, app.address, killed(actor))  # its stream is not even lost
    assert client.acknowledged == twin.acknowledged
    assert client.policy == twin.policy
    held = await settled(app)
    assert held.actor_restarts == restarts + 1
    assert actors_of(app.engine.pid) not in ([], [actor])
