"""The engine's core: seats, orders, batches, and who suffers when something fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import drift
import numpy as np
import pytest
import torch
from drift import drain

from innerloop.policy import Policy, forward, log_prob
from innerloop_server.adaptation import core as core_module
from innerloop_server.adaptation import states
from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.orders import (
    Acted,
    ActOrder,
    AdaptOrder,
    Answer,
    Attached,
    Detach,
    Exported,
    ExportOrder,
    Failed,
    RevisionRef,
    RolledOut,
    RolloutOrder,
    StepOrder,
    Stepped,
)
from innerloop_server.domain import Experience, Simulator


@pytest.fixture
def ref(tmp_path: Path) -> RevisionRef:
    return drift.revision(tmp_path)


def stepped(core: EngineCore, key: int, number: int, **options: Any) -> Stepped:
    core.submit(StepOrder(key, number, **options))
    (answer,) = drain(core)
    assert isinstance(answer, Stepped), answer
    return answer


def seated(core: EngineCore, key: int, ref: RevisionRef, *args: Any, **options: Any) -> Attached:
    core.submit(drift.attach(key, ref, *args, **options))
    (answer,) = drain(core)
    assert isinstance(answer, Attached), answer
    return answer


def shown(answer: Stepped) -> tuple[object, ...]:
    return (answer.state_hash, answer.pre_return, answer.post_return, answer.guarded, answer.rate_scale)


def played(n: int = 3, t: int = 4, *, known: bool = True, reward: float = 0.1) -> Experience[np.ndarray]:
    """What a client's environment did: N episodes of one task."""
    rng = np.random.default_rng(1)
    return Experience(
        observations=rng.standard_normal((1, n, t, 1)).astype(np.float32),
        actions=rng.standard_normal((1, n, t, 1)).astype(np.float32),
        rewards=np.full((1, n, t), reward, np.float32) * rng.standard_normal((1, n, t)).astype(np.float32),
        log_probs=np.full((1, n, t), -1.0 if known else np.nan, np.float32),
        lengths=np.full((1, n), t),
        bootstrap=np.zeros((1, n), bool),
        final_observations=np.zeros((1, n, 1), np.float32),
        time_offset=np.zeros((1, n), np.int64),
        feedback=np.zeros((1, n, t, 0), np.float32),
        success=np.zeros((1, n), bool),
    )


def adapted(core: EngineCore, key: int, number: int, experience: Experience[np.ndarray], *returns: float) -> Answer:
    core.submit(AdaptOrder(key, number, experience, np.array(returns)))
    (answer,) = drain(core)
    return answer


def test_a_full_device_says_so_and_frees_at_once(ref: RevisionRef) -> None:
    core = drift.core(device_rows=2)
    seated(core, 1, ref, drift.task())
    seated(core, 2, ref, drift.task())
    core.submit(drift.attach(3, ref, drift.task()))
    (answer,) = drain(core)
    assert isinstance(answer, Failed)
    assert (answer.key, answer.reason) == (3, "EXHAUSTED")
    assert core.occupancy().device_rows == 2
    core.submit(Detach(1))
    assert core.occupancy().device_rows == 1
    seated(core, 3, ref, drift.task())


def test_unknown_keys_and_steps_out_of_order(ref: RevisionRef) -> None:
    core = drift.core()
    core.submit(StepOrder(9, 1))
    core.submit(Detach(9))  # nothing to forget, nothing to say
    seated_answers = drain(core)
    assert [(a.key, a.reason) for a in seated_answers if isinstance(a, Failed)] == [(9, "UNAVAILABLE")]
    seated(core, 1, ref, drift.task())
    core.submit(StepOrder(1, 2))
    core.submit(StepOrder(1, 1))
    wrong, right = drain(core)
    assert isinstance(wrong, Failed)
    assert wrong.reason == "FAILED_PRECONDITION"
    assert isinstance(right, Stepped)
    assert right.number == 1


def test_a_revision_that_is_not_what_its_hash_says(ref: RevisionRef) -> None:
    core = drift.core()
    Path(ref.path).write_bytes(b"something else")
    core.submit(drift.attach(1, ref, drift.task()))
    core.submit(drift.attach(2, replace(ref, path=ref.path + "-gone"), drift.task()))
    core.submit(drift.attach(3, ref, drift.task(), snapshot=b"nonsense"))
    assert [a.reason for a in drain(core) if isinstance(a, Failed)] == ["DATA_LOSS"] * 3
    assert core.occupancy().device_rows == 0


def test_orders_of_a_key_are_answered_in_order(ref: RevisionRef) -> None:
    core = drift.core()
    seated(core, 1, ref, drift.task())
    core.submit(StepOrder(1, 1))
    core.submit(ExportOrder(1))
    core.submit(RolloutOrder(1, 2, k=1))
    core.submit(StepOrder(1, 2))
    core.submit(ExportOrder(1))
    answers = drain(core)
    assert [type(a) for a in answers] == [Stepped, Exported, RolledOut, Stepped, Exported]
    assert [a.steps for a in answers if isinstance(a, Exported)] == [1, 2]


def test_detaching_at_any_moment_leaves_nothing_and_a_snapshot_goes_on(ref: RevisionRef) -> None:
    """The snapshot of step 2, taken up again after 0, 1, 2, ... batches of step 3, gives the same steps 3 and 4."""
    core = drift.core()
    options = {"guard": True, "seed": 11}
    seated(core, 1, ref, drift.task(0.3), **options)
    whole = [stepped(core, 1, number) for number in (1, 2, 3, 4)]
    for batches in range(5):
        core = drift.core()
        key = 10
        seated(core, key, ref, drift.task(0.3), **options, snapshot=whole[1].snapshot, number=2)
        core.submit(StepOrder(key, 3))
        for _ in range(batches):
            core.run()
        core.submit(Detach(key))
        assert drain(core) == []
        occupancy = core.occupancy()
        assert (occupancy.device_rows, occupancy.pending, occupancy.actor_slots) == (0, 0, 0)
        seated(core, key + 1, ref, drift.task(0.3), **options, snapshot=whole[1].snapshot, number=2)
        again = [stepped(core, key + 1, number) for number in (3, 4)]
        assert [shown(a) for a in again] == [shown(a) for a in whole[2:]]


def test_a_snapshot_after_a_guarded_step_goes_on_alike(tmp_path: Path) -> None:
    """A huge rate makes every update fall; the session goes back, halves and samples afresh, attached or not."""
    ref = drift.revision(tmp_path, drift.spec(initial_rate=30.0))
    core = drift.core()
    options = {"guard": True, "seed": 3, "episodes_per_step": 4}
    seated(core, 1, ref, drift.task(0.2), **options)
    whole = [stepped(core, 1, number) for number in range(1, 7)]
    assert any(step.guarded for step in whole)
    for cut, step in enumerate(whole[:-1], start=1):
        seated(core, 10 + cut, ref, drift.task(0.2), **options, snapshot=step.snapshot, number=cut)
        assert shown(stepped(core, 10 + cut, cut + 1)) == shown(whole[cut])


def test_guard_off_and_on(tmp_path: Path) -> None:
    ref = drift.revision(tmp_path, drift.spec(initial_rate=30.0))
    core = drift.core()
    for key, guard in ((1, False), (2, True)):
        seated(core, key, ref, drift.task(0.2), guard=guard, seed=3, episodes_per_step=4)
    for number in range(1, 6):
        off, on = stepped(core, 1, number), stepped(core, 2, number)
        assert (off.guarded, off.rate_scale) == (False, 1.0)
        assert on.rate_scale in (1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125)
        if on.guarded:
            assert on.post_return is not None
            assert on.post_return < on.pre_return
            break
    else:
        pytest.fail("nothing fell")
    assert on.rate_scale == 0.5
    assert off.state_hash != on.state_hash


def test_a_failing_task_hurts_its_own_session_alone(ref: RevisionRef) -> None:
    alone = drift.core()
    seated(alone, 1, ref, drift.task(0.1))
    expected = stepped(alone, 1, 1)
    core = drift.core()
    for key, fault in ((1, 0), (2, drift.RAISES), (3, 0)):
        seated(core, key, ref, drift.task(0.1, fault))
    for key in (1, 2, 3):
        core.submit(StepOrder(key, 1))
    answers = {answer.key: answer for answer in drain(core)}
    failed = answers[2]
    assert isinstance(failed, Failed)
    assert failed.reason == "INTERNAL"
    assert "the motor is on fire" in failed.message
    for key in (1, 3):
        good = answers[key]
        assert isinstance(good, Stepped)
        assert shown(good) == shown(expected)
    core.submit(ExportOrder(2))  # it stays resident
    assert [type(a) for a in drain(core)] == [Exported]


def exported(core: EngineCore, key: int) -> tuple[int, str]:
    core.submit(ExportOrder(key))
    (answer,) = drain(core)
    assert isinstance(answer, Exported)
    return answer.steps, Policy.from_bytes(answer.policy).header.hash


def test_an_update_that_diverges_leaves_the_state_as_it_was(ref: RevisionRef) -> None:
    core = drift.core()
    seated(core, 1, ref, drift.task(0.1, drift.DIVERGES))
    seated(core, 2, ref, drift.task(0.1))
    before = exported(core, 1)
    for key in (1, 2):
        core.submit(StepOrder(key, 1))
    answers = {answer.key: answer for answer in drain(core)}
    failed = answers[1]
    assert isinstance(failed, Failed)
    assert failed.reason == "DIVERGED"
    assert exported(core, 1) == before
    assert isinstance(answers[2], Stepped)


def test_a_clients_update_that_diverges(tmp_path: Path) -> None:
    core = drift.core()
    seated(core, 1, drift.revision(tmp_path, drift.spec(initial_rate=1e38)))
    for number in range(1, 10):
        before = exported(core, 1)
        answer = adapted(core, 1, number, played(), 1.0, 2.0, 3.0)
        if isinstance(answer, Failed):
            break
    else:
        pytest.fail("it never diverged")
    assert answer.reason == "DIVERGED"
    assert exported(core, 1) == before


def test_a_client_acts_and_adapts(ref: RevisionRef) -> None:
    core = drift.core()
    seated(core, 1, ref)
    rows = np.array([[0.1], [0.2], [0.1]], np.float32)
    for counters in ((2,), (2,), (3,)):
        core.submit(ActOrder(1, rows, counters))
    first, again, other = drain(core)
    assert isinstance(first, Acted)
    assert isinstance(again, Acted)
    assert isinstance(other, Acted)
    np.testing.assert_array_equal(first.raw_actions, again.raw_actions)
    assert not np.any(first.raw_actions == other.raw_actions)
    assert first.raw_actions[0] != first.raw_actions[2]  # rows draw by themselves
    np.testing.assert_array_equal(first.actions, np.clip(first.raw_actions, -1, 1))
    answer = adapted(core, 1, 1, played(), -1.0, -2.0, -3.0)
    assert isinstance(answer, Stepped)
    assert (answer.pre_return, answer.post_return, answer.episodes, answer.guarded) == (-2.0, None, 3, False)


def test_log_probabilities_that_are_missing_are_those_of_the_present_state(ref: RevisionRef) -> None:
    core = drift.core()
    experience = played(known=False)
    seated(core, 1, ref)
    policy = Policy.from_bytes(seated(core, 2, ref).policy)
    parameters = forward(policy.header, policy.weights, experience.observations)
    known = replace(experience, log_probs=log_prob(parameters, experience.actions))
    unknown = adapted(core, 1, 1, experience, 1.0, 1.0, 1.0)
    told = adapted(core, 2, 1, known, 1.0, 1.0, 1.0)
    assert isinstance(unknown, Stepped)
    assert isinstance(told, Stepped)
    a, b = (states.unpack_snapshot(answer.snapshot, torch.device("cpu"))[0] for answer in (unknown, told))
    assert all(torch.allclose(a[name], b[name], rtol=1e-5, atol=1e-7) for name in a)
    seated(core, 3, ref)
    other = adapted(core, 3, 1, played(known=True), 1.0, 1.0, 1.0)  # log-probabilities of another policy
    assert isinstance(other, Stepped)
    assert other.state_hash not in (unknown.state_hash, told.state_hash)


def test_a_clients_fall_goes_back_to_the_best_state(ref: RevisionRef) -> None:
    core = drift.core()
    start = Policy.from_bytes(seated(core, 1, ref, guard=True).policy).header.hash
    first = adapted(core, 1, 1, played(), -1.0, -1.0, -1.0)
    assert isinstance(first, Stepped)
    for key, at, number in ((1, b"", 0), (2, first.snapshot, 1)):  # attached all along, and come back from disk
        if at:
            seated(core, key, ref, guard=True, snapshot=at, number=number)
        fallen = adapted(core, key, 2, played(), -9.0, -9.0, -9.0)
        assert isinstance(fallen, Stepped)
        assert (fallen.guarded, fallen.rate_scale) == (True, 0.5)
        assert exported(core, key) == (2, start)


def test_evaluation_moves_nothing(ref: RevisionRef) -> None:
    plain, watched = drift.core(), drift.core()
    for core in (plain, watched):
        seated(core, 1, ref, drift.task())
    hashes = []
    for number in (1, 2):
        watched.submit(RolloutOrder(1, 5, k=number - 1, trajectories=True))
        (rolled,) = drain(watched)
        assert isinstance(rolled, RolledOut)
        assert rolled.experience is not None
        np.testing.assert_allclose(rolled.experience.rewards.sum(-1)[0], rolled.returns, rtol=1e-6)
        hashes.append((stepped(plain, 1, number).state_hash, stepped(watched, 1, number).state_hash))
    assert all(a == b for a, b in hashes)


def test_actions_come_before_steps(ref: RevisionRef) -> None:
    core = drift.core()
    seated(core, 1, ref, drift.task())
    seated(core, 2, ref)
    core.submit(StepOrder(1, 1))
    core.run()
    core.submit(ActOrder(2, np.zeros((1, 1), np.float32), (2,)))
    assert [type(a) for a in core.run()] == [Acted]


def test_simulators_share_no_batch(ref: RevisionRef) -> None:
    """There are no actors here: the session that asked for them fails, the other must not run on them."""
    core = drift.core()
    seated(core, 1, ref, drift.task(), simulator=Simulator.ACTORS)
    seated(core, 2, ref, drift.task())
    core.submit(StepOrder(2, 1))
    core.submit(StepOrder(1, 1))
    answers = {answer.key: answer for answer in drain(core)}
    failed = answers[1]
    assert isinstance(failed, Failed)
    assert failed.reason == "EXHAUSTED"
    assert isinstance(answers[2], Stepped)


def test_batching_serves_many_at_once_and_one_by_one_alike(ref: RevisionRef) -> None:
    results = []
    for batching in (True, False):
        core = drift.core(batching=batching)
        for key in range(8):
            seated(core, key, ref, drift.task(0.1 * key), seed=key)
        for key in range(8):
            core.submit(StepOrder(key, 1))
        results.append({answer.key: shown(answer) for answer in drain(core) if isinstance(answer, Stepped)})
        occupancy = core.occupancy()
        assert occupancy.batched == 24
        assert occupancy.ticks == (3 if batching else 24)
    assert results[0] == results[1]
    assert len(results[0]) == 8


def test_learners_of_the_same_weights_stay_who_they_are(tmp_path: Path) -> None:
    one = drift.revision(tmp_path, drift.spec())
    spec = drift.spec("another", initial_rate=0.4)
    other = replace(one, name="learners/another/revisions/1", spec=spec)
    core, alone, hashes = drift.core(), drift.core(), []
    for key, ref in ((1, one), (2, other)):
        core.submit(drift.attach(key, ref, drift.task()))
        core.submit(StepOrder(key, 1))
    alone.submit(drift.attach(2, other, drift.task()))
    alone.submit(StepOrder(2, 1))
    for answer in (*drain(core), *drain(alone)):
        if isinstance(answer, Attached):
            assert Policy.from_bytes(answer.policy).header.learner == {1: "drift-maml", 2: "another"}[answer.key]
        else:
            assert isinstance(answer, Stepped)
            hashes.append((answer.key, answer.state_hash))
    assert len(set(hashes)) == 2, "each adapts by its own settings, whoever keeps it company"


def test_idle_revisions_leave_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_module, "IDLE_REVISIONS", 2)
    core = drift.core()
    used = drift.revision(tmp_path, drift.spec("used", hidden_sizes=[2]))
    seated(core, 1, used)
    for n in range(3, 8):
        seated(core, n, drift.revision(tmp_path, drift.spec(f"l{n}", hidden_sizes=[n])))
        core.submit(Detach(n))
    held = core._revisions
    assert used.key in held
    assert len(held) <= 4


def test_a_policy_file_comes_where_it_is_asked_for(ref: RevisionRef) -> None:
    core = drift.core()
    seated(core, 1, ref, drift.task())
    assert stepped(core, 1, 1).policy == b""
    policy = Policy.from_bytes(stepped(core, 1, 2, policy=True).policy)
    assert (policy.header.steps, policy.header.family, policy.header.revision) == (2, "drift", ref.name)
    light = stepped(core, 1, 3, snapshot=False)
    assert (light.snapshot, light.state_hash) == (b"", "")


def test_seconds_are_shared_out(ref: RevisionRef, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1_000))
    monkeypatch.setattr(core_module.time, "perf_counter", lambda: float(next(clock)))
    core = drift.core()
    for key in range(4):
        seated(core, key, ref, drift.task())
    for key in range(4):
        core.submit(StepOrder(key, 1))
    answers = drain(core)
    assert [a.seconds for a in answers if isinstance(a, Stepped)] == [0.75] * 4  # three batches of a second, by four
