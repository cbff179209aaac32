"""Streams that end at any moment, in whatever way: nothing stays taken, and the session goes on where it was."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))  # harness
from harness.clients import Client, Conversation, Interruption, Lost, Owner, Simulated, lost
from harness.inprocess import running, settled

from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import adaptation_pb2_grpc, task_pb2
from innerloop_server.app import App
from innerloop_server.domain import SessionState

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module")]

KINDS: dict[str, Callable[[str], Client]] = {
    "batch": lambda name: Simulated(name, steps=4, episodes_per_step=20),
    "actors": lambda name: Simulated(name, steps=4, simulator=task_pb2.SIMULATOR_ACTORS),
    "observe": lambda name: Owner(name, steps=2),
    "automatic": lambda name: Owner(name, steps=2, automatic=True),
    "experience": lambda name: Owner(name, steps=3, experience=True, automatic=True),
}
REPRODUCIBLE = ("batch", "actors", "experience")
"""Kinds whose episodes are functions of the step alone, so that a lost stream leaves no trace in any hash. The server's
actions for ``observe`` are drawn by message number, and a client that lost its stream sends more messages.
"""
MOST_REPLIES = {"batch": 5, "actors": 5, "observe": 30, "automatic": 30, "experience": 6}
SECONDS = 0.03
"""A moment between two replies lies at most so far after the first."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    async with running(tmp_path_factory.mktemp("server") / "data") as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def twins(app: App) -> dict[str, Client]:
    """Clients whose sessions nobody disturbed."""
    clients = {kind: make(f"twin-{kind}") for kind, make in KINDS.items()}
    await asyncio.gather(*(asyncio.to_thread(client.run, app.address) for client in clients.values()))
    return clients


def cancelled(seconds: float) -> Callable[[Conversation], None]:
    def happens(talk: Conversation) -> None:
        time.sleep(seconds)
        talk.cancel()
        raise Lost

    return happens


def disconnected(seconds: float) -> Callable[[Conversation], None]:
    def happens(talk: Conversation) -> None:
        time.sleep(seconds)
        talk.channel.close()
        raise Lost

    return happens


def leave(app: App, client: Client, rng: random.Random, way: str, most: int) -> None:
    """Run a client until it leaves at a seeded moment, or to its end where that comes first."""
    with suppress(Lost):
        if way == "deadline":
            client.run(app.address, seconds=rng.uniform(0.01, 0.2))
        else:
            happens = (cancelled if way == "cancel" else disconnected)(rng.uniform(0.0, SECONDS))
            client.run(app.address, Interruption(rng.randrange(most), happens))


@pytest.mark.parametrize("way", ["cancel", "disconnect", "deadline"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_lost_stream_leaves_nothing_taken_and_the_session_goes_on(
    app: App, twins: dict[str, Client], kind: str, way: str
) -> None:
    rng = random.Random(f"{kind} {way}")
    client = KINDS[kind](f"{way}-{kind}")
    for most in (1, MOST_REPLIES[kind], MOST_REPLIES[kind]):
        if not client.policy:
            await asyncio.to_thread(leave, app, client, rng, way, most)
        held = await settled(app)
        assert (held.device_rows, held.actor_slots, held.pending) == (0, 0, 0)
    if not client.policy:
        await asyncio.to_thread(client.run, app.address)
    assert len(client.acknowledged) == client.steps
    if kind in REPRODUCIBLE:
        assert client.acknowledged == twins[kind].acknowledged
        assert client.policy == twins[kind].policy
    await settled(app)


@pytest.mark.parametrize("kind", KINDS)
async def test_cancel_session_leaves_nothing_at_all(app: App, kind: str) -> None:
    rng = random.Random(f"cancel session {kind}")
    client = KINDS[kind](f"ended-{kind}")
    client.steps = 10_000  # it cannot be over by itself before it is cancelled
    before = await asyncio.to_thread(app.store.counts)

    def end(talk: Conversation) -> None:
        stub = adaptation_pb2_grpc.AdaptationServiceStub(talk.channel)
        (session,) = stub.ListSessions(pb.ListSessionsRequest(page_size=1)).sessions
        time.sleep(rng.uniform(0.0, SECONDS))
        ended = stub.CancelSession(pb.CancelSessionRequest(name=session.name)).session
        assert ended.state == pb.SESSION_STATE_CANCELLED

    with pytest.raises(grpc.RpcError) as error:
        await asyncio.to_thread(
            client.run, app.address, Interruption(rng.randrange(1, MOST_REPLIES[kind] // 2 + 1), end)
        )
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    held = await settled(app)
    assert (held.device_rows, held.actor_slots, held.pending) == (0, 0, 0)
    after = await asyncio.to_thread(app.store.counts)
    assert after == {**before, "sessions": before["sessions"] + 1}  # the record alone stays, to tell what became of it
    assert app.store.get_session(client.session.removeprefix("sessions/")).state is SessionState.CANCELLED


@pytest.mark.timeout(300)
async def test_hundreds_of_cancelled_streams_leave_no_trace(app: App) -> None:
    """grpc issues 43360 and 43462: handlers that swallow a cancellation leak the call."""
    kept = ("SimulatedSession", "OwnedSession", "Outbox", "_ServicerContext", "RPCState", "Task")

    async def objects() -> Counter[str]:
        await settled(app)
        gc.collect()
        return Counter(type(each).__name__ for each in gc.get_objects() if type(each).__name__ in kept)

    def flood(streams: int) -> None:
        with grpc.insecure_channel(app.address) as channel:
            for number in range(streams):
                name = f"flood-{streams}-{number}"
                client = Owner(name, steps=2) if number % 2 else Simulated(name, steps=4, episodes_per_step=1)
                with lost():
                    client.run_on(channel, Interruption(number % 3, cancelled(0.0)))

    await asyncio.to_thread(flood, 40)
    before = await objects()
    await asyncio.to_thread(flood, 200)
    for _ in range(50):  # the last stream may still be closing; what has leaked stays
        after = await objects()
        if all(after[name] <= before[name] + 3 for name in kept):
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"objects stay: {after - before}")
