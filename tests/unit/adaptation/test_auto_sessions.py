"""Sessions with budget ``auto``: they stop where their revision's curve says, and say so, whatever happens to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import drift
import pytest
from hub_support import LEARNER, House, open_owned, open_simulated, trajectories, whole

from innerloop_server.adaptation.messages import Adapted, EndReason, Open, Opened, StepTaken
from innerloop_server.domain import Budget
from innerloop_server.errors import PreconditionFailed

MEANS = [0.0, 60.0, 90.0, 90.5, 90.6]
"""Worth two steps: the third brings 0.5 of 90.6, where 0.906 is the price."""
GAINS = [60.0, 30.0, 0.5, 0.1]


def manifest(means: list[float] = MEANS) -> dict[str, Any]:
    scores = [{"k": k, "mean": mean, "standard_error": 0.01} for k, mean in enumerate(means)]
    return {"validation": {"protocol": {"episodes_per_step": 3}, "scores": scores}}


def furnished(house: House) -> House:
    house.store.add_revision(LEARNER, drift.weights(drift.spec(), seed=1), manifest())
    house.store.promote(LEARNER, 2)
    return house


@pytest.fixture
def house(tmp_path: Path) -> House:
    return furnished(House(tmp_path / "data"))


def opening(**changes: Any) -> Open:
    return open_simulated(budget=Budget(auto=True), **changes)


async def test_a_session_stops_where_another_step_is_not_worth_its_episodes(house: House) -> None:
    steps, adapted = await whole(house, opening())
    assert [(step.number, step.end_reason) for step in steps] == [(1, ""), (2, EndReason.BUDGET_AUTO)]
    assert [step.expected_gain for step in steps] == pytest.approx(GAINS[1:3])
    assert (adapted.end_reason, adapted.step) == (EndReason.BUDGET_AUTO, 2)


async def test_the_steps_are_those_of_a_session_of_as_many(house: House) -> None:
    learned, _ = await whole(house, opening())
    told, _ = await whole(house, open_simulated(budget=Budget(steps=2)))
    assert [step.state_hash for step in learned] == [step.state_hash for step in told]
    assert [step.end_reason for step in told] == ["", EndReason.BUDGET_STEPS]
    assert [step.expected_gain for step in told] == [None, None]


async def test_more_expensive_steps_are_fewer(house: House) -> None:
    """At 140 episodes a step, one must bring 0.906 x 140 / 3 = 42.3; the second brings 30."""
    steps, _ = await whole(house, opening(episodes_per_step=140))
    assert len(steps) == 1
    steps, _ = await whole(house, opening(episodes_per_step=1))  # 0.302: the third brings 0.5
    assert len(steps) == 3


async def test_other_bounds_still_hold(house: House) -> None:
    steps, adapted = await whole(house, replace(opening(), budget=Budget(steps=1, auto=True)))
    assert (len(steps), adapted.end_reason) == (1, EndReason.BUDGET_STEPS)


async def test_a_revision_without_a_curve_is_refused(house: House) -> None:
    with pytest.raises(PreconditionFailed, match="no validation curve") as refused:
        await house.open(replace(opening(), revision=1))
    assert refused.value.reason == "NO_CURVE"
    assert not house.store.list_sessions().items


async def test_a_killed_session_stops_where_it_would_have(house: House) -> None:
    steps, _ = await whole(house, opening())
    stream = await house.open(opening(request_id="again"))
    session = stream.session
    await stream.next(Opened)
    await stream.next(StepTaken)
    await stream.leave()
    house = house.killed()
    # A newer champion with another curve is none of its business.
    house.store.add_revision(LEARNER, drift.weights(drift.spec(), seed=2), manifest([0.0, 1.0, 2.0, 3.0, 4.0]))
    house.store.promote(LEARNER, 3)
    stream = await house.resume(session)
    await stream.next(Opened)
    *again, adapted = await stream.rest()
    await stream.leave()
    assert isinstance(adapted, Adapted)
    assert adapted.end_reason == EndReason.BUDGET_AUTO
    told = [step for step in again if isinstance(step, StepTaken)]
    assert [(s.number, s.state_hash, s.end_reason, s.expected_gain) for s in told] == [
        (s.number, s.state_hash, s.end_reason, s.expected_gain) for s in steps
    ]
    # What the journal tells a client that comes back later still is the same.
    _, *told_later, _ = await house.ended(session)
    assert [s.end_reason for s in told_later if isinstance(s, StepTaken)] == ["", EndReason.BUDGET_AUTO]


async def test_a_clients_own_episodes_stop_there_too(house: House) -> None:
    stream = await house.open(open_owned(budget=Budget(auto=True), episodes_per_step=2))
    await stream.next(Opened)
    await stream.say(trajectories(2, 0))
    assert (await stream.next(StepTaken)).end_reason == ""
    await stream.say(trajectories(3, 1))
    assert (await stream.next(StepTaken)).end_reason == EndReason.BUDGET_AUTO
    assert (await stream.next(Adapted)).end_reason == EndReason.BUDGET_AUTO
    await stream.leave()
