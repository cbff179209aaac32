"""The engine in a process of its own: it serves, dies, comes back, and ends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from innerloop_server.adaptation import client as client_module
from innerloop_server.adaptation.client import EngineClient
from innerloop_server.adaptation.orders import ActOrder, Attach, ExportOrder, RevisionRef, StepOrder
from innerloop_server.adaptation.process import EngineSettings
from innerloop_server.domain import Simulator, Split
from innerloop_server.errors import Exhausted, PreconditionFailed, Unavailable
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training.specs import spec_for

FAMILY = load_registry().get("navigation-2d")
SETTINGS = EngineSettings(device="cpu", device_rows=2, batching=True, actors=0, actor_slots=0)


@pytest.fixture
def ref(tmp_path: Path) -> RevisionRef:
    import drift

    return drift.revision(tmp_path, spec_for(FAMILY, settings={"hidden_sizes": [4]}))


@pytest.fixture
async def client(complaints: list[dict[str, Any]]) -> AsyncIterator[EngineClient]:
    client = EngineClient(SETTINGS)
    await client.start()
    yield client
    await client.close()


async def attached(client: EngineClient, ref: RevisionRef) -> int:
    key = client.new_key()
    task = sample_task(FAMILY, 0, Split.TEST, 0)
    await client.attach(
        Attach(key, ref, seed=1, episodes_per_step=2, guard=False, task=task, simulator=Simulator.BATCH)
    )
    return key


async def test_it_serves_dies_comes_back_and_ends(
    client: EngineClient, ref: RevisionRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process start costs seconds, so its life is told in one test."""
    assert client.device == "cpu"
    # Answers, failures and refusals come to those who asked.
    key = await attached(client, ref)
    step, exported = await asyncio.gather(client.step(StepOrder(key, 1)), client.export(ExportOrder(key)))
    assert (step.number, exported.steps) == (1, 1)
    other = await attached(client, ref)
    with pytest.raises(Exhausted):
        await attached(client, ref)
    client.detach(other)
    occupancy = await client.occupancy()
    assert (occupancy.device_rows, occupancy.device_rows_limit, occupancy.pending) == (1, 2, 0)

    # Killed: whoever waits is told, and whoever asks while nothing is there.
    lost = asyncio.Event()
    client._on_lost = lost.set
    monkeypatch.setattr(client_module, "RESTART_SECONDS", (0.2,))
    pid = client.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # so that the orders are under way for certain
    waiting = [
        asyncio.ensure_future(awaitable)
        for awaitable in (client.step(StepOrder(key, 2)), client.occupancy(), attached(client, ref))
    ]
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    for outcome in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(outcome, Unavailable)
    assert lost.is_set()
    assert client.pid is None
    with pytest.raises(Unavailable):
        await client.step(StepOrder(key, 2))
    with pytest.raises(Unavailable):
        await client.occupancy()

    # Back, with nothing on it; the old key is nobody's.
    await client._ready.wait()
    assert client.pid not in (None, pid)
    assert (await client.occupancy()).device_rows == 0
    with pytest.raises(Unavailable):
        await client.step(StepOrder(key, 2))
    again = await attached(client, ref)
    assert again != key
    assert (await client.step(StepOrder(again, 1))).state_hash == step.state_hash

    # Closed, twice, with somebody waiting.
    last = client.pid
    assert last is not None
    os.kill(last, signal.SIGSTOP)
    import numpy as np

    left = asyncio.ensure_future(client.act(ActOrder(again, np.zeros((1, 2), np.float32), (1,))))
    await asyncio.sleep(0)
    os.kill(last, signal.SIGCONT)
    await client.close()
    await asyncio.gather(left, return_exceptions=True)
    await client.close()
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)
    with pytest.raises(Unavailable):
        await client.step(StepOrder(again, 2))


async def test_a_device_that_is_not_there_is_said_so() -> None:
    client = EngineClient(replace(SETTINGS, device="tpu"))
    with pytest.raises(PreconditionFailed, match="tpu") as caught:
        await client.start()
    assert caught.value.reason == "NO_DEVICE"
    await client.close()


async def test_what_cannot_be_sent_costs_the_process_not_the_server(
    client: EngineClient, ref: RevisionRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that died quietly would leave a server that looks alive and answers nobody."""
    monkeypatch.setattr(client_module, "RESTART_SECONDS", (0.0,))
    first = client.pid
    assert client._link is not None
    client._link.outgoing.put([lambda: None])  # cannot be pickled
    async with asyncio.timeout(60):
        while client.pid in (first, None):
            await asyncio.sleep(0.02)
    key = await attached(client, ref)
    assert (await client.step(StepOrder(key, 1))).number == 1
