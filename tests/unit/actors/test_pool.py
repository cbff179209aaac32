"""The pool with real actors. Who runs a row, with whom and when changes no bit of the answer."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_families as toy

from innerloop import policy
from innerloop.policy import weight_shapes
from innerloop_server.actors.acting import decide, stack
from innerloop_server.actors.orders import Answer, EpisodesFailure, EpisodesOrder, EpisodesResult
from innerloop_server.actors.pool import ActorPool
from innerloop_server.errors import Exhausted, Unavailable
from innerloop_server.streams import Purpose, derive, stream


@pytest.fixture(scope="module")
def gate_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("gate")
        patch.setenv("TOY_GATE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def pool(gate_folder: Path) -> Iterator[ActorPool]:
    """Two actors that most tests share."""
    with ActorPool(actors=2, slots=64, family_source=toy.SOURCE) as pool:
        yield pool


def assert_same(a: Answer, b: Answer) -> None:
    assert isinstance(a, EpisodesResult), a
    assert isinstance(b, EpisodesResult), b
    for field in fields(a.experience):
        one, two = getattr(a.experience, field.name), getattr(b.experience, field.name)
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two, err_msg=field.name)
    np.testing.assert_array_equal(a.returns, b.returns)
    assert a.env_steps == b.env_steps


def by_hand(order: EpisodesOrder, row: int) -> dict[str, np.ndarray]:
    """One episode in a plain loop, from the streams that the order's docstring promises."""
    env = toy.Walk(float(order.parameters["drift"]))
    observation, _ = env.reset(seed=derive(order.seed, Purpose.RESET, order.step, order.phase, row))
    rng = stream(order.seed, Purpose.ACTION, order.step, order.phase, row)
    steps = []
    for _ in range(order.horizon):
        noise = policy.draw_noise(order.header.action_space, rng, (1,))
        (choice,) = decide(order.header, stack([order.weights]), [observation[None]], [noise])
        after, reward, terminated, _, _ = env.step(choice.environment[0])
        steps.append((observation, choice.raw[0], np.float32(reward), choice.log_prob[0]))
        observation = after
        if terminated:
            break
    names = ("observations", "actions", "rewards", "log_probs")
    return {name: np.stack([step[i] for step in steps]) for i, name in enumerate(names)} | {"final": observation}


@pytest.mark.parametrize("family", ["walk", "coin-walk"])
def test_answer_is_the_plain_loop_row_by_row(pool: ActorPool, family: str) -> None:
    order = toy.order(3, family)
    pool.submit(order)
    answer = toy.settle(pool, 1)[3]
    assert isinstance(answer, EpisodesResult)
    experience = answer.experience
    for row in range(order.episodes):
        plain = by_hand(order, row)
        np.testing.assert_array_equal(experience.final_observations[0, row], plain.pop("final"))
        length = len(plain["rewards"])
        assert experience.lengths[0, row] == length
        for name, steps in plain.items():
            got = getattr(experience, name)[0, row]
            np.testing.assert_array_equal(got[:length], steps, err_msg=name)
            assert not got[length:].any()
    assert len(set(experience.lengths[0].tolist())) > 1, "episodes of one length would prove little"
    assert answer.env_steps == experience.lengths.sum()
    assert answer.seconds > 0
    np.testing.assert_array_equal(answer.returns, experience.rewards[0].astype(np.float64).sum(-1))
    assert not experience.bootstrap.any()
    assert not experience.time_offset.any()


def test_actors_company_and_slots_change_no_bit() -> None:
    orders = [toy.order(k, f, episodes=5 + k) for k, f in enumerate(["walk", "coin-walk", "walk", "walk"])]
    orders.append(toy.order(4, greedy=True))
    orders.append(toy.order(5, header=toy.header(hidden=(8,)), episodes=3))
    alone: dict[int, Answer] = {}
    with ActorPool(actors=1, slots=64, family_source=toy.SOURCE) as pool:
        for order in orders:
            pool.submit(order)
            alone |= toy.settle(pool, 1)
    for actors, slots in ((1, 3), (2, 64), (3, 4)):
        with ActorPool(actors, slots, toy.SOURCE) as pool:
            for order in reversed(orders):
                pool.submit(order)
            together = toy.settle(pool, len(orders))
            assert sum(pool.statistics().slots_used) == 0
        for order in orders:
            assert_same(together[order.key], alone[order.key])


def test_streams_differ_by_step_phase_and_purpose_only(pool: ActorPool) -> None:
    base = toy.order(10)
    others = [
        replace(base, key=11),
        replace(base, key=12, step=base.step + 1),
        replace(base, key=13, phase=base.phase + 1),
        replace(base, key=14, evaluation=True),
        replace(base, key=15, seed=base.seed + 1),
    ]
    for order in (base, *others):
        pool.submit(order)
    answers = toy.settle(pool, 6)
    assert_same(answers[11], answers[10])
    starts = [answers[key].experience.observations[0, 0, 0].tobytes() for key in range(10, 16)]  # type: ignore[union-attr]
    assert len(set(starts)) == 5


def test_horizon_ends_an_episode_without_bootstrap(pool: ActorPool) -> None:
    pool.submit(toy.order(1, horizon=3, episodes=4))
    answer = toy.settle(pool, 1)[1]
    assert isinstance(answer, EpisodesResult)
    assert answer.experience.observations.shape == (1, 4, 3, 3)
    assert answer.experience.lengths.max() == 3
    assert not answer.experience.bootstrap.any()


def test_set_task_spares_making_environments_again(pool: ActorPool) -> None:
    for key in (20, 21, 22):
        pool.submit(toy.order(key, "retargetable", episodes=8, horizon=2))
        answer = toy.settle(pool, 1)[key]
        assert isinstance(answer, EpisodesResult)
        assert answer.experience.rewards.max() <= 8  # made in one process: 4 each, or 8 when one took them all


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (toy.order(1, "raising", episodes=64), "family raising: .* step 5 of episode .* Unpicklable: the motor is on"),
        (toy.order(2, "not-finite", parameters={"drift": np.asarray(1.0)}), "family not-finite: the reward is not fin"),
        (toy.order(3, "not-finite"), "family not-finite: the observation is not finite"),
        (toy.order(4, "misshapen"), r"family misshapen: .* shape \(\), the policy takes \(3,\)"),
        (replace(toy.order(5), family="nowhere"), "family nowhere: .*families/nowhere does not exist"),
        (replace(toy.order(6), weights={}), "family walk: the policy lacks the weight layers.0.weight"),
    ],
)
def test_what_fails_says_so_and_hurts_nobody(pool: ActorPool, order: EpisodesOrder, message: str) -> None:
    before = pool.statistics()
    pool.submit(toy.order(100))
    undisturbed = toy.settle(pool, 1)[100]
    pool.submit(order)
    pool.submit(toy.order(100))
    answers = toy.settle(pool, 2)
    failure = answers[order.key]
    assert isinstance(failure, EpisodesFailure)
    assert re.search(message, failure.message)
    assert not failure.retryable
    assert_same(answers[100], undisturbed)
    assert pool.statistics() == before


def test_a_policy_that_is_not_finite_fails(pool: ActorPool) -> None:
    order = toy.order(1)
    pool.submit(replace(order, weights={k: np.full_like(v, np.nan) for k, v in order.weights.items()}))
    answer = toy.settle(pool, 1)[1]
    assert isinstance(answer, EpisodesFailure)
    assert "log-probability of the policy is not finite" in answer.message


def test_a_wide_dtype_is_not_passed_on_to_others(pool: ActorPool) -> None:
    order = toy.order(1)
    pool.submit(order)
    alone = toy.settle(pool, 1)[1]
    pool.submit(order)
    pool.submit(toy.order(2, weights={k: np.zeros(s) for k, s in weight_shapes(order.header).items()}))
    assert_same(toy.settle(pool, 2)[1], alone)


def test_a_broken_source_is_an_answer() -> None:
    with ActorPool(1, 4, "toy_families:broken_registry") as pool:
        pool.submit(toy.order(1))
        answer = toy.settle(pool, 1)[1]
    assert isinstance(answer, EpisodesFailure)
    assert "RuntimeError: the plug-in is broken" in answer.message


def test_actors_load_nothing_heavy(pool: ActorPool) -> None:
    pool.submit(toy.order(1, "census", episodes=2))
    answer = toy.settle(pool, 1)[1]
    assert isinstance(answer, EpisodesResult)
    assert answer.returns.tolist() == [1.0, 1.0]


SCRIPT = """
import sqlalchemy
import toy_families as toy
from innerloop_server.actors.pool import ActorPool

with ActorPool(1, 4, toy.SOURCE) as pool:
    pool.submit(toy.order(1, "census", episodes=2))
    print(toy.settle(pool, 1)[1].returns.tolist())
"""


def test_actors_do_not_import_the_script_of_their_owner(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[1.0, 1.0]\n", "")


def test_cancel_frees_slots_at_once_and_later_orders_do_not_notice(pool: ActorPool, gate_folder: Path) -> None:
    pool.submit(toy.order(1))
    undisturbed = toy.settle(pool, 1)[1]
    gate = toy.Gate(gate_folder)
    pool.submit(toy.order(7, "gated", episodes=1))
    toy.settle_slots(pool, 1)
    gate.reached()  # the actor is inside a step
    gate.disarm()
    assert pool.cancel(7)
    assert pool.statistics().slots_used == (0, 0)
    assert not pool.cancel(7)
    pool.submit(toy.order(7, "gated"))  # the key may be used again
    pool.submit(toy.order(1))
    gate.open()
    answers = toy.settle(pool, 2)
    assert_same(answers[1], undisturbed)
    assert isinstance(answers[7], EpisodesResult)
    assert pool.statistics().restarts == 0
    assert pool.poll() == []


def test_a_full_backlog_is_an_error_with_a_hint() -> None:
    with ActorPool(1, 2, toy.SOURCE, backlog=2) as pool:
        pool.submit(toy.order(1))
        pool.submit(toy.order(2))
        with pytest.raises(Exhausted, match="2 orders") as caught:
            pool.submit(toy.order(3))
        assert caught.value.retry_after_seconds == 1.0
        assert pool.statistics().queued == 2
        assert set(toy.settle(pool, 2)) == {1, 2}
        pool.submit(toy.order(3))


@pytest.mark.parametrize("changes", [{"episodes": 0}, {"horizon": 0}])
def test_nothing_to_run_is_an_error(pool: ActorPool, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="asks for"):
        pool.submit(toy.order(1, **changes))


def test_a_key_names_one_order() -> None:
    with ActorPool(1, 2, toy.SOURCE) as pool:
        pool.submit(toy.order(1))
        with pytest.raises(ValueError, match="order 1 has not been answered"):
            pool.submit(toy.order(1))


def test_close_answers_everyone_and_may_be_repeated() -> None:
    pool = ActorPool(2, 4, toy.SOURCE)
    for key in range(5):
        pool.submit(toy.order(key, episodes=20, horizon=1_000))
    pool.close()
    pool.close()
    answers = pool.poll()
    assert {answer.key for answer in answers} == set(range(5))
    assert all(isinstance(answer, EpisodesFailure) and answer.retryable for answer in answers)
    assert pool.poll() == []
    assert pool.waitables == []
    assert pool.statistics().pids == ()
    with pytest.raises(Unavailable):
        pool.submit(toy.order(9))
