"""The portable policy that acts on a belief, with numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from innerloop import policy as portable
from innerloop.arrays import Box
from innerloop.policy import BELIEF_LOG_VARIANCE, BELIEF_MEAN, Header, Input, Policy, PolicyFormatError


def tiny() -> Policy:
    """One number seen, one kept, one believed: the gates are 1/2 always, so m' = (m + tanh(reward)) / 2. The mean of
    the belief is 2 m' + 1, its log-variance -m'; the action is what the policy sees of both, and of the observation.
    """
    box = Box.of(-9, 9, (1,))
    header = Header(
        box, box, (), (0.5,), (2.0,), (0.0,), (1.0,), architecture="belief", memory_size=1, latent_size=1, adapts=True
    )
    weights = {name: np.zeros(shape, np.float32) for name, shape in portable.weight_shapes(header).items()}
    # Of x = [observation, action, reward, ended, first] the new content reads the third.
    weights["gru.input.weight"][2, 2] = 1
    weights["belief.weight"][0] = [2, -1]
    weights["belief.bias"][0] = 1
    weights["belief.shift"][:] = [3, -1]
    weights["belief.scale"][:] = [0.5, 4]
    weights["policy.layers.0.weight"][:, 0] = [1, 10, 100]
    return Policy(header, weights)


def test_two_steps_by_hand() -> None:
    p = tiny()
    memory = p.begin()
    assert not memory[BELIEF_MEAN].any(), "N(0, I) before the first step"
    assert not memory[BELIEF_LOG_VARIANCE].any()
    # Nothing is known of a reward: m' = 0, the belief N(1, 1).
    want = (0.9 - 0.5) / 2 + 10 * (1 - 3) / 0.5 + 100 * (0 + 1) / 4
    action = p.decide(np.array([0.9]), memory=memory, greedy=True)
    assert action.raw[0] == pytest.approx(want, rel=1e-6)
    assert action.memory[BELIEF_MEAN][0, 0] == 1
    m = 0.5 * math.tanh(2.0)
    want = (0.1 - 0.5) / 2 + 10 * (2 * m + 1 - 3) / 0.5 + 100 * (-m + 1) / 4
    action = p.decide(Input(np.array([0.1]), reward=np.array(2.0)), memory=dict(action.memory), greedy=True)
    assert action.raw[0] == pytest.approx(want, rel=1e-6)
    assert action.memory[BELIEF_MEAN][0, 0] == pytest.approx(2 * m + 1)
    assert action.memory[BELIEF_LOG_VARIANCE][0, 0] == pytest.approx(-m)


def test_files_keep_what_was_believed() -> None:
    p = tiny()
    memory = p.begin()
    p.act(np.array([1.0]), memory=memory, greedy=True)
    started = p.weights | {"start." + name: array[0] for name, array in memory.items()}
    back = Policy.from_bytes(Policy(p.header, started).to_bytes())
    assert back.header.latent_size == 1
    assert back.begin(2)[BELIEF_MEAN].tolist() == [[1.0], [1.0]]
    del started["start.belief.mean"]
    with pytest.raises(PolicyFormatError, match="what the policy starts from does not fit"):
        Policy(p.header, started)
