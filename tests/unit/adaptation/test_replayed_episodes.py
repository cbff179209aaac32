"""Whole episodes for rows that remember: shown to row 0, they leave what having acted would have left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import drift
import numpy as np
import pytest
import torch
from hub_support import House, Stream, observe, open_owned

from innerloop import policy as portable
from innerloop.policy import Input, Policy
from innerloop_server.adaptation import memory, replay
from innerloop_server.adaptation.guard import Guard
from innerloop_server.adaptation.inner_loop import LoadedRevision, ReplayNeed, Resident
from innerloop_server.adaptation.messages import Actions, Adapted, Finish, Opened, StepTaken, Trajectories
from innerloop_server.adaptation.orders import ReplayOrder, RevisionRef
from innerloop_server.adaptation.rollout import draw, rollout
from innerloop_server.domain import LearnerSpec, Split
from innerloop_server.errors import PreconditionFailed, Unavailable
from innerloop_server.learners.registry import build
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task, stack_parameters
from innerloop_server.training.specs import spec_for

SETTINGS = drift.REMEMBERING | {"episodes_per_trial": 4}


def spec() -> LearnerSpec:
    return replace(drift.spec("drift-rl2"), method="rl2", settings=SETTINGS)


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path / "house")
    house.store.put_learner(spec())
    house.store.add_revision("drift-rl2", drift.weights(spec()), {})
    house.store.promote("drift-rl2", 1)
    return house


async def opened(house: House, **changes: Any) -> Stream:
    stream = await house.open(open_owned(learner="drift-rl2", guard=None, **changes))
    await stream.next(Opened)
    return stream


async def acted(stream: Stream, ends: Sequence[str]) -> tuple[list[dict[str, Any]], list[StepTaken]]:
    """Row 0 through one message a step, the last of each episode in ``ends``; what it did, and its steps."""
    episodes: list[dict[str, Any]] = [{"observations": [], "actions": [], "rewards": []}]
    steps: list[StepTaken] = []
    for sequence, end in enumerate(("first", *ends), start=2):
        rng = np.random.default_rng(sequence)
        said = observe(sequence, len(steps), observations=rng.standard_normal((1, 1)).astype(np.float32))
        said = replace(said, rewards=rng.standard_normal(1).astype(np.float32))
        said = replace(said, terminated=np.array([end == "ended"]), truncated=np.array([end == "cut"]))
        await stream.say(said)
        if end != "first":
            episodes[-1]["rewards"].append(said.rewards[0])
        if end in ("ended", "cut"):
            steps.append(await stream.next(StepTaken))
            episodes[-1]["truncated"] = end == "cut"
            episodes.append({"observations": [], "actions": [], "rewards": []})
        answer = await stream.next(Actions)
        episodes[-1]["observations"].append(said.observations[0])
        episodes[-1]["actions"].append(answer.acted.raw_actions[0])
    return episodes[:-1], steps


def told(sequence: int, step: int, episodes: Sequence[dict[str, Any]]) -> Trajectories:
    longest = max(len(one["rewards"]) for one in episodes)

    def padded(name: str) -> Any:
        arrays = [np.array(one[name], np.float32) for one in episodes]
        return np.stack([np.pad(a, [(0, longest - len(a)), *[(0, 0)] * (a.ndim - 1)]) for a in arrays])

    return Trajectories(
        sequence=sequence,
        step=step,
        observations=padded("observations"),
        raw_actions=padded("actions"),
        rewards=padded("rewards"),
        lengths=np.array([len(one["rewards"]) for one in episodes]),
        truncated=np.array([one["truncated"] for one in episodes]),
        final_observations=np.zeros((len(episodes), 1), np.float32),
        log_probs=None,
    )


ENDS = ("", "", "ended", "", "cut", "", "", "", "ended")
"""Episodes of three, two and four steps."""


async def test_what_is_shown_is_remembered_as_what_was_done(house: House) -> None:
    stream = await opened(house)
    episodes, steps = await acted(stream, ENDS)
    await stream.leave()
    assert len({step.state_hash for step in steps}) == 3
    one_by_one = await opened(house)
    for number, episode in enumerate(episodes):
        await one_by_one.say(told(2 + number, number, [episode]))
        step = await one_by_one.next(StepTaken)
        assert step.state_hash == steps[number].state_hash
        assert step.pre_return == pytest.approx(steps[number].pre_return)
        assert step.metrics["entropy"] == pytest.approx(steps[number].metrics["entropy"])
    await one_by_one.leave()
    together = await opened(house)
    await together.say(told(2, 0, episodes))
    step = await together.next(StepTaken)
    assert (step.number, step.episodes) == (1, 3)
    assert step.state_hash == steps[-1].state_hash
    await together.say(Finish(3))
    assert (await together.next(Adapted)).policy.header["adapts"] is False
    await together.leave()


async def test_what_may_not_be_remembered_is_shown_as_the_first_that_is_not(house: House) -> None:
    """Trials of two episodes: of three, one is remembered, and the others are looked at from there."""
    free = await opened(house)
    episodes, _ = await acted(free, ENDS)
    await free.leave()
    house.store.put_learner(replace(spec(), name="drift-short", settings=SETTINGS | {"episodes_per_trial": 2}))
    house.store.add_revision("drift-short", drift.weights(spec()), {})
    house.store.promote("drift-short", 1)

    async def shown(order: Sequence[Sequence[int]]) -> list[StepTaken]:
        stream = await house.open(open_owned(learner="drift-short", guard=None))
        await stream.next(Opened)
        steps = []
        for number, which in enumerate(order):
            await stream.say(told(2 + number, number, [episodes[i] for i in which]))
            steps.append(await stream.next(StepTaken))
        await stream.leave()
        return steps

    one, second, third = await shown([[0], [1], [2]])
    (together,) = await shown([[0, 1, 2]])
    first, rest = await shown([[0], [2, 1]])
    assert [step.guarded for step in (one, second, third, together, first, rest)] == [
        False,
        True,
        True,
        False,
        False,
        True,
    ]
    assert len({step.state_hash for step in (one, second, third, together, first, rest)}) == 1
    lengths = [len(one["rewards"]) for one in episodes]
    of_each = [step.metrics["entropy"] for step in (one, second, third)]
    assert together.metrics["entropy"] == pytest.approx(np.average(of_each, weights=lengths))
    assert rest.metrics["entropy"] == pytest.approx(np.average(of_each[1:], weights=lengths[1:]))


async def test_a_killed_server_goes_on_from_what_was_shown(house: House) -> None:
    stream = await opened(house)
    episodes, steps = await acted(stream, ENDS)
    await stream.leave()
    stream = await opened(house)
    session = stream.session
    await stream.say(told(2, 0, episodes[:2]))
    await stream.next(StepTaken)
    house = house.killed()
    stream = await house.resume(session, last_step=1)
    await stream.next(Opened)
    await stream.say(told(2, 0, episodes[:2]))  # its answer may have been lost: it counts once
    assert (await stream.next(StepTaken)).number == 1
    await stream.say(told(3, 1, episodes[2:]))
    assert (await stream.next(StepTaken)).state_hash == steps[-1].state_hash
    await stream.leave()


async def test_what_failed_is_sent_again_and_counts_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = await opened(house)
    episodes, steps = await acted(stream, ENDS)
    await stream.leave()
    stream = await opened(house)
    keep = house.engine.keep

    async def away(_: Any) -> Any:
        raise Unavailable("the engine is restarting")

    monkeypatch.setattr(house.engine, "keep", away)
    with pytest.raises(Unavailable):
        await stream.say(told(2, 0, episodes[:2]))
    monkeypatch.setattr(house.engine, "keep", keep)
    await stream.say(told(2, 0, episodes[:2]))
    step = await stream.next(StepTaken)
    assert (step.episodes, step.state_hash) == (2, steps[1].state_hash)
    await stream.leave()


async def test_an_episode_that_is_under_way_comes_first(house: House) -> None:
    stream = await opened(house)
    await stream.say(observe(2, 0))
    await stream.next(Actions)
    episode = {"observations": [[0.0]], "actions": [[0.0]], "rewards": [1.0], "truncated": False}
    with pytest.raises(PreconditionFailed, match="end it with observe") as refused:
        await stream.say(told(3, 0, [episode]))
    assert refused.value.reason == "ROW_OPEN"
    await stream.leave()


def gridnavi() -> tuple[Any, Any, Any, Any]:
    """(learner, its weights, what it played in six rows of two tasks, noise) on the family's batch face."""
    family = load_registry().get("gridnavi")
    learner = build(replace(spec_for(family), method="rl2", settings={**SETTINGS, "memory_size": 8}))
    meta = learner.initial_meta(3)
    tasks = [sample_task(family, 0, Split.TEST, index) for index in range(2)]
    batch = family.batch(stack_parameters(tasks), torch.device("cpu"))
    one = memory.begin(learner, meta)
    state = memory.spread({name: torch.cat([value, value]) for name, value in one.items()}, 3)
    noise = draw(learner.spec, [5, 6], 0, 0, episodes=3, reset_uniforms=batch.reset_uniforms)
    return learner, meta, state, rollout(learner, meta, state, batch, noise)


def test_the_entropy_is_the_policys_over_the_steps_that_were_played() -> None:
    learner, meta, state, played = gridnavi()
    header, weights = learner.export(meta, memory.own(state))
    policy = Policy(header, weights[0])
    for b, row in ((0, 1), (1, 2)):
        remembered, entropies = policy.begin(), []
        for t in range(int(played.experience.lengths[b, row])):
            seen = portable.told(remembered, Input(played.experience.observations[b, row, t].numpy()[None]))
            parameters, hidden = portable.forward_with_memory(header, policy.weights, remembered, seen)
            logits = parameters["logits"][0].astype(np.float64)
            chances = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            entropies.append(-(chances * np.log(chances)).sum())
            raw = played.experience.actions[b, row, t].numpy()[None]
            remembered = portable.acted(hidden, raw) | {
                "last.reward": played.experience.rewards[b, row, t].numpy()[None]
            }
        assert len(set(np.round(entropies, 4))) > 1, "a constant would prove little"
        assert float(played.entropies[b, row]) == pytest.approx(np.mean(entropies), abs=1e-5)


def test_a_replay_is_the_rollout_again_to_the_bit_in_any_company() -> None:
    learner, meta, state, played = gridnavi()
    ref = RevisionRef("learners/x/revisions/1", "x", "", learner.spec)
    resident = Resident(LoadedRevision(ref, learner, meta), 0, 1, None, None, state, state, Guard(enabled=False), 0)
    needs = []
    for b in range(2):
        for row in range(3):
            fields = vars(played.experience).items()
            experience = replace(played.experience, **{name: value[b : b + 1, row : row + 1] for name, value in fields})
            before = {name: value[b : b + 1, row : row + 1] for name, value in state.items()}
            needs.append(ReplayNeed(resident, before, experience, torch.ones(1, 1, dtype=torch.bool)))
    together = replay.replay(needs)
    for i, need in enumerate(needs):
        (alone,) = replay.replay([need])
        b, row = divmod(i, 3)
        assert together[i].entropies.tobytes() == alone.entropies.tobytes()
        assert together[i].entropies[0] == played.entropies[b, row].item()
        for name, value in played.state.items():
            assert torch.equal(together[i].state[name], value[b : b + 1, row : row + 1]), name
            assert torch.equal(alone.state[name], value[b : b + 1, row : row + 1]), name


def test_an_order_says_all_that_a_need_holds() -> None:
    learner, meta, state, _ = gridnavi()
    ref = RevisionRef("learners/x/revisions/1", "x", "", learner.spec)
    resident = Resident(LoadedRevision(ref, learner, meta), 0, 1, None, None, state, state, Guard(enabled=False), 0)
    rows = {name: value[0, :1].numpy() for name, value in state.items()}
    order = ReplayOrder(
        key=1,
        memory=rows,
        observations=np.zeros((2, 4, 2), np.float32),
        actions=np.zeros((2, 4), np.int64),
        rewards=np.ones((2, 4), np.float32),
        lengths=np.array([4, 1]),
        truncated=np.array([False, True]),
    )
    (shown,) = replay.replay([replay.need_of(order, resident, torch.device("cpu"))])
    assert shown.entropies.shape == (2,)
    assert shown.state["last.truncated"].item()
    assert not shown.state["last.terminated"].item()
