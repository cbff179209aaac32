"""The portable policy that remembers, with numbers worked out by hand."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from innerloop import policy as portable
from innerloop.arrays import Array, Box, Discrete
from innerloop.policy import Header, Input, Policy, PolicyFormatError


def tiny(adapts: bool = True) -> Policy:
    """One number seen and one kept: the gates are 1/2 always, so m' = (m + tanh(x)) / 2 with x = reward - observation;
    mean = m' alone, action = raw.
    """
    header = Header(
        Box.of(-9, 9, (1,)),
        Box.of(-9, 9, (1,)),
        (),
        (0.0,),
        (1.0,),
        (0.0,),
        (1.0,),
        architecture="gru",
        memory_size=1,
        adapts=adapts,
    )
    weights = {name: np.zeros(shape, np.float32) for name, shape in portable.weight_shapes(header).items()}
    # Of x = [observation, action, reward, ended, first] the new content reads the first and the third.
    weights["gru.input.weight"][0, 2] = -1
    weights["gru.input.weight"][2, 2] = 1
    weights["policy.layers.0.weight"][0, 0] = 1
    return Policy(header, weights)


def random(observation: portable.Header | None = None, *, seed: int = 0) -> Policy:
    header = observation or Header(
        Discrete(4), Discrete(3), (5,), (), (), architecture="gru", encoder_sizes=(6,), memory_size=7, adapts=True
    )
    rng = np.random.default_rng(seed)
    shapes = portable.weight_shapes(header).items()
    return Policy(header, {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes})


def same(one: dict[str, Array], two: dict[str, Array]) -> bool:
    return set(one) == set(two) and all(np.array_equal(one[name], two[name]) for name in one)


def test_three_steps_by_hand() -> None:
    p = tiny()
    memory = p.begin()
    m = 0.5 * math.tanh(-2.0)  # the first step of a trial knows no reward
    assert p.act(np.array([2.0]), memory=memory, greedy=True)[0] == pytest.approx(m, abs=1e-6)
    m = 0.5 * (m + math.tanh(3.0 - 1.0))
    assert p.act(Input(np.array([1.0]), reward=np.array(3.0)), memory=memory, greedy=True)[0] == pytest.approx(m)
    assert memory["last.action"][0, 0] == pytest.approx(m)
    m = 0.5 * (m + math.tanh(4.0))  # an episode's end empties nothing
    seen = Input(np.array([0.0]), reward=np.array(4.0), truncated=np.array(True))
    assert p.act(seen, memory=memory, greedy=True)[0] == pytest.approx(m)
    seen = replace(seen, observation=np.array([1.0]), trial_end=np.array(True))  # a trial's does, rewards and all
    assert p.act(seen, memory=memory, greedy=True)[0] == pytest.approx(0.5 * math.tanh(-1.0))


def test_gates_by_hand() -> None:
    """Each gate reads its own third: r shuts the hidden part of the content, z keeps the memory."""
    p = tiny()
    p.weights["gru.hidden.weight"][0, 2] = 5.0
    p.weights["gru.input.bias"][:] = [math.log(3), math.log(4), 0.0]  # r = 3/4, z = 4/5
    memory = p.begin() | {"memory": np.full((1, 1), 0.5, np.float32), "last.trial_end": np.zeros(1, bool)}
    new = math.tanh(1.0 + 0.75 * 5.0 * 0.5)
    action = p.decide(Input(np.array([0.0]), reward=np.array(1.0)), memory=memory, greedy=True)
    assert action.raw[0] == pytest.approx(0.2 * new + 0.8 * 0.5, abs=1e-6)
    assert action.memory["memory"][0, 0] == action.raw[0]
    assert memory["memory"][0, 0] == 0.5, "a decision leaves what it was given as it is"


def test_frozen_comes_back_to_where_it_started_when_an_episode_ends() -> None:
    p = tiny(adapts=False)
    start = {name: array[0] for name, array in p.begin().items()}
    start |= {"memory": np.full(1, 0.25, np.float32), "last.trial_end": np.array(False)}
    p = Policy(p.header, p.weights | {"start." + name: array for name, array in start.items()})
    memory = p.begin()
    first = p.act(np.array([1.0]), memory=memory, greedy=True)
    within = p.act(Input(np.array([1.0]), reward=np.array(1.0)), memory=memory, greedy=True)
    assert within != first
    ended = Input(np.array([1.0]), reward=np.array(7.0), terminated=np.array(True))
    assert p.act(ended, memory=memory, greedy=True) == first
    going_on = Policy(replace(p.header, adapts=True), p.weights)
    memory = going_on.begin()
    assert going_on.act(np.array([1.0]), memory=memory, greedy=True) == first
    assert going_on.act(ended, memory=memory, greedy=True) != first


def test_frozen_in_a_task_begins_no_other_trial() -> None:
    p = tiny(adapts=False)
    ends = Input(np.array([1.0]), reward=np.array(0.0), trial_end=np.array(True))
    assert not p.refuses(ends.trial_end)
    assert p.act(ends, memory=p.begin(), greedy=True) == p.act(np.array([1.0]), memory=p.begin(), greedy=True)
    start = {name: array[0] for name, array in p.begin().items()}
    start |= {"memory": np.full(1, 0.25, np.float32), "last.trial_end": np.array(False)}
    p = Policy(p.header, p.weights | {"start." + name: array for name, array in start.items()})
    assert p.refuses(ends.trial_end)
    assert not p.refuses(None)
    with pytest.raises(ValueError, match="trial_end: this policy is frozen"):
        p.act(ends, memory=p.begin(), greedy=True)
    p.act(replace(ends, trial_end=np.array(False)), memory=p.begin(), greedy=True)
    thawed = Policy(replace(p.header, adapts=True), p.weights)
    assert thawed.act(ends, memory=thawed.begin(), greedy=True)[0] == pytest.approx(0.5 * math.tanh(-1.0))


def test_frozen_sees_what_an_episode_brings_while_it_lasts() -> None:
    p = tiny(adapts=False)
    memory = p.begin(2)
    p.act(np.array([[1.0], [1.0]]), memory=memory, greedy=True)
    m = 0.5 * math.tanh(-1.0)
    seen = Input(np.array([[1.0], [1.0]]), reward=np.array([3.0, 3.0]), terminated=np.array([False, True]))
    goes_on, starts_over = p.act(seen, memory=memory, greedy=True)[:, 0]
    assert goes_on == pytest.approx(0.5 * (m + math.tanh(3.0 - 1.0)))
    assert starts_over == pytest.approx(m)


def test_numbers_that_no_action_can_come_of_are_refused() -> None:
    p = tiny()
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match="observation is not finite"):
            p.act(np.array([wrong]), memory=p.begin(), greedy=True)
        with pytest.raises(ValueError, match="reward is not finite"):
            p.act(Input(np.array([1.0]), reward=np.array(wrong)), memory=p.begin(), greedy=True)
        with pytest.raises(ValueError, match=r"last\.reward of the memory is not finite"):
            p.act(np.array([1.0]), memory=p.begin() | {"last.reward": np.full(1, wrong, np.float32)}, greedy=True)
    for wrong in (-1, 4):
        with pytest.raises(ValueError, match="observation holds integers outside"):
            random().act(np.array(wrong), memory=random().begin(), greedy=True)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("last.action", -1),
        ("last.action", 3),
        ("tally.state", -1),
        ("tally.state", 4),
        ("tally.count", -1),
        ("memory.steps", -1),
        ("memory.0.keys", np.inf),
    ],
)
def test_memories_that_no_step_leaves_are_refused(name: str, wrong: float) -> None:
    header = Header(Discrete(4), Discrete(3), (5,), (), (), architecture="gru", memory_size=8, tallies=True)
    if name.startswith("memory."):
        header = replace(header, architecture="transformer", memory_heads=2, memory_layers=1, memory_span=5)
    p = random(header)
    memory = p.begin()
    memory[name] = np.full_like(memory[name], wrong)
    with pytest.raises(ValueError, match=f"{re.escape(name)} of the memory"):
        p.act(np.array(1), memory=memory, greedy=True)


def test_what_an_input_leaves_out_the_memory_knows() -> None:
    p, rng = random(), np.random.default_rng(1)
    memory = p.begin(2)
    told = p.begin(2)
    previous: Array | None = None
    for t in range(6):
        seen, noise = rng.integers(0, 4, 2), rng.integers(0, 99)
        reward, ended = rng.standard_normal(2).astype(np.float32), np.array([t == 3, False])
        bare = Input(seen) if t == 0 else Input(seen, reward=reward, terminated=ended)
        no = np.zeros(2, bool)
        whole = Input(seen, reward=reward, terminated=ended, truncated=no, trial_end=no, previous_action=previous)
        one = p.decide(bare, memory=memory, rng=np.random.default_rng(noise))
        two = p.decide(whole, memory=told, rng=np.random.default_rng(noise))
        assert np.array_equal(one.raw, two.raw)
        assert same(dict(one.memory), dict(two.memory))
        memory, told, previous = dict(one.memory), dict(two.memory), one.raw


def test_rows_know_nothing_of_each_other() -> None:
    p, rng = random(), np.random.default_rng(2)
    memory = p.begin(3)
    alone = [p.begin() for _ in range(3)]
    for _ in range(4):
        seen, reward, end = rng.integers(0, 4, 3), rng.standard_normal(3), rng.random(3) < 0.3
        action = p.decide(Input(seen, reward=reward, trial_end=end), memory=memory, greedy=True)
        for row in range(3):
            one = p.decide(Input(seen[row], reward=reward[row], trial_end=end[row]), memory=alone[row], greedy=True)
            assert one.raw == action.raw[row]
            assert np.allclose(one.memory["memory"][0], action.memory["memory"][row], atol=1e-6)
            alone[row] = dict(one.memory)
        memory = dict(action.memory)


def test_files_keep_where_the_policy_starts() -> None:
    p = random()
    memory = p.begin()
    for observation in (1, 2):
        p.act(Input(np.array(observation), reward=np.array(0.5)), memory=memory, rng=np.random.default_rng(0))
    kept = Policy(p.header, p.weights | {"start." + name: array[0] for name, array in memory.items()})
    back = Policy.from_bytes(kept.to_bytes())
    assert back.header == replace(kept.header, hash=back.header.hash)
    assert same(back.begin(), memory)
    assert back.begin(3)["memory"].shape == (3, 7)
    assert not p.begin()["memory"].any()
    with pytest.raises(PolicyFormatError, match=r"starts from does not fit.*last\.reward"):
        Policy(p.header, {name: array for name, array in kept.weights.items() if name != "start.last.reward"})


def test_a_memory_that_does_not_fit_is_refused() -> None:
    p = random()
    with pytest.raises(ValueError, match=r"pass memory=policy.begin\(rows\)"):
        p.act(np.array(1))
    with pytest.raises(ValueError, match=r"float32\[1, 7\], not float32\[2, 7\]"):
        p.act(np.array([1, 2]), memory=p.begin())
    with pytest.raises(ValueError, match="holds nothing"):
        p.act(np.array([1, 2]), memory={})


def test_a_memoryless_policy_keeps_none() -> None:
    header = Header(Discrete(3), Discrete(2), (), (), ())
    weights = {name: np.ones(shape, np.float32) for name, shape in portable.weight_shapes(header).items()}
    p = Policy(header, weights)
    assert p.begin(4) == {}
    assert p.decide(np.array(1), memory={}).memory == {}
    assert "memory_size" not in header.to_json()


def test_another_architecture_says_update() -> None:
    text = random().header.to_json().replace('"gru"', '"lstm"')
    with pytest.raises(PolicyFormatError, match="'lstm' is unknown; update innerloop"):
        Header.from_json(text)
