"""Sessions whose episodes the client runs: acting, adapting, and every way to say a thing twice or too late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_support import OWNER, House, observe, open_owned, settled, trajectories

from innerloop.policy import Policy
from innerloop_server.adaptation.messages import (
    Accepted,
    Actions,
    Adapted,
    Advance,
    EndReason,
    Finish,
    Opened,
    StepTaken,
)
from innerloop_server.domain import Budget, SessionState
from innerloop_server.errors import PreconditionFailed, SequenceGap, StaleStep, Unavailable


@pytest.fixture
async def house(tmp_path: Path, complaints: list[dict[str, Any]]) -> AsyncIterator[House]:
    house = House(tmp_path / "data")
    yield house
    await house.hub.close()
    assert await house.rows() == (0, 0, 0)
    house.store.close()


async def test_acting_then_advancing(house: House) -> None:
    stream = await house.open(open_owned())
    await stream.next(Opened)
    await stream.say(observe(2, 0, rows=[0, 1]))
    first = await stream.next(Actions)
    assert (first.sequence, first.step, first.row_ids) == (2, 0, (0, 1))
    assert first.acted.actions.shape == (2, 1)
    await stream.say(observe(3, 0, rows=[1, 0], terminated=[1, 0]))
    assert (await stream.next(Actions)).row_ids == (1, 0)
    await stream.say(Advance(4))
    step = await stream.next(StepTaken)
    assert (step.sequence, step.number, step.pre_return, step.post_return) == (4, 1, 1.0, None)
    assert (step.episodes, step.total_episodes) == (2, 2)
    await stream.say(observe(5, 1, rows=[0]))
    assert (await stream.next(Actions)).step == 1
    await stream.say(Finish(6))
    adapted = await stream.next(Adapted)
    assert (adapted.sequence, adapted.step, adapted.end_reason) == (6, 1, EndReason.FINISHED)
    assert await stream.rest() == []
    await stream.leave()
    opened, *_ = await house.ended(stream.session)
    assert isinstance(opened, Opened)
    assert opened.next_sequence == 7


async def test_it_adapts_when_enough_episodes_are_complete(house: House) -> None:
    stream = await house.open(open_owned(episodes_per_step=3, policy_in_steps=True))
    await stream.next(Opened)
    await stream.say(observe(2, 0, rows=[0, 1, 2, 3]))
    await stream.next(Actions)
    await stream.say(observe(3, 0, rows=[0, 1], terminated=[0, 1]))
    await stream.next(Actions)
    await stream.say(observe(4, 0, rows=[2, 3], terminated=[2, 3]))
    step = await stream.next(StepTaken)
    actions = await stream.next(Actions)
    assert (step.sequence, step.episodes, actions.sequence, actions.step) == (4, 4, 4, 1)
    assert Policy.from_bytes(step.policy_file).header.steps == 1
    await stream.say(trajectories(5, 1, n=2))
    assert await stream.next(Accepted) == Accepted(5, 2)
    await stream.say(trajectories(6, 1, n=2))
    assert (await stream.next(StepTaken)).episodes == 4
    await stream.leave()


async def test_a_budget_that_is_reached_ends_the_session_unasked(house: House) -> None:
    stream = await house.open(open_owned(budget=Budget(steps=1)))
    await stream.next(Opened)
    await stream.say(trajectories(2, 0))
    await stream.next(Accepted)
    await stream.say(Advance(3))
    await stream.next(StepTaken)
    adapted = await stream.next(Adapted)
    assert (adapted.sequence, adapted.end_reason) == (3, EndReason.BUDGET_STEPS)
    assert await stream.rest() == []
    await stream.leave()
    assert house.store.get_session(stream.session).state is SessionState.FINISHED


async def test_a_target_is_the_return_of_the_episodes_that_were_sent(house: House) -> None:
    stream = await house.open(open_owned(budget=Budget(target_return=5.0), episodes_per_step=1))
    await stream.next(Opened)
    await stream.say(trajectories(2, 0, n=1, reward=1.0))  # a return of about 3
    await stream.next(StepTaken)
    await stream.say(trajectories(3, 1, n=1, reward=2.0))
    assert (await stream.next(StepTaken)).pre_return > 5
    assert (await stream.next(Adapted)).end_reason is EndReason.TARGET_RETURN
    await stream.leave()


async def test_a_message_said_twice_gets_the_same_reply_and_has_no_other_effect(house: House) -> None:
    stream = await house.open(open_owned(episodes_per_step=2))
    await stream.next(Opened)
    await stream.say(observe(2, 0, rows=[0, 1]))
    actions = await stream.next(Actions)
    await stream.say(observe(2, 0, rows=[0, 1], terminated=[0, 1]))
    assert await stream.next(Actions) is actions
    await stream.say(trajectories(3, 0, n=1))
    accepted = await stream.next(Accepted)
    await stream.say(trajectories(3, 0, n=1))
    assert await stream.next(Accepted) == accepted == Accepted(3, 1)
    await stream.say(observe(4, 0, rows=[0, 1], terminated=[0]))
    step, then = await stream.next(StepTaken), await stream.next(Actions)
    await stream.say(observe(4, 0, rows=[0, 1], terminated=[0]))
    assert (await stream.next(StepTaken), await stream.next(Actions)) == (step, then)
    assert step.episodes == 2
    for forgotten in (1, 2, 3):
        with pytest.raises(PreconditionFailed) as caught:
            await stream.say(trajectories(forgotten, 0))
        assert caught.value.reason == "REPLY_FORGOTTEN"
    await stream.leave()


async def test_gaps_and_stale_steps(house: House) -> None:
    stream = await house.open(open_owned(episodes_per_step=2))
    await stream.next(Opened)
    with pytest.raises(SequenceGap) as gap:
        await stream.say(Advance(5))
    assert gap.value.expected == 2
    with pytest.raises(PreconditionFailed) as nothing:
        await stream.say(Advance(2))
    assert nothing.value.reason == "NO_EPISODES"
    for number in (1, 2):
        await stream.say(trajectories(number + 1, number - 1))
        await stream.next(StepTaken)
    for message in (
        observe(4, 0),
        observe(4, 3),
        observe(4, -1),
        trajectories(4, 0),
        trajectories(4, 1, log_probs=False),
        trajectories(4, 3),
    ):
        with pytest.raises(StaleStep) as stale:
            await stream.say(message)
        assert (stale.value.got, stale.value.current) == (message.step, 2)
    await stream.say(observe(4, 1))  # a lag of one is allowed: its log-probabilities are known
    await stream.next(Actions)
    await stream.say(trajectories(5, 1, n=1))
    await stream.next(Accepted)
    await stream.leave()


async def test_a_lost_stream_keeps_complete_episodes_and_drops_open_ones(house: House) -> None:
    stream = await house.open(open_owned())
    await stream.next(Opened)
    await stream.say(observe(2, 0, rows=[0, 1]))
    await stream.next(Actions)
    await stream.say(observe(3, 0, rows=[0, 1], terminated=[0]))
    actions = await stream.next(Actions)
    await stream.leave()
    assert await house.rows() == (0, 0, 0)
    stream = await house.resume(stream.session)
    opened = await stream.next(Opened)
    assert (opened.sequence, opened.next_sequence, opened.episodes_pending) == (0, 4, 1)
    await stream.say(observe(3, 0, rows=[0, 1], terminated=[0]))  # its reply was lost
    assert await stream.next(Actions) is actions
    await stream.say(observe(4, 0, rows=[0, 1], terminated=[0, 1]))  # rewards of episodes that are gone
    await stream.next(Actions)
    await stream.say(Advance(5))
    assert (await stream.next(StepTaken)).episodes == 1
    await stream.leave()


async def test_a_killed_server_goes_on_from_the_last_durable_step(house: House) -> None:
    stream = await house.open(open_owned())
    await stream.next(Opened)
    await stream.say(trajectories(2, 0))
    await stream.next(Accepted)
    await stream.say(Advance(3))
    step = await stream.next(StepTaken)
    await stream.say(trajectories(4, 1))
    await stream.next(Accepted)
    again = house.killed()
    resumed = await again.resume(stream.session, last_step=0)
    opened = await resumed.next(Opened)
    assert (opened.record.step, opened.next_sequence, opened.episodes_pending) == (1, 4, 0)
    assert await resumed.next(StepTaken) == step
    await resumed.say(Advance(3))  # from the disk
    assert await resumed.next(StepTaken) == step
    with pytest.raises(PreconditionFailed) as caught:
        await resumed.say(trajectories(2, 0))
    assert caught.value.reason == "REPLY_FORGOTTEN"
    await resumed.say(trajectories(4, 1))
    await resumed.next(Accepted)
    await resumed.leave()
    await again.hub.close()
    again.store.close()
    await stream.leave()


async def test_the_same_messages_give_the_same_steps_cut_or_not(tmp_path: Path) -> None:
    hashes = []
    for cuts in (False, True):
        house = House(tmp_path / f"cut-{cuts}")
        stream = await house.open(open_owned(guard=True))
        await stream.next(Opened)
        told = []
        for number in range(4):
            await stream.say(trajectories(2 * number + 2, number, n=3, reward=(-1.0) ** number))
            await stream.next(Accepted)
            await stream.say(Advance(2 * number + 3))
            step = await stream.next(StepTaken)
            told.append((step.state_hash, step.guarded, step.rate_scale))
            if cuts:
                session = stream.session
                house = house.killed()
                stream = await house.resume(session, last_step=number + 1)
                await stream.next(Opened)
        hashes.append(told)
        await house.hub.close()
        house.store.close()
    assert hashes[0] == hashes[1]
    assert [guarded for _, guarded, _ in hashes[0]] == [False, True, False, True]


async def test_a_zombie_of_an_older_stream_changes_nothing(house: House) -> None:
    """Its reads hang, so it has not noticed that the session was taken over, and goes on sending."""
    old = await house.open(open_owned())
    await old.next(Opened)
    new = await house.resume(old.session)
    for message in (trajectories(2, 0), observe(2, 0), Finish(2)):
        with pytest.raises(PreconditionFailed) as caught:
            await old.say(message)
        assert caught.value.reason == "TAKEN_OVER"
    opened = await new.next(Opened)
    assert (opened.next_sequence, opened.episodes_pending) == (2, 0)
    await new.say(trajectories(2, 0, n=1))
    assert await new.next(Accepted) == Accepted(2, 1)
    await old.leave()
    assert house.hub.is_attached(old.session)
    await new.leave()


async def test_a_message_that_is_being_taken_in_ends_before_the_session_changes_hands(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine has answered an observe, but the reader has not run yet, when another stream resumes."""
    old = await house.open(open_owned())
    await old.next(Opened)
    await old.say(observe(2, 0))
    await old.next(Actions)
    answered, act = asyncio.Event(), house.engine.act

    async def slow(order: Any) -> Any:
        acted = await act(order)
        answered.set()
        await settled(lambda: old.live._closed)
        for _ in range(5):
            await asyncio.sleep(0)
        return acted

    monkeypatch.setattr(house.engine, "act", slow)
    saying = asyncio.ensure_future(old.say(observe(3, 0)))
    await answered.wait()
    new = await house.resume(old.session)
    assert saying.done()
    await saying
    opened = await new.next(Opened)
    assert opened.next_sequence == 4
    await new.say(observe(4, 0, terminated=[0]))
    await new.next(Actions)
    with pytest.raises(PreconditionFailed, match="no complete episode"):
        await new.say(Advance(5))
    await old.leave()
    await new.leave()


async def test_detached_in_the_middle_of_an_order(house: House) -> None:
    stream = await house.open(open_owned())
    await stream.next(Opened)
    await stream.say(observe(2, 0))
    saying = asyncio.ensure_future(stream.say(observe(3, 0)))
    await asyncio.sleep(0)
    await stream.leave()
    with pytest.raises(Unavailable):
        await saying
    assert await house.rows() == (0, 0, 0)
    stream = await house.resume(stream.session)
    assert (await stream.next(Opened)).next_sequence == 3
    await stream.leave()


async def test_cancelling_frees_what_was_parked(house: House) -> None:
    stream = await house.open(open_owned())
    await stream.next(Opened)
    await stream.say(trajectories(2, 0))
    await stream.leave()
    assert house.hub._parked
    await house.hub.cancel(OWNER, stream.session)
    assert not house.hub._parked
    assert not house.hub._locks


async def test_actions_follow_the_seed_and_the_sequence(house: House) -> None:
    drawn = []
    for seed in (5, 5, 6):
        stream = await house.open(open_owned(seed=seed))
        await stream.next(Opened)
        for sequence in (2, 3):
            await stream.say(observe(sequence, 0))
            drawn.append((await stream.next(Actions)).acted.raw_actions)
        await stream.leave()
    np.testing.assert_array_equal(drawn[0:2], drawn[2:4])
    assert len({float(raw[0, 0]) for raw in drawn}) == 4


async def test_episodes_that_spoil_an_update_are_dropped(house: House) -> None:
    stream = await house.open(open_owned())
    await stream.next(Opened)
    await stream.say(replace(trajectories(2, 0, 3), log_probs=np.full((3, 3), -3e38, np.float32)))
    await stream.next(Accepted)
    with pytest.raises(PreconditionFailed) as caught:
        await stream.say(Advance(3))
    assert caught.value.reason == "DIVERGED"
    await stream.say(trajectories(3, 0, 2))
    assert (await stream.next(Accepted)).episodes_pending == 2
    await stream.say(Advance(4))
    step = await stream.next(StepTaken)
    assert (step.number, step.episodes) == (1, 2)
    await stream.leave()
