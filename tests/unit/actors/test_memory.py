"""Policies that remember, on actors: a memory belongs to its row, whoever plays it and in whose company."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import toy_families as toy

from innerloop import policy
from innerloop.arrays import Array, Arrays
from innerloop.policy import Header, Input
from innerloop_server.actors.acting import decide, stack
from innerloop_server.actors.orders import Answer, EpisodesFailure, EpisodesOrder, EpisodesResult
from innerloop_server.actors.pool import ActorPool
from innerloop_server.streams import Purpose, derive, stream


@pytest.fixture(scope="module")
def pool() -> Iterator[ActorPool]:
    with ActorPool(actors=2, slots=8, family_source=toy.SOURCE) as pool:
        yield pool


def header(family: str = "walk") -> Header:
    return replace(toy.header(family, hidden=(6,)), architecture="gru", encoder_sizes=(5,), memory_size=9, adapts=True)


def fresh(head: Header) -> dict[str, Array]:
    return {name: array[0] for name, array in policy.begin(head, 1).items()}


def order(key: int, family: str = "walk", **changes: Any) -> EpisodesOrder:
    head = header(family)
    values: dict[str, Any] = {"header": head, "memory": fresh(head), "episodes": 3, **changes}
    return toy.order(key, family, **values)


def by_hand(order: EpisodesOrder, memory: Arrays, episode: int) -> tuple[dict[str, Array], Arrays]:
    """One episode in a plain loop: its steps, and the memory of the row after it."""
    env = toy.Walk(float(order.parameters["drift"]))
    seed = derive(order.seed, Purpose.RESET, order.step, order.phase, episode)
    observation, _ = env.reset(seed=seed)
    rng = stream(order.seed, Purpose.ACTION, order.step, order.phase, episode)
    steps = []
    for t in range(order.horizon):
        noise = policy.draw_noise(order.header.action_space, rng, (1,))
        (choice,) = decide(order.header, stack([order.weights]), [observation[None]], [noise], [memory])
        after, reward, terminated, _, _ = env.step(choice.environment[0])
        steps.append((observation, choice.raw[0], np.float32(reward), choice.log_prob[0]))
        observation = after
        cut = t + 1 == order.horizon and not terminated
        memory = dict(choice.memory) | {
            "last.reward": np.array([reward], np.float32),
            "last.terminated": np.array([terminated]),
            "last.truncated": np.array([cut]),
        }
        if terminated:
            break
    names = ("observations", "actions", "rewards", "log_probs")
    return {name: np.stack([step[i] for step in steps]) for i, name in enumerate(names)}, memory


def answered(pool: ActorPool, *orders: EpisodesOrder) -> dict[int, EpisodesResult]:
    for one in orders:
        pool.submit(one)
    answers = toy.settle(pool, len(orders))
    assert all(isinstance(answer, EpisodesResult) for answer in answers.values()), answers
    return {key: answer for key, answer in answers.items() if isinstance(answer, EpisodesResult)}


def assert_same(a: EpisodesResult, b: EpisodesResult) -> None:
    for field in fields(a.experience):
        np.testing.assert_array_equal(getattr(a.experience, field.name), getattr(b.experience, field.name))
    assert set(a.memory) == set(b.memory)
    for name, array in a.memory.items():
        np.testing.assert_array_equal(array, b.memory[name], err_msg=name)


def assert_episode(answer: EpisodesResult, row: int, plain: dict[str, Array]) -> None:
    length = len(plain["rewards"])
    assert answer.experience.lengths[0, row] == length
    for name, steps in plain.items():
        got = getattr(answer.experience, name)[0, row]
        np.testing.assert_array_equal(got[:length], steps, err_msg=name)
        assert not got[length:].any()


@pytest.mark.parametrize("family", ["walk", "coin-walk"])
def test_rows_each_start_from_the_memory_that_was_sent(pool: ActorPool, family: str) -> None:
    known: dict[str, Array] = fresh(header(family))
    for key in (1, 2):  # from nothing; then from what the first row has come to know
        rows = order(key, family, episodes=4, step=key, memory=known)
        answer = answered(pool, rows)[key]
        assert answer.returns.shape == (4,)
        kept = []
        for row in range(4):
            plain, memory = by_hand(rows, {name: array[None] for name, array in known.items()}, row)
            assert_episode(answer, row, plain)
            kept.append(memory)
        assert set(answer.memory) == set(kept[0])
        for name, array in answer.memory.items():
            np.testing.assert_array_equal(array, np.concatenate([memory[name] for memory in kept]), err_msg=name)
        assert not answer.memory["last.trial_end"].any()
        known = {name: array[0] for name, array in answer.memory.items()}
    empty = answered(pool, replace(rows, memory=fresh(rows.header)))[2]
    assert not np.array_equal(empty.experience.log_probs, answer.experience.log_probs)


def test_actors_company_and_slots_change_no_bit(pool: ActorPool) -> None:
    orders = [order(k, f, episodes=2 + k % 3) for k, f in enumerate(["walk", "coin-walk", "walk", "walk"])]
    orders += [order(4, episodes=5), order(5, greedy=True)]
    alone: dict[int, EpisodesResult] = {}
    for one in orders:
        alone |= answered(pool, one)
    memoryless = [toy.order(6), toy.order(7, "coin-walk")]
    for actors, slots in ((1, 2), (3, 16)):
        with ActorPool(actors, slots, toy.SOURCE) as other:
            together = answered(other, *reversed(orders), *memoryless)
        for one in orders:
            assert_same(together[one.key], alone[one.key])


@pytest.mark.parametrize("family", ["walk", "coin-walk"])
def test_rows_of_a_stack_know_nothing_of_each_other(family: str) -> None:
    head, rng = header(family), np.random.default_rng(0)
    weights = [toy.order(key, family, header=head).weights for key in range(4)]
    seen = [rng.standard_normal((11, 3)).astype(np.float32) for _ in weights]
    noise = [policy.draw_noise(head.action_space, rng, (11,)) for _ in weights]
    memories = []
    for _ in weights:
        memory = policy.begin(head, 11)
        memory["memory"][:] = rng.standard_normal((11, 9))
        memory["last.reward"][:] = rng.standard_normal(11)
        memory["last.trial_end"][:] = rng.random(11) < 0.3
        memories.append(memory)
    everybody = decide(head, stack(weights), seen, noise, memories)
    for _ in range(40):
        tasks = rng.permutation(4)[: rng.integers(1, 5)]
        rows = [rng.permutation(11)[: rng.integers(1, 12)] for _ in tasks]
        some = decide(
            head,
            stack([weights[b] for b in tasks]),
            [seen[b][r] for b, r in zip(tasks, rows, strict=True)],
            [noise[b][r] for b, r in zip(tasks, rows, strict=True)],
            [{k: v[r] for k, v in memories[b].items()} for b, r in zip(tasks, rows, strict=True)],
        )
        for b, few, r in zip(tasks, some, rows, strict=True):
            assert np.array_equal(everybody[b].raw[r], few.raw)
            assert np.array_equal(everybody[b].log_prob[r], few.log_prob)
            for name, array in few.memory.items():
                assert np.array_equal(everybody[b].memory[name][r], array), name
    theirs = policy.Policy(head, weights[0]).decide(Input(seen[0]), memory=memories[0], greedy=True)
    (ours,) = decide(head, stack(weights[:1]), seen[:1], None, memories[:1])
    np.testing.assert_allclose(ours.environment, theirs.environment, atol=1e-5)
    np.testing.assert_allclose(ours.memory["memory"], theirs.memory["memory"], atol=1e-5)


def test_an_order_whose_memory_cannot_be_is_refused(pool: ActorPool) -> None:
    for wrong in (order(1, memory={}), toy.order(1, memory=fresh(header()))):
        with pytest.raises(ValueError, match="carries a memory or lacks one"):
            pool.submit(wrong)
    pool.submit(order(1, episodes=1, memory=fresh(header()) | {"memory": np.zeros(3, np.float32)}))
    answer: Answer = toy.settle(pool, 1)[1]
    assert isinstance(answer, EpisodesFailure)
    assert "float32[1, 3], not float32[1, 9]" in answer.message
