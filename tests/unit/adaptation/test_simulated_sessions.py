"""Sessions whose episodes the server runs, over a real store: from open to adapted, through all that comes between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import drift
import pytest
from hub_support import LEARNER, OWNER, House, observe, open_owned, open_simulated, settled, whole

from innerloop.policy import Policy
from innerloop_server.adaptation import hub as hub_module
from innerloop_server.adaptation.messages import Adapted, Draining, EndReason, Finish, Heartbeat, Opened, StepTaken
from innerloop_server.domain import Budget, SessionState, Simulator
from innerloop_server.errors import Exhausted, InnerloopError, InvalidField, NotFound, PreconditionFailed, Unavailable
from innerloop_server.settings import Limits


@pytest.fixture
async def house(tmp_path: Path, complaints: list[dict[str, Any]]) -> AsyncIterator[House]:
    house = House(tmp_path / "data")
    yield house
    await house.hub.close()
    assert await house.rows() == (0, 0, 0)
    house.store.close()


async def test_a_session_runs_to_its_budget(house: House) -> None:
    stream = await house.open(open_simulated())
    opened = await stream.next(Opened)
    assert (opened.sequence, opened.next_sequence, opened.record.step, opened.record.seed) == (1, 2, 0, 5)
    assert opened.record.options == {
        "simulator": Simulator.BATCH,
        "episodes_per_step": 3,
        "guard": False,
        "policy_in_steps": False,
    }
    one, two, three, adapted = await stream.rest()
    for number, step in enumerate((one, two, three), start=1):
        assert isinstance(step, StepTaken)
        assert (step.sequence, step.number, step.total_episodes) == (0, number, 3 + 3 * number)
        assert step.policy_file == b""
    assert isinstance(adapted, Adapted)
    assert (adapted.sequence, adapted.step, adapted.end_reason) == (0, 3, EndReason.BUDGET_STEPS)
    await stream.leave()
    record = house.store.get_session(stream.session)
    assert (record.state, record.policy_id, record.episodes) == (SessionState.FINISHED, adapted.policy.id, 12)
    assert record.seconds == pytest.approx(three.total_seconds)  # type: ignore[union-attr]
    assert await house.rows() == (0, 0, 0)


async def test_the_policy_is_the_one_of_the_last_step(house: House) -> None:
    stream = await house.open(open_simulated(policy_in_steps=True))
    opened = await stream.next(Opened)
    assert Policy.from_bytes(opened.policy_file).header.steps == 0
    steps = [await stream.next(StepTaken) for _ in range(3)]
    adapted = await stream.next(Adapted)
    files = [Policy.from_bytes(step.policy_file).header for step in steps]
    assert [header.steps for header in files] == [1, 2, 3]
    assert adapted.policy.header["hash"] == files[-1].hash
    await stream.leave()


@pytest.mark.parametrize(
    ("budget", "reason", "steps"),
    [
        (Budget(steps=1), EndReason.BUDGET_STEPS, 1),
        (Budget(episodes=9), EndReason.BUDGET_EPISODES, 2),
        (Budget(episodes=10), EndReason.BUDGET_EPISODES, 3),
        (Budget(seconds=1e-9), EndReason.BUDGET_SECONDS, 1),
        (Budget(steps=9, target_return=-100.0), EndReason.TARGET_RETURN, 1),
    ],
)
async def test_budgets(house: House, budget: Budget, reason: EndReason, steps: int) -> None:
    taken, adapted = await whole(house, open_simulated(budget=budget))
    assert (len(taken), adapted.end_reason, adapted.step) == (steps, reason, steps)


async def test_opening_again_with_the_same_request_id_comes_back(house: House) -> None:
    message = open_simulated(request_id="r1", budget=Budget(steps=50))
    first = await house.open(message)
    await first.next(Opened)
    seen = await first.next(StepTaken)
    second = await house.open(replace(message, seed=99, budget=Budget(steps=1)))
    assert second.session == first.session
    with pytest.raises(PreconditionFailed) as caught:
        await first.rest()
    assert caught.value.reason == "TAKEN_OVER"
    opened = await second.next(Opened)
    assert (opened.sequence, opened.record.seed, opened.record.budget) == (1, 5, Budget(steps=50))
    assert await second.next(StepTaken) == seen
    await first.leave()  # the old stream's end takes nothing from the new one
    assert house.hub.is_attached(first.session)
    assert (await house.rows())[0] == 1
    await second.leave()
    other = await house.open(message, owner="bob")
    assert other.session != first.session
    await other.leave()


async def test_two_opens_at_once_attach_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has made the record is slower to attach than those who find it."""
    create = house.store.create_session

    def slow(*args: Any) -> Any:
        record, fresh = create(*args)
        if fresh:
            time.sleep(0.1)
        return record, fresh

    monkeypatch.setattr(house.store, "create_session", slow)
    message = open_simulated(request_id="r1", budget=Budget(steps=1_000))
    streams = await asyncio.gather(*(house.open(message) for _ in range(3)))
    assert len({stream.session for stream in streams}) == 1
    assert house.hub.attached == 1
    assert (await house.rows())[0] == 1
    for stream in streams:
        await stream.leave()
    assert await house.rows() == (0, 0, 0)


async def test_a_session_goes_on_where_it_was_and_ends_alike(house: House) -> None:
    message = open_simulated(budget=Budget(steps=6), guard=True)
    steps, _ = await whole(house, message)
    expected = [(s.number, s.state_hash, s.pre_return, s.post_return, s.guarded) for s in steps]
    stream = await house.open(message)
    session = stream.session
    await stream.next(Opened)
    await stream.next(StepTaken)
    await stream.leave()
    assert await house.rows() == (0, 0, 0)
    durable = house.store.get_session(session).step
    house = house.killed()
    stream = await house.resume(session, last_step=0)
    opened = await stream.next(Opened)
    assert (opened.sequence, opened.record.step, opened.next_sequence) == (0, durable, 2)
    *again, adapted = await stream.rest()
    assert isinstance(adapted, Adapted)
    assert [
        (s.number, s.state_hash, s.pre_return, s.post_return, s.guarded) for s in again if isinstance(s, StepTaken)
    ] == expected
    await stream.leave()
    house.store.close()


async def test_only_steps_after_the_last_seen_are_told_again(house: House) -> None:
    steps, adapted = await whole(house, open_simulated())
    session = adapted.policy.session_id
    assert session
    for last in range(4):
        opened, *told, end = await house.ended(session, last)
        assert isinstance(opened, Opened)
        assert opened.record.state is SessionState.FINISHED
        assert told == steps[last:]
        assert end == adapted
    with pytest.raises(InvalidField, match="4 is after the last durable step, 3"):
        await house.ended(session, 4)
    with pytest.raises(NotFound):
        await house.hub.resume("bob", session, 0)


async def test_a_wrong_resume_leaves_the_stream_alone(house: House) -> None:
    stream = await house.open(open_simulated(budget=Budget(steps=200)))
    with pytest.raises(InvalidField):
        await house.resume(stream.session, last_step=10_000)
    await stream.next(Opened)
    await stream.next(StepTaken)
    await stream.leave()


async def test_finish_is_answered_after_the_step_under_way(house: House) -> None:
    stream = await house.open(open_simulated(budget=Budget(steps=10_000)))
    await stream.next(Opened)
    await stream.next(StepTaken)
    await stream.say(Finish(2))
    *steps, adapted = await stream.rest()
    assert isinstance(adapted, Adapted)
    assert (adapted.sequence, adapted.end_reason) == (2, EndReason.FINISHED)
    assert adapted.step == 1 + len(steps)
    await stream.leave()
    *_, again = await house.ended(stream.session, adapted.step)
    assert again == adapted


async def test_only_finish_may_be_said(house: House) -> None:
    stream = await house.open(open_simulated(budget=Budget(steps=10_000)))
    for message, reason in ((observe(2, 0), "SIMULATED_SESSION"), (Finish(3), "SEQUENCE_GAP")):
        with pytest.raises(PreconditionFailed) as caught:
            await stream.say(message)
        assert caught.value.reason == reason
    await stream.leave()


async def test_cancelling_leaves_nothing(house: House) -> None:
    before = house.store.counts()
    stream = await house.open(open_simulated(budget=Budget(steps=10_000)))
    await stream.next(Opened)
    await stream.next(StepTaken)
    record = await house.hub.cancel(OWNER, stream.session)
    assert (record.state, record.end_reason) == (SessionState.CANCELLED, EndReason.CANCELLED)
    with pytest.raises(PreconditionFailed) as caught:
        await stream.rest()
    assert caught.value.reason == "SESSION_ENDED"
    assert await house.rows() == (0, 0, 0)
    after = house.store.counts()
    assert {name: n - before[name] for name, n in after.items() if n != before[name]} == {"sessions": 1}
    assert (await house.hub.cancel(OWNER, stream.session)).state is SessionState.CANCELLED
    with pytest.raises(PreconditionFailed):
        await house.resume(stream.session)
    with pytest.raises(NotFound):
        await house.hub.cancel("bob", stream.session)
    await stream.leave()


async def test_a_lease_ends_where_nobody_is_attached(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "SWEEP_SECONDS", 0.005)
    attached = await house.open(open_owned(lease_seconds=10.0))
    left = await house.open(open_owned(lease_seconds=10.0))
    await left.leave()
    house.hub.start()
    house.clock.now += 11
    await settled(lambda: house.store.get_session(left.session).state is SessionState.EXPIRED)
    await settled(lambda: attached.live.record.expires_at == house.clock.now + 10)
    assert house.store.get_session(attached.session).state is SessionState.ACTIVE
    await attached.next(Opened)
    heartbeat = [message async for message in _first(attached.live.messages(0.001))]
    assert heartbeat == [Heartbeat(house.clock.now + 10)]
    with pytest.raises(PreconditionFailed) as caught:
        await house.resume(left.session)
    assert caught.value.reason == "SESSION_ENDED"
    await attached.leave()


async def _first(messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield await anext(messages)


async def test_leaving_and_coming_back_renew_the_lease(house: House) -> None:
    stream = await house.open(open_owned(lease_seconds=10.0))
    house.clock.now += 6
    await stream.leave()
    assert house.store.get_session(stream.session).expires_at == house.clock.now + 10
    house.clock.now += 6
    stream = await house.resume(stream.session)
    assert (await stream.next(Opened)).record.expires_at == house.clock.now + 10
    await stream.leave()


async def test_quotas(tmp_path: Path) -> None:
    house = House(tmp_path / "data", Limits(sessions_per_owner=2), engine_options={"device_rows": 3})
    streams = [await house.open(open_owned()) for _ in range(2)]
    with pytest.raises(Exhausted) as caught:
        await house.open(open_owned())
    assert caught.value.reason == "SESSION_QUOTA"
    streams.append(await house.open(open_owned(), owner="bob"))
    with pytest.raises(Exhausted) as caught:
        await house.open(open_owned(), owner="bob")
    assert caught.value.reason == "EXHAUSTED"
    assert house.store.count_active("bob") == 1  # nobody could come back to the one that found no room
    await house.hub.cancel(OWNER, streams[0].session)
    streams.append(await house.open(open_owned()))
    await house.hub.close()
    assert await house.rows() == (0, 0, 0)
    house.store.close()


async def test_a_server_that_goes_away(house: House) -> None:
    stream = await house.open(open_owned())
    await stream.next(Opened)
    await house.hub.drain(3.0)
    assert await stream.next(Draining) == Draining(3.0)
    for call in (house.open(open_owned()), house.resume(stream.session)):
        with pytest.raises(Unavailable):
            await call
    await house.hub.close()
    with pytest.raises(Unavailable):
        await stream.rest()
    assert house.store.get_session(stream.session).state is SessionState.ACTIVE


async def test_draining_waits_for_no_slow_client(house: House) -> None:
    """The outbox is full: the client reads nothing."""
    stream = await house.open(open_simulated(budget=Budget(steps=10_000), episodes_per_step=1))
    await settled(lambda: len(stream.live._outbox._messages) >= 256)
    async with asyncio.timeout(5):
        await house.hub.drain(3.0)
    await stream.leave()


async def test_the_engine_dies(house: House) -> None:
    stream = await house.open(open_simulated(budget=Budget(steps=10_000)))
    await stream.next(Opened)
    house.hub.engine_lost()
    with pytest.raises(Unavailable):
        await stream.rest()
    await stream.leave()
    stream = await house.resume(stream.session)
    await stream.next(Opened)
    await stream.leave()


async def test_a_task_that_fails_ends_the_stream_not_the_session(house: House) -> None:
    for fault in (drift.RAISES, drift.DIVERGES):
        stream = await house.open(open_simulated(fault=fault))
        await stream.next(Opened)
        with pytest.raises(InnerloopError) as caught:
            await stream.rest()
        assert caught.value.reason == {drift.RAISES: "INTERNAL", drift.DIVERGES: "DIVERGED"}[fault]
        await stream.leave()
        assert house.store.get_session(stream.session).state is SessionState.ACTIVE


async def test_what_cannot_be_opened(house: House) -> None:
    for message, kind, about in (
        (open_simulated(learner="none"), NotFound, "none"),
        (open_simulated(revision=9), NotFound, "9"),
        (open_simulated(budget=Budget()), InvalidField, "open.budget"),
        (open_simulated(episodes_per_step=-1), InvalidField, "open.episodes_per_step"),
        (open_simulated(episodes_per_step=1_001), InvalidField, "open.episodes_per_step"),
        (open_simulated(lease_seconds=0.5), InvalidField, "open.lease"),
        (open_simulated(task=replace(drift.task(), family="other")), InvalidField, "open.task.family"),
    ):
        with pytest.raises(kind, match=about):
            await house.open(message)
    house.store.put_learner(drift.spec("untrained"))
    with pytest.raises(PreconditionFailed):
        await house.open(open_simulated(learner="untrained"))
    assert house.store.counts()["sessions"] == 0
    stream = await house.open(open_simulated(learner=LEARNER, revision=1))
    await stream.leave()


async def test_a_session_samples_enough_to_guard_itself_unless_told_otherwise(house: House) -> None:
    for asked, episodes, guard in (
        ({"guard": None}, 20, True),  # trained with 3
        ({"guard": True}, 20, True),
        ({"guard": False}, 3, False),
        ({"guard": None, "episodes_per_step": 5}, 5, False),
    ):
        stream = await house.open(open_simulated(**asked))
        opened = await stream.next(Opened)
        options = opened.record.options
        assert (options["episodes_per_step"], options["guard"]) == (episodes, guard)
        await stream.leave()
