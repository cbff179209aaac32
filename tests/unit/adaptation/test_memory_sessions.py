"""Sessions of a method that remembers: an episode a step, one memory, and nobody who could tell how it was run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import drift
import numpy as np
import pytest
import torch
from drift import drain
from hub_support import House, open_simulated, whole

from innerloop import policy as portable
from innerloop.arrays import Array
from innerloop.policy import Input, Policy
from innerloop_server.actors.pool import ActorPool
from innerloop_server.adaptation import memory, residents, states
from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.inner_loop import RolloutNeed, memory_step
from innerloop_server.adaptation.orders import (
    Answer,
    Attached,
    Exported,
    ExportOrder,
    RevisionRef,
    RolledOut,
    RolloutOrder,
    StepOrder,
    Stepped,
)
from innerloop_server.adaptation.revisions import load
from innerloop_server.adaptation.rollout import draw, rollout
from innerloop_server.domain import Budget, LearnerSpec, Simulator
from innerloop_server.errors import InvalidField
from innerloop_server.learners.registry import build
from innerloop_server.tasks.sampling import stack_parameters

SETTINGS = drift.REMEMBERING | {"episodes_per_trial": 3}


@pytest.fixture(autouse=True, params=["gru", "transformer"])
def memory_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test twice; the transformer attends to less than an episode, so that its oldest steps make room."""
    if request.param == "transformer":
        changes = {"memory": "transformer", "memory_size": 12, "memory_heads": 3, "memory_span": drift.HORIZON - 2}
        for name, value in changes.items():
            monkeypatch.setitem(SETTINGS, name, value)


def spec(name: str = "drift-rl2") -> LearnerSpec:
    return replace(drift.spec(name), method="rl2", settings=SETTINGS)


def blank(policy: Policy) -> bool:
    """It starts from a memory that has seen nothing."""
    return not any(array.any() for name, array in policy.begin().items() if name.startswith("memory"))


@pytest.fixture
def ref(tmp_path: Path) -> RevisionRef:
    return drift.revision(tmp_path, spec())


def seated(core: EngineCore, key: int, ref: RevisionRef, speed: float = 0.2, **options: Any) -> Policy:
    core.submit(drift.attach(key, ref, drift.task(speed), **options))
    (answer,) = drain(core)
    assert isinstance(answer, Attached), answer
    return Policy.from_bytes(answer.policy)


def stepped(core: EngineCore, key: int, number: int, **options: Any) -> Stepped:
    core.submit(StepOrder(key, number, **options))
    (answer,) = drain(core)
    assert isinstance(answer, Stepped), answer
    return answer


def shown(step: Stepped) -> tuple[object, ...]:
    return step.state_hash, step.pre_return, step.episodes


def test_the_batch_is_the_plain_loop_of_the_portable_policy() -> None:
    """Rows that end early (the fast task leaves the field) keep what they ended with, and actions come out alike."""
    learner, family = build(spec()), drift.Drift()
    meta = learner.initial_meta(3)
    tasks, n = [drift.task(0.05), drift.task(0.9)], 3
    batch = family.batch(stack_parameters(tasks), torch.device("cpu"))
    state = memory.begin(learner, meta)
    state = memory.spread(states.stack([state, state]), n)
    header, weights = learner.export(meta, memory.own(state))
    policy = Policy(header, weights[0])
    mine = [[policy.begin() for _ in range(n)] for _ in tasks]
    for episode in range(3):  # the memory goes on from one to the next
        noise = draw(learner.spec, [5, 6], episode, 0, episodes=n, reset_uniforms=1)
        played = rollout(learner, meta, state, batch, noise)
        assert played.state is not None
        for b, task in enumerate(tasks):
            for row in range(n):
                env = family.make(task)
                env.reset(seed=0)
                env.unwrapped.state = float(noise.resets[b, row, 0]) - 0.5  # type: ignore[attr-defined]
                seen = np.float32([env.unwrapped.state])  # type: ignore[attr-defined]
                remembered: dict[str, Array] = mine[b][row]
                for t in range(drift.HORIZON):
                    given = portable.told(remembered, Input(seen[None]))
                    parameters, hidden = portable.forward_with_memory(header, policy.weights, remembered, given)
                    raw, log_prob = portable.sample(parameters, noise.actions[b, row, t][None])
                    assert played.experience.actions[b, row, t].numpy() == pytest.approx(raw[0], abs=1e-5)
                    assert played.experience.log_probs[b, row, t].item() == pytest.approx(log_prob[0], abs=1e-5)
                    after, reward, terminated, truncated, _ = env.step(portable.to_environment(header, raw)[0])
                    remembered = portable.acted(hidden, raw) | {
                        "last.reward": np.array([reward], np.float32),
                        "last.terminated": np.array([terminated]),
                        "last.truncated": np.array([truncated and not terminated]),
                    }
                    seen = np.asarray(after)
                    if terminated or truncated:
                        break
                assert played.experience.lengths[b, row] == t + 1
                mine[b][row] = remembered
                for name, array in remembered.items():
                    got = played.state[name][b, row].numpy()
                    np.testing.assert_allclose(got, array[0], atol=1e-5, err_msg=name)
        state = played.state
    assert int(played.experience.lengths[1].max()) < drift.HORIZON, "episodes that all run to the end prove little"


def test_a_step_is_an_episode_and_the_memory_goes_on(ref: RevisionRef) -> None:
    core = drift.core()
    assert blank(seated(core, 1, ref))
    steps = [stepped(core, 1, number, policy=True) for number in (1, 2, 3)]
    assert len({step.state_hash for step in steps}) == 3
    for number, step in enumerate(steps, 1):
        assert (step.episodes, step.post_return, step.guarded, step.rate_scale) == (1, None, False, 1.0)
        policy = Policy.from_bytes(step.policy)
        assert policy.header.adapts
        assert policy.header.steps == number
        state, _, guard, _ = states.unpack_snapshot(step.snapshot, torch.device("cpu"))
        assert not guard.enabled
        for name, array in policy.begin().items():
            np.testing.assert_array_equal(array, state[name][0].numpy(), err_msg=name)
        assert state["last.truncated"].item(), "the horizon ended it, and the next episode is told so"
        assert not state["last.trial_end"].item()


def test_the_guard_holds_what_training_made_the_learner_remember(ref: RevisionRef) -> None:
    """Trials of three episodes: a policy has learned what to do with the memory of two."""
    core, free = drift.core(), drift.core()
    seated(core, 1, ref, guard=True)
    seated(free, 1, ref)
    steps = [stepped(core, 1, number, policy=True) for number in (1, 2, 3, 4)]
    assert [step.guarded for step in steps] == [False, False, True, True]
    assert [step.state_hash for step in steps[:2]] == [stepped(free, 1, number).state_hash for number in (1, 2)]
    assert len({step.state_hash for step in steps[1:]}) == 1
    assert len({step.pre_return for step in steps}) == 4, "episodes are played all the same, each from its own streams"
    assert stepped(free, 1, 3).pre_return == steps[2].pre_return
    assert [Policy.from_bytes(step.policy).header.adapts for step in steps] == [True, False, False, False]
    # Where it came back, it is held too.
    fresh = drift.core()
    seated(fresh, 1, ref, guard=True, snapshot=steps[2].snapshot, number=3)
    assert shown(stepped(fresh, 1, 4)) == shown(steps[3])


def test_a_steps_episode_draws_from_the_streams_of_its_number(ref: RevisionRef) -> None:
    loaded = load(ref, torch.device("cpu"))
    resident = residents.resident_of(drift.attach(1, ref, drift.task(), number=4), loaded, torch.device("cpu"))
    need = next(memory_step(resident))
    assert isinstance(need, RolloutNeed)
    assert (need.counters, need.episodes, need.evaluation, need.greedy) == ((4, 0), 1, False, False)


def test_a_session_that_came_back_goes_on_bit_for_bit(ref: RevisionRef) -> None:
    core = drift.core()
    seated(core, 1, ref)
    through = [shown(stepped(core, 1, number)) for number in (1, 2, 3, 4)]
    other = drift.core()
    seated(other, 1, ref)
    again = [stepped(other, 1, 1)]
    for number in (2, 3, 4):
        fresh = drift.core()
        seated(fresh, 1, ref, snapshot=again[-1].snapshot, number=number - 1)
        again.append(stepped(fresh, 1, number))
    assert [shown(step) for step in again] == through


def test_company_changes_no_bit(ref: RevisionRef) -> None:
    def alone(key: int) -> list[tuple[object, ...]]:
        core = drift.core()
        seated(core, key, ref, 0.1 * key, seed=key)
        return [shown(stepped(core, key, number)) for number in (1, 2)]

    core = drift.core()
    for key in range(1, 8):
        seated(core, key, ref, 0.1 * key, seed=key)
    together: dict[int, list[tuple[object, ...]]] = {key: [] for key in range(1, 8)}
    for number in (1, 2):
        for key in together:
            core.submit(StepOrder(key, number))
        for answer in drain(core):
            assert isinstance(answer, Stepped)
            together[answer.key].append(shown(answer))
    occupancy = core.occupancy()
    assert occupancy.batched > 4 * occupancy.ticks
    assert together == {key: alone(key) for key in range(1, 8)}


def test_evaluation_looks_at_the_next_episode_and_keeps_nothing(ref: RevisionRef) -> None:
    core, undisturbed = drift.core(), drift.core()
    for one in (core, undisturbed):
        seated(one, 1, ref)
    assert shown(stepped(core, 1, 1)) == shown(stepped(undisturbed, 1, 1))
    core.submit(RolloutOrder(1, 5, k=1, greedy=True, trajectories=True))
    core.submit(RolloutOrder(1, 5, k=0, greedy=True, trajectories=True))
    one, two = drain(core)
    assert isinstance(one, RolledOut)
    assert isinstance(two, RolledOut)
    assert one.returns.shape == (5,)
    assert len(set(one.returns.tolist())) == 5
    core.submit(ExportOrder(1))
    (exported,) = drain(core)
    assert isinstance(exported, Exported)
    policy, experience = Policy.from_bytes(exported.policy), one.experience
    assert experience is not None
    action = policy.decide(experience.observations[0, :, 0], memory=policy.begin(5), greedy=True)
    np.testing.assert_allclose(action.raw, experience.actions[0, :, 0], atol=1e-5)
    blank = Policy(policy.header, {k: v for k, v in policy.weights.items() if not k.startswith("start.")})
    unaware = blank.decide(experience.observations[0, :, 0], memory=blank.begin(5), greedy=True)
    assert not np.allclose(unaware.raw, experience.actions[0, :, 0], atol=1e-3), "the memory must matter here"
    assert shown(stepped(core, 1, 2)) == shown(stepped(undisturbed, 1, 2))


def test_steps_that_are_scored_may_be_greedy(ref: RevisionRef) -> None:
    hashes = []
    for greedy in (False, True, True):
        core = drift.core()
        seated(core, 1, ref)
        hashes.append(stepped(core, 1, 1, greedy=greedy).state_hash)
    assert hashes[0] != hashes[1] == hashes[2]


@pytest.fixture(scope="module")
def pools() -> Iterator[list[ActorPool]]:
    pools = [ActorPool(actors, slots, drift.SOURCE) for actors, slots in ((1, 2), (2, 8))]
    yield pools
    for pool in pools:
        pool.close()


def test_actors_carry_the_memory_however_many_they_are(ref: RevisionRef, pools: list[ActorPool]) -> None:
    def drained(core: EngineCore, wanted: int) -> list[Answer]:
        answers: list[Answer] = []
        while len(answers) < wanted:
            answers += core.run()
        return answers

    seen = []
    for pool in pools:
        core = drift.core(actors=pool)
        for key in (1, 2):
            core.submit(drift.attach(key, ref, drift.task(0.1 * key), seed=key, simulator=Simulator.ACTORS))
        drained(core, 2)
        rounds: list[Any] = []
        for number in (1, 2):
            for key in (1, 2):
                core.submit(StepOrder(key, number))
                core.submit(RolloutOrder(key, 3, k=number))
            answers = drained(core, 4)
            taken = {a.key: a for a in answers if isinstance(a, Stepped)}
            rounds.append([shown(taken[key]) for key in (1, 2)])
            rounds.append(sorted((a.key, *a.returns.tolist()) for a in answers if isinstance(a, RolledOut)))
        seen.append(rounds)
    assert seen[0] == seen[1]
    state, _, _, _ = states.unpack_snapshot(taken[1].snapshot, torch.device("cpu"))
    assert {value.shape[:2] for value in state.values()} == {(1, 1)}
    assert state["last.truncated"].item()
    assert len({hashed for rounds in seen for step in rounds[::2] for hashed, *_ in step}) == 4


async def test_a_session_from_open_to_policy(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    house.store.put_learner(spec())
    house.store.add_revision("drift-rl2", drift.weights(spec()), {})
    house.store.promote("drift-rl2", 1)
    opening = open_simulated(learner="drift-rl2", guard=None, budget=Budget(steps=3))
    steps, adapted = await whole(house, opening)
    assert [step.episodes for step in steps] == [1, 1, 1]
    assert steps[-1].total_episodes == 3
    assert [step.guarded for step in steps] == [False, False, True]
    assert adapted.policy.header["adapts"] is False
    free, on = await whole(house, replace(opening, request_id="free", guard=False))
    assert [step.guarded for step in free] == [False] * 3
    assert on.policy.header["adapts"] is True
    with pytest.raises(InvalidField) as refused:
        await house.open(replace(opening, episodes_per_step=2))
    assert refused.value.field == "open.episodes_per_step"
    # Left after the first step and resumed after a restart: the same steps.
    stream = await house.open(replace(opening, request_id="again"))
    session = stream.session
    await stream.leave()
    house = house.killed()
    stream = await house.resume(session)
    rest = await stream.rest()
    await stream.leave()
    hashes = [message.state_hash for message in rest if hasattr(message, "state_hash")]
    assert hashes == [step.state_hash for step in steps]


def test_what_a_memory_is_made_of() -> None:
    """The names and dtypes of a session's state are those of the portable policy's memory."""
    learner = build(spec())
    state = memory.begin(learner, learner.initial_meta(0))
    header, _ = learner.export(learner.initial_meta(0), memory.own(state))
    blank = portable.begin(header, 1)
    assert set(blank) == set(state)
    for name, array in blank.items():
        np.testing.assert_array_equal(array, state[name][0].numpy(), err_msg=name)
        assert array.dtype == state[name].numpy().dtype
    assert [field.name for field in fields(Input)][1:] == [
        "previous_action",
        "reward",
        "terminated",
        "truncated",
        "trial_end",
    ]
