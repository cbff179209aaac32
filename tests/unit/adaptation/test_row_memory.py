"""A client's rows: each remembers for itself, from episode to episode, until its trial ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import drift
import numpy as np
import pytest
from hub_support import Advance, Finish, House, Stream, observe, open_owned

from innerloop import policy as portable
from innerloop.arrays import Array
from innerloop.policy import Input, Policy
from innerloop_server.adaptation import row_memory
from innerloop_server.adaptation.messages import Accepted, Actions, Adapted, Observe, Opened, StepTaken
from innerloop_server.adaptation.orders import KeptRows, Rows
from innerloop_server.adaptation.row_memory import RowMemory
from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import Exhausted, PreconditionFailed

NO_ROWS = Rows(np.zeros(0, np.int64), np.zeros(0, np.int64), {})
SETTINGS = drift.REMEMBERING | {"episodes_per_trial": 3}


@pytest.fixture(autouse=True, params=["gru", "transformer"])
def memory_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test twice; the transformer attends to fewer steps than rows take."""
    if request.param == "transformer":
        for name, value in {"memory": "transformer", "memory_heads": 3, "memory_span": 3}.items():
            monkeypatch.setitem(SETTINGS, name, value)


def spec() -> LearnerSpec:
    return replace(drift.spec("drift-rl2"), method="rl2", settings=SETTINGS)


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path / "house")
    house.store.put_learner(spec())
    house.store.add_revision("drift-rl2", drift.weights(spec()), {})
    house.store.promote("drift-rl2", 1)
    return house


class Mirror:
    """What the rows should remember, by the portable policy: fed what the rows saw, did and were told."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.memory: dict[int, dict[str, Array]] = {}

    def check(self, said: Observe, actions: Actions) -> None:
        """The log-probabilities of the answer are those of rows that remember as they should."""
        for i, row in enumerate(said.row_ids):
            known = self.memory.get(row, self.policy.begin())
            end = said.trial_end is not None and bool(said.trial_end[i])
            given = Input(
                said.observations[i : i + 1],
                reward=said.rewards[i : i + 1] if row in self.memory else None,
                terminated=said.terminated[i : i + 1] if row in self.memory else None,
                truncated=said.truncated[i : i + 1] if row in self.memory else None,
                trial_end=np.array([end]),
            )
            parameters, hidden = portable.forward_with_memory(
                self.policy.header, self.policy.weights, known, portable.told(known, given)
            )
            raw = actions.acted.raw_actions[i : i + 1]
            log_prob = portable.log_prob(parameters, raw)
            assert actions.acted.log_probs[i] == pytest.approx(log_prob[0], abs=1e-5), (row, said.sequence)
            self.memory[row] = portable.acted(hidden, raw)


async def opened(house: House, **changes: Any) -> tuple[Stream, Mirror]:
    stream = await house.open(open_owned(learner="drift-rl2", policy_in_steps=True, guard=None, **changes))
    first = await stream.next(Opened)
    return stream, Mirror(Policy.from_bytes(first.policy_file))


def says(sequence: int, step: int, rows: Sequence[int], terminated: Sequence[int] = (), **changes: Any) -> Observe:
    """Rows at places and with rewards that are nobody else's."""
    rng = np.random.default_rng(sequence)
    return observe(
        sequence,
        step,
        rows,
        terminated,
        observations=rng.standard_normal((len(rows), 1)).astype(np.float32),
        rewards=rng.standard_normal(len(rows)).astype(np.float32),
        **changes,
    )


async def test_each_row_remembers_for_itself_and_an_episode_is_a_step(house: House) -> None:
    stream, mirror = await opened(house)
    step, sequence = 0, 1
    for turn in range(8):
        sequence += 1
        rows = (4, 2) if turn % 2 else (2, 4, 9)  # row 9 is slow
        said = says(sequence, step, rows, terminated=(4,) if turn in (3, 6) else (), trial_end=None)
        if turn == 5:  # row 2 is cut
            said = replace(said, truncated=np.array([row == 2 for row in rows]))
        await stream.say(said)
        if turn in (3, 5, 6):
            taken = await stream.next(StepTaken)
            step = taken.number
            assert (taken.episodes, taken.guarded, taken.post_return) == (1, False, None)
        mirror.check(said, await stream.next(Actions))
    assert step == 3
    await stream.say(Finish(sequence + 1))
    adapted = await stream.next(Adapted)
    assert adapted.policy.header["adapts"] is True
    await stream.leave()


async def test_memory_is_emptied_by_trial_end_alone(house: House) -> None:
    stream, mirror = await opened(house)
    for sequence, ends in ((2, False), (3, False), (4, True), (5, False)):
        said = says(sequence, int(sequence > 4), (0, 1), terminated=(0,) if sequence == 4 else ())
        said = replace(said, trial_end=np.array([ends, False]))
        await stream.say(said)
        if sequence == 4:
            policy = Policy.from_bytes((await stream.next(StepTaken)).policy_file)
            kept = [array for name, array in policy.begin().items() if name.startswith("memory")]
            assert not any(array.any() for array in kept), "row 0 is the policy's, and starts anew"
            assert policy.begin()["last.trial_end"].all()
        mirror.check(said, await stream.next(Actions))
    await stream.leave()


async def test_after_a_kill_rows_remember_their_whole_episodes(house: House) -> None:
    stream, mirror = await opened(house)
    settled: Mapping[int, dict[str, Array]] = {}
    for sequence in range(2, 7):
        said = says(sequence, int(sequence > 4), (0, 1), terminated=(0, 1) if sequence == 4 else ())
        await stream.say(said)
        if sequence == 4:
            assert (await stream.next(StepTaken)).episodes == 2
            ended = {"last.terminated": np.ones(1, bool)}
            settled = {
                row: memory | ended | {"last.reward": said.rewards[row : row + 1]}
                for row, memory in mirror.memory.items()
            }
        mirror.check(said, await stream.next(Actions))
    session = stream.session
    house = house.killed()
    stream = await house.resume(session)
    await stream.next(Opened)
    await stream.next(StepTaken)
    said = says(5, 1, (1, 0))  # the first words of episodes that begin again: their rewards are nobody's
    await stream.say(said)
    answer = await stream.next(Actions)
    for i, row in enumerate(said.row_ids):
        given = portable.told(settled[row], Input(said.observations[i : i + 1]))
        parameters, _ = portable.forward_with_memory(mirror.policy.header, mirror.policy.weights, settled[row], given)
        log_prob = portable.log_prob(parameters, answer.acted.raw_actions[i : i + 1])
        assert answer.acted.log_probs[i] == pytest.approx(log_prob[0], abs=1e-5)
    await stream.leave()


async def test_a_lost_stream_forgets_open_episodes_and_nothing_else(house: House) -> None:
    stream, mirror = await opened(house)
    said = says(2, 0, (0,))
    await stream.say(said)
    first = await stream.next(Actions)
    await stream.say(says(3, 0, (0,)))
    await stream.next(Actions)
    session = stream.session
    await stream.leave()
    stream = await house.resume(session)
    await stream.next(Opened)
    again = replace(said, sequence=4)
    await stream.say(again)
    mirror.check(again, await stream.next(Actions))
    assert first.acted.memory == {}
    await stream.leave()


async def test_what_only_reports_is_remembered_too(house: House) -> None:
    stream, mirror = await opened(house)
    said = says(2, 0, (0,))
    await stream.say(said)
    mirror.check(said, await stream.next(Actions))
    ended = says(3, 0, (0,), terminated=(0,), report_only=True)
    await stream.say(ended)
    await stream.next(StepTaken)
    await stream.next(Accepted)
    mirror.memory[0] |= {"last.reward": ended.rewards, "last.terminated": np.ones(1, bool)}
    begins = says(4, 1, (0,))
    known = dict(mirror.memory[0])
    await stream.say(begins)
    answer = await stream.next(Actions)
    given = portable.told(known, Input(begins.observations))
    parameters, _ = portable.forward_with_memory(mirror.policy.header, mirror.policy.weights, known, given)
    log_prob = portable.log_prob(parameters, answer.acted.raw_actions)
    assert answer.acted.log_probs[0] == pytest.approx(log_prob[0], abs=1e-5)
    await stream.leave()


async def test_a_row_that_remembers_as_much_as_in_training_is_held(house: House) -> None:
    """Trials of three episodes: of each row two are remembered, until its trial ends; a kill changes nothing."""
    stream, _ = await opened(house)
    sequence, taken = 1, []

    async def episode(**changes: Any) -> Observe:
        """Row 0 is in an episode; it ends, and the next begins."""
        nonlocal sequence
        sequence += 1
        said = says(sequence, len(taken), (0,), terminated=(0,), **changes)
        await stream.say(said)
        taken.append(await stream.next(StepTaken))
        await stream.next(Actions)
        return said

    sequence += 1
    await stream.say(says(sequence, 0, (0,)))
    await stream.next(Actions)
    for _ in range(4):
        await episode()
    assert [step.guarded for step in taken] == [False, False, True, True]
    assert len({step.state_hash for step in taken}) == 2
    assert [Policy.from_bytes(step.policy_file).header.adapts for step in taken] == [True, False, False, False]
    session = stream.session
    house = house.killed()
    stream = await house.resume(session, last_step=4)
    await stream.next(Opened)
    sequence += 1
    begins = says(sequence, 4, (0,))
    await stream.say(begins)
    await stream.next(Actions)
    await episode()
    assert (taken[-1].guarded, taken[-1].state_hash) == (True, taken[1].state_hash)
    # Another row is free to remember, and so is this one in its next trial.
    sequence += 1
    await stream.say(says(sequence, 5, (7,)))
    await stream.next(Actions)
    sequence += 1
    await stream.say(says(sequence, 5, (7,), terminated=(7,), report_only=True))
    taken.append(await stream.next(StepTaken))
    await stream.next(Accepted)
    assert not taken[-1].guarded
    await episode(trial_end=np.array([True]))
    await episode()
    assert [step.guarded for step in taken[-2:]] == [True, False], "the end of a trial remembers nothing"
    assert len({step.state_hash for step in taken[-4:]}) == 4
    await stream.leave()


@pytest.mark.parametrize(("most", "kept"), [(None, 3), (0, 0), (2, 2)])
def test_rooms_for_episodes(most: int | None, kept: int) -> None:
    rows = RowMemory(KeptRows(NO_ROWS, {"memory": np.zeros(3, np.float32)}, most))
    assert rows.held
    for n in range(3):
        assert rows.room(5, 10) == (10 if most is None else kept - min(n, kept))
        rows.report(observe(2 * n, 0, (5,)))
        rows.acted((5,), {"memory": np.full((1, 3), n + 1, np.float32)})
        rows.report(observe(2 * n + 1, 0, (5,), (5,), report_only=True))
    now = rows.settled()
    assert (now.ids.tolist(), now.remembered.tolist(), now.memory["memory"][0].tolist()) == ([5], [kept], [kept] * 3)
    assert rows.held == (kept == 0)
    rows.stepped()
    assert rows.held
    before = rows.saved(5)
    rows.settle(5, {"memory": np.full((1, 3), 9, np.float32)}, 2)
    assert not rows.held
    rows.restore(5, before)
    now = rows.settled()
    assert (rows.held, now.remembered.tolist(), now.memory["memory"][0].tolist()) == (True, [kept], [kept] * 3)
    before = rows.saved(0)
    rows.settle(0, {"memory": np.full((1, 3), 9, np.float32)}, 1)
    rows.restore(0, before)
    assert rows.settled().ids.tolist() == [5], "a row that there was not is none again"


async def test_empty_steps_are_refused(house: House) -> None:
    stream, _ = await opened(house)
    with pytest.raises(PreconditionFailed, match="no complete episode"):
        await stream.say(Advance(2))
    await stream.leave()


def test_rows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_memory, "MOST_ROWS", 2)
    rows = RowMemory(KeptRows(NO_ROWS, {"memory": np.zeros(3, np.float32)}))
    rows.report(observe(1, 0, (0, 1)))
    rows.acted((0, 1), {"memory": np.ones((2, 3), np.float32)})
    with pytest.raises(Exhausted, match="3 rows"):
        rows.report(observe(2, 0, (2,)))
    assert rows.settled().ids.shape == (0,)
    assert rows.settled().memory["memory"].shape == (0, 3)
