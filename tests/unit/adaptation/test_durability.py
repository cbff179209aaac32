"""Durable before acknowledged: what is said while a commit is under way, when it fails, and when the stream goes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hub_support import OWNER, House, open_owned, open_simulated, settled, trajectories

from innerloop_server.adaptation.journal import JournalWriter
from innerloop_server.adaptation.messages import Accepted, Adapted, Advance, Opened, StepTaken
from innerloop_server.domain import Budget, SessionState
from innerloop_server.errors import Exhausted, PreconditionFailed, Unavailable
from innerloop_server.store.records import CommitStep, StepRecord
from innerloop_server.store.store import Store


class Gate:
    """Stands before the store's commit: lets it pass, holds it, or fails it."""

    def __init__(self, store: Store) -> None:
        self.store_commit = store.commit
        self.error: Exception | None = None
        self.waiting = threading.Event()
        self._open = threading.Event()
        self._open.set()
        self.batches: list[int] = []

    def __call__(self, steps: Sequence[CommitStep]) -> frozenset[str]:
        self.batches.append(len(steps))
        self.waiting.set()
        assert self._open.wait(30)
        if self.error is not None:
            raise self.error
        return self.store_commit(steps)

    def shut(self) -> None:
        self.waiting.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()


@pytest.fixture
async def house(tmp_path: Path, complaints: list[dict[str, Any]]) -> AsyncIterator[House]:
    house = House(tmp_path / "data")
    yield house
    await house.hub.close()
    assert await house.rows() == (0, 0, 0)
    house.store.close()


@pytest.fixture
def gate(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(house.store)
    monkeypatch.setattr(house.store, "commit", gate)
    yield gate
    gate.open()


def full() -> Exhausted:
    return Exhausted("the disk is full", reason="DISK_FULL")


async def test_a_step_is_told_when_it_is_on_disk(house: House, gate: Gate) -> None:
    stream = await house.open(open_simulated())
    await stream.next(Opened)
    gate.shut()
    telling = asyncio.ensure_future(stream.next(StepTaken))
    await settled(gate.waiting.is_set)
    for _ in range(50):
        await asyncio.sleep(0)
    assert not telling.done()
    assert house.store.get_session(stream.session).step == 0
    gate.open()
    step = await telling
    assert house.store.get_session(stream.session).step >= step.number == 1
    await stream.leave()


async def test_the_next_step_is_computed_meanwhile(house: House, gate: Gate) -> None:
    gate.shut()
    stream = await house.open(open_simulated())
    await settled(gate.waiting.is_set)
    core = house.engine._core
    await settled(lambda: next(iter(core._seats.values())).resident.number == 2)
    assert house.store.get_session(stream.session).step == 0
    gate.open()
    await stream.leave()


async def test_a_full_disk_ends_the_stream_and_the_session_goes_on(house: House, gate: Gate) -> None:
    gate.error = full()
    stream = await house.open(open_simulated())
    await stream.next(Opened)
    with pytest.raises(Exhausted) as caught:
        await stream.rest()
    assert caught.value.reason == "DISK_FULL"
    await stream.leave()
    gate.error = None
    stream = await house.resume(stream.session)
    assert (await stream.next(Opened)).record.step == 0
    *steps, adapted = await stream.rest()
    assert [step.number for step in steps if isinstance(step, StepTaken)] == [1, 2, 3]
    assert isinstance(adapted, Adapted)
    await stream.leave()


async def test_a_clients_step_that_found_no_room_can_be_asked_for_again(house: House, gate: Gate) -> None:
    stream = await house.open(open_owned())
    await stream.next(Opened)
    await stream.say(trajectories(2, 0))
    await stream.next(Accepted)
    gate.error = full()
    with pytest.raises(Exhausted):
        await stream.say(Advance(3))
    await stream.leave()
    gate.error = None
    stream = await house.resume(stream.session)
    opened = await stream.next(Opened)
    assert (opened.record.step, opened.next_sequence, opened.episodes_pending) == (0, 3, 2)
    await stream.say(Advance(3))
    assert (await stream.next(StepTaken)).episodes == 2
    await stream.leave()


@pytest.mark.parametrize("owned", [False, True])
async def test_a_stream_that_goes_while_its_step_is_written(house: House, gate: Gate, owned: bool) -> None:
    stream = await house.open(open_owned() if owned else open_simulated())
    await stream.next(Opened)
    gate.shut()
    reader = None
    if owned:
        await stream.say(trajectories(2, 0))
        reader = asyncio.ensure_future(stream.say(Advance(3)))
    await settled(gate.waiting.is_set)
    if reader is not None:
        reader.cancel()
    leaving = asyncio.ensure_future(stream.leave())
    await settled(lambda: house.engine._core.occupancy().device_rows == 0)  # at once, though the disk is slow
    assert not leaving.done()
    gate.open()
    await leaving
    record = house.store.get_session(stream.session)
    assert (record.state, record.step) == (SessionState.ACTIVE, 1)
    assert stream.live.record.step == 1
    stream = await house.resume(stream.session)
    opened = await stream.next(Opened)
    assert (opened.record.step, opened.episodes_pending) == (1, 0)
    step = await stream.next(StepTaken)
    assert (step.number, step.sequence) == (1, 3 if owned else 0)
    if owned:
        assert opened.next_sequence == 4
        await stream.say(Advance(3))
        assert await stream.next(StepTaken) == step
    await stream.leave()


async def test_a_session_that_is_cancelled_while_its_step_is_written(house: House, gate: Gate) -> None:
    gate.shut()
    stream = await house.open(open_simulated())
    await stream.next(Opened)
    await settled(gate.waiting.is_set)
    await asyncio.to_thread(house.store.cancel_session, stream.session)  # by expiry, say: the hub does not know
    gate.open()
    with pytest.raises(PreconditionFailed) as caught:
        await stream.rest()
    assert caught.value.reason == "SESSION_ENDED"
    await stream.leave()


async def test_many_steps_share_a_commit(house: House, gate: Gate) -> None:
    gate.shut()
    streams = [await house.open(open_simulated(budget=Budget(steps=1))) for _ in range(6)]
    await settled(lambda: len(house.hub._journal._waiting) == 6 - sum(gate.batches))
    gate.open()
    ends = await asyncio.gather(*(stream.rest() for stream in streams))
    assert all(isinstance(end[-1], Adapted) for end in ends)
    assert gate.batches == [1, 5]
    for stream in streams:
        await stream.leave()


async def test_a_budget_is_found_reached_after_a_restart(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the last step and the policy."""
    for message in (open_simulated(budget=Budget(steps=1)), open_owned(budget=Budget(steps=1), episodes_per_step=2)):
        with monkeypatch.context() as patch:

            def die(*args: Any, **values: Any) -> Any:
                raise full()

            patch.setattr(house.store, "finish_session", die)
            stream = await house.open(message)
            await stream.next(Opened)
            if message.task is None:
                with pytest.raises(Exhausted):
                    await stream.say(trajectories(2, 0))
            await stream.next(StepTaken)
            if message.task is not None:
                with pytest.raises(Exhausted):
                    await stream.rest()
            await stream.leave()
        stream = await house.resume(stream.session, last_step=1)
        await stream.next(Opened)
        saying = asyncio.ensure_future(stream.say(trajectories(3, 1)))  # too late: the session is ending
        adapted = await stream.next(Adapted)
        assert (adapted.sequence, adapted.step) == (0, 1)
        await stream.rest()
        await stream.leave()
        with pytest.raises(PreconditionFailed):
            await saying


async def test_open_sessions_whose_caller_goes_away_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any moment: nothing stays on the device."""
    for turns in range(0, 40, 3):
        opening = asyncio.ensure_future(house.open(open_owned()))
        for _ in range(turns):
            await asyncio.sleep(0.0005)
        opening.cancel()
        try:
            stream = await opening
        except asyncio.CancelledError:
            continue
        await stream.leave()
        await house.hub.cancel(OWNER, stream.session)
    assert await house.rows() == (0, 0, 0)
    assert house.hub.attached == 0


async def test_a_session_that_nobody_could_come_back_to_is_not_kept(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller went away while it was attached, and gave no request_id."""
    attaching = asyncio.Event()

    async def attach(order: Any) -> Any:
        attaching.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(house.engine, "attach", attach)
    for request_id, kept in (("", 0), ("r1", 1)):
        attaching.clear()
        opening = asyncio.ensure_future(house.open(open_owned(request_id=request_id)))
        await attaching.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert house.store.count_active(OWNER) == kept


async def test_a_step_that_fails_while_the_one_before_is_written(
    house: House, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two errors, one stream to tell: the other is nothing that the event loop need complain about."""
    step = house.engine.step

    async def failing(order: Any) -> Any:
        if order.number == 2:
            raise Unavailable("the engine is restarting")
        return await step(order)

    monkeypatch.setattr(house.engine, "step", failing)
    gate.shut()
    stream = await house.open(open_simulated())
    await stream.next(Opened)
    await settled(gate.waiting.is_set)
    gate.error = full()
    gate.open()
    with pytest.raises(Exhausted):
        await stream.rest()
    await stream.leave()
    gate.error = None  # its traceback would keep alive what must be seen to go


async def test_a_failed_commit_fails_its_batch_and_no_later_one() -> None:
    class Flaky:
        calls = 0

        def commit(self, steps: Sequence[CommitStep]) -> frozenset[str]:
            self.calls += 1
            if self.calls == 1:
                raise full()
            return frozenset({"gone"})

    writer = JournalWriter(Flaky())  # type: ignore[arg-type]

    def step(session: str) -> CommitStep:
        return CommitStep(StepRecord(session, 1, b""), b"", episodes=1, seconds=0.0)

    first = asyncio.ensure_future(writer.commit(step("a")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = [asyncio.ensure_future(writer.commit(step(session))) for session in ("b", "gone")]
    with pytest.raises(Exhausted):
        await first
    assert await asyncio.gather(*later) == [True, False]
