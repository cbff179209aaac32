"""Lost streams: a session comes back by itself, nothing is told twice, nothing is applied twice."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import threading
from contextlib import suppress

import pytest
from drivers import DRIVERS
from worlds import Counting, CountingVector, Endless, Mode

import innerloop
import innerloop.aio
from innerloop import errors
from innerloop._core.backoff import Backoff

both = pytest.mark.parametrize("driver", DRIVERS)


@pytest.fixture
async def cut_client(server, driver):
    async with DRIVERS[driver](server.address, patience=5) as client:
        yield client


@both
@pytest.mark.parametrize("cuts", [[1], [2], [3], [1, 1, 2], [2, 2, 2, 2]])
async def test_a_simulated_session_survives_cuts(server, cut_client, cuts):
    server.faults.cut_after = cuts
    adaptation = await cut_client.adapt("navigation-2d", {"goal": [0.1, 0.1]}, steps=4)

    assert [step.number async for step in adaptation] == [1, 2, 3, 4]
    assert adaptation.adapted.step == 4
    assert len(server.adaptation.sessions) == 1
    assert server.adaptation.streams > 1


@both
@pytest.mark.parametrize("forget", [False, True], ids=["cut", "killed"])
@pytest.mark.parametrize("local", [False, True], ids=["observe", "experience"])
async def test_a_client_owned_session_survives_cuts(server, cut_client, local, forget):
    server.faults.cut_after = [2, 4, 3]
    server.faults.forget = forget
    env = Counting(length=3)
    adaptation = await cut_client.adapt_env(env, "cartpole-dynamics", local=local, steps=3, episodes_per_step=1)

    assert [(step.number, step.pre_return) async for step in adaptation] == [(1, 3.0), (2, 3.0), (3, 3.0)]
    assert set(server.session.returns) == {3.0}, "an episode was told in pieces"
    assert server.adaptation.streams > 1
    if not forget:
        assert server.session.applied == sorted(set(server.session.applied))


@both
@pytest.mark.parametrize("forget", [False, True], ids=["cut", "killed"])
@pytest.mark.parametrize("cuts", [[1], [2], [3, 2], [2, 2, 2, 2], [5, 1, 3], [6], [7], [8]])
async def test_a_supervised_session_survives_cuts(server, cut_client, cuts, forget):
    server.faults.cut_after = cuts
    server.faults.forget = forget
    session = await cut_client.supervised("digits")
    first = await session.adapt([[0.0] * 4] * 3, [0, 1, 1], steps=2)
    said = await session.predict([[0.0] * 4] * 2)
    second = await session.adapt([[0.0] * 4], [0])
    await session.policy()

    assert [step.number for step in [*first, *second]] == [1, 2, 3]
    assert said.tolist() == [1, 1]
    assert server.adaptation.streams > 1
    assert session.adapted.step == 3
    if not forget:
        assert server.session.answers == [0, 1, 1] * 2 + [0], "examples were told twice, or not at all"
        assert server.session.applied == sorted(set(server.session.applied))


@both
async def test_an_open_without_an_answer_comes_back_to_its_session(server, cut_client):
    server.faults.cut_after = [1]
    adaptation = await cut_client.adapt("navigation-2d", {"goal": [0.1, 0.1]}, steps=1, request_id="mine")
    again = await cut_client.adapt("navigation-2d", {"goal": [0.1, 0.1]}, steps=9, request_id="mine")

    assert (await adaptation.result()).policy == (await again.result()).policy
    assert list(server.adaptation.sessions) == [adaptation.session] == [again.session]


@both
async def test_a_robot_goes_on_from_where_it_is(server, cut_client):
    server.faults.cut_after = [4]
    env = Endless()
    adaptation = await cut_client.adapt_env(
        env, "cartpole-dynamics", steps=2, episodes_per_step=1, continuing=True, segment=5
    )
    assert len([step async for step in adaptation]) == 2
    assert env.resets == [None]
    # three steps before the cut are lost with their open segment; then two segments of five
    assert [final[0] for final in server.session.truncations] == [8.0, 13.0]


@both
async def test_a_vector_environment_is_restarted(server, cut_client):
    server.faults.cut_after = [4, 5]
    env = CountingVector([2, 3], Mode.NEXT_STEP)
    adaptation = await cut_client.adapt_env(env, "cartpole-dynamics", steps=2, episodes_per_step=3)
    assert len([step async for step in adaptation]) == 2
    assert set(server.session.returns) == {2.0, 3.0}


@both
async def test_resume_from_another_process(server, cut_client):
    env = Counting(length=3)
    adaptation = await cut_client.adapt_env(env, "cartpole-dynamics", steps=3, episodes_per_step=1)
    async for _ in adaptation:
        break
    adaptation.detach()

    async with innerloop.aio.connect(server.address) as other:
        resumed = await other.resume(adaptation.session, env=Counting(length=3))
        assert [step.number async for step in resumed] == [1, 2, 3]
        watched = await other.resume(adaptation.session, last_step=2)
        assert [step.number async for step in watched] == [3]


@both
async def test_a_server_that_opens_and_dies_again_and_again_ends_patience_too(server, driver):
    server.faults.cut_after = [1] * 1_000
    async with DRIVERS[driver](server.address, patience=0.5) as client:
        adaptation = await client.adapt("navigation-2d", {"goal": [0.1, 0.1]}, steps=4)
        with pytest.raises(errors.Unavailable):
            assert [step async for step in adaptation] == []
    assert 1 < server.adaptation.streams < 100


@both
async def test_patience_ends(server, driver):
    async with DRIVERS[driver](server.address, patience=0.2) as client:
        server.faults.cut_after = [2] + [0] * 50
        server.refuse["Adapt"] = []
        adaptation = await client.adapt("navigation-2d", {"goal": [0.1, 0.1]}, steps=4)
        server.stop()
        with pytest.raises(errors.Unavailable) as caught:
            await adaptation.result()
    assert caught.value.facts["session"] == adaptation.session
    assert caught.value.facts["address"] == server.address


@both
async def test_nobody_there_is_said_soon(driver):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    async with DRIVERS[driver](address) as client:
        with pytest.raises(errors.Unavailable, match="innerloop serve") as caught:
            await client.families()
    assert caught.value.facts == {"address": address}


@both
async def test_a_cut_connection(server, driver):
    proxy = Proxy(server.address)
    env = Counting(length=3)
    env.step = _cutting(env.step, proxy, at=8)
    async with DRIVERS[driver](proxy.address, patience=10) as client:
        adaptation = await client.adapt_env(env, "cartpole-dynamics", steps=3, episodes_per_step=2)
        assert [(step.number, step.pre_return) async for step in adaptation] == [(1, 3.0), (2, 3.0), (3, 3.0)]
    assert proxy.cuts == 1
    assert server.adaptation.streams == 2
    proxy.close()


@both
async def test_leaving_cancels_the_call(server, driver):
    server.faults.hang = True
    async with DRIVERS[driver](server.address) as client:
        adaptation = await client.adapt("navigation-2d", {"goal": [0.1, 0.1]}, steps=4)
        async for _ in adaptation:
            break
        assert server.adaptation.live == 1
        adaptation.detach()
        adaptation.detach()
        assert server.idle()

        adaptation = await client.adapt("navigation-2d", {"goal": [0.1, 0.1]}, steps=4)
        session = await adaptation.cancel()
        assert session.state == "cancelled"
        assert server.idle()

        kept = await client.adapt("navigation-2d", {"goal": [0.1, 0.1]}, steps=4)
    assert server.idle(), "closing the client closes what is under way"
    with pytest.raises(errors.SessionEnded):
        await kept.policy()


@both
async def test_a_loop_that_was_broken_out_of_leaves_no_call(server, driver):
    server.faults.hang = True
    if driver == "blocking":
        with innerloop.connect(server.address) as client:
            for _ in client.adapt("navigation-2d", {"goal": [0.1, 0.1]}, steps=4):
                break
            gc.collect()
            assert server.idle()
    else:
        async with innerloop.aio.connect(server.address) as client:
            async for _ in await client.adapt("navigation-2d", {"goal": [0.1, 0.1]}, steps=4):
                break
            gc.collect()
            assert await asyncio.to_thread(server.idle)


async def test_cancelling_a_task_cancels_the_call(server):
    server.faults.hang = True
    async with innerloop.aio.connect(server.address) as client:
        adaptation = await client.adapt("navigation-2d", {"goal": [0.1, 0.1]}, steps=4)
        first = asyncio.Event()

        async def follow():
            async for _ in adaptation:
                first.set()

        task = asyncio.create_task(follow())
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.idle)


@both
async def test_errors_of_the_environment_pass_through_and_cancel_the_call(server, cut_client):
    env = Counting()

    def broken(action):
        raise ZeroDivisionError("the motor is stuck")

    env.step = broken
    adaptation = await cut_client.adapt_env(env, "cartpole-dynamics", steps=1)
    with pytest.raises(ZeroDivisionError):
        await adaptation.result()
    assert server.idle()


def test_pauses_double_up_to_patience():
    backoff = Backoff(3.0, first=0.5, most=2.0, draw=random.Random(1))
    error = errors.Unavailable("away")
    pauses = [backoff.pause(error) for _ in range(3)]
    assert 0.25 <= pauses[0] <= 0.5 <= pauses[1] <= 1.0 <= pauses[2] <= 2.0
    while sum(pauses) < 3.0:
        pauses.append(backoff.pause(error))
    with pytest.raises(errors.Unavailable):
        backoff.pause(error)
    backoff.alive()
    assert backoff.pause(error) <= 0.5


def _cutting(step, proxy: Proxy, at: int):
    count = 0

    def stepped(action):
        nonlocal count
        count += 1
        if count == at:
            proxy.cut()
        return step(action)

    return stepped


class Proxy:
    """A TCP proxy that can cut every connection it carries."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.cuts += 1
        self._shut()

    def close(self) -> None:
        self._listener.close()
        self._shut()

    def _shut(self) -> None:
        while self._open:
            connection = self._open.pop()
            with suppress(OSError):  # the other end was faster
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._open += [near, far]
            threading.Thread(target=self._pump, args=(near, far), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass  # cut
