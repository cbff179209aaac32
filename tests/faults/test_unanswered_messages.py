"""A stream is lost while its message is being worked on: sent again, the message has its effect once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))  # harness
from harness.clients import ROWS, WAVES, Lost, Owner
from harness.inprocess import running, settled

from innerloop_server.adaptation.orders import AdaptOrder, Stepped
from innerloop_server.app import App

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    async with running(tmp_path_factory.mktemp("server") / "data", actors=0) as server:
        yield server


@pytest.mark.parametrize(
    ("automatic", "kept"),
    [
        pytest.param(True, (WAVES - 1) * len(ROWS), id="experience"),  # of the message before
        pytest.param(False, WAVES * len(ROWS), id="advance"),
    ],
)
async def test_lost_while_its_step_is_computed(
    app: App, monkeypatch: pytest.MonkeyPatch, automatic: bool, kept: int
) -> None:
    def make(name: str) -> Owner:
        return Owner(f"{name}-{automatic}", steps=2, experience=True, automatic=automatic)

    twin, client = make("twin"), make("client")
    await asyncio.to_thread(twin.run, app.address)
    asked = asyncio.Event()

    async def never(_: AdaptOrder) -> Stepped:
        asked.set()
        return await asyncio.get_running_loop().create_future()

    with monkeypatch.context() as held:
        held.setattr(app.engine, "adapt", never)
        running_client = asyncio.create_task(asyncio.to_thread(client.run, app.address))
        await asyncio.wait_for(asked.wait(), 20)
        assert client.talk is not None
        unanswered = client.unheard
        client.talk.channel.close()
        with pytest.raises(Lost):
            await running_client
        await settled(app)
    await asyncio.to_thread(client.run, app.address)
    assert unanswered is not None
    assert (client.complete, client.next_sequence) == (kept, unanswered.sequence)
    assert client.acknowledged == twin.acknowledged
    assert client.policy == twin.policy
