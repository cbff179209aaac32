"""The portable policy, with numbers worked out by hand."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import innerloop
from innerloop import policy as portable
from innerloop.arrays import ArrayError, Box, Discrete, decode, encode, space_from_json, space_to_json
from innerloop.policy import Header, Input, Policy, PolicyFormatError


def discrete():
    """Two inputs, no hidden layer: logits are (x - 1) / 2 times the identity, plus (0, ln 3)."""
    header = Header(Box.of(-9, 9, (2,)), Discrete(2), (), (1.0, 1.0), (2.0, 2.0))
    weights = {
        "layers.0.weight": np.eye(2, dtype=np.float32),
        "layers.0.bias": np.array([0.0, math.log(3)], np.float32),
    }
    return Policy(header, weights)


def gaussian():
    """One input, one hidden unit: mean = 2 tanh(x), standard deviation 1/2; action = clip(1 + 10 raw, -5, 5)."""
    header = Header(Box.of(-9, 9, (1,)), Box.of(-5, 5, (1, 1)), (1,), (0.0,), (1.0,), (1.0,), (10.0,))
    weights = {
        "layers.0.weight": np.ones((1, 1), np.float32),
        "layers.0.bias": np.zeros(1, np.float32),
        "layers.1.weight": np.full((1, 1), 2.0, np.float32),
        "layers.1.bias": np.zeros(1, np.float32),
        "log_std": np.array([math.log(0.5)], np.float32),
    }
    return Policy(header, weights)


def test_logits_by_hand():
    p = discrete()
    logits = portable.forward(p.header, p.weights, np.array([[1.0, 1.0], [3.0, 1.0]]))["logits"]
    assert np.allclose(logits, [[0, math.log(3)], [1, math.log(3)]])
    decision = p.decide(np.array([1.0, 1.0]), greedy=True)
    assert decision.environment == decision.raw == 1
    assert decision.log_prob == pytest.approx(math.log(3 / 4))


def test_sampling_inverts_the_cumulative_probabilities():
    logits = np.log(np.array([[0.25, 0.75]] * 4, np.float32))
    noise = np.array([[0.0], [0.2499], [0.2501], [0.9999]], np.float32)
    raw, log_p = portable.sample({"logits": logits}, noise)
    assert raw.tolist() == [0, 0, 1, 1]
    assert np.allclose(np.exp(log_p), [0.25, 0.25, 0.75, 0.75])


def test_gaussian_by_hand():
    p = gaussian()
    decision = p.decide(np.array([0.5]), greedy=True)
    assert decision.raw == pytest.approx(2 * math.tanh(0.5))
    assert decision.log_prob == pytest.approx(-math.log(0.5) - 0.5 * math.log(2 * math.pi))
    assert decision.environment.shape == (1, 1)
    assert decision.environment[0, 0] == 5.0  # 1 + 10 * 0.92, clipped
    assert p.act(np.array([0.1]), greedy=True)[0, 0] == pytest.approx(1 + 20 * math.tanh(0.1))
    raw, log_p = portable.sample(portable.forward(p.header, p.weights, np.zeros((1, 1))), np.full((1, 1), 2.0))
    assert raw[0, 0] == 1.0
    assert log_p[0] == pytest.approx(-2.0 - math.log(0.5) - 0.5 * math.log(2 * math.pi))


def test_stacked_weights_act_as_each_set_alone():
    p = gaussian()
    rng = np.random.default_rng(0)
    sets = [{k: rng.standard_normal(v.shape).astype(np.float32) for k, v in p.weights.items()} for _ in range(3)]
    observations = rng.standard_normal((3, 5, 1)).astype(np.float32)
    stacked = {k: np.stack([s[k] for s in sets]) for k in p.weights}
    together = portable.forward(p.header, stacked, observations)
    for i, alone in enumerate(sets):
        one = portable.forward(p.header, alone, observations[i])
        for name, value in one.items():
            assert np.allclose(together[name][i], value, atol=1e-6)


def test_discrete_observations_are_one_hot():
    header = Header(Discrete(3), Discrete(2), (), (), ())
    weights = {
        "layers.0.weight": np.array([[1, 0], [0, 2], [3, 0]], np.float32),
        "layers.0.bias": np.zeros(2, np.float32),
    }
    p = Policy(header, weights)
    assert p.act(np.array([0, 1, 2]), greedy=True).tolist() == [0, 1, 0]
    assert p.act(np.int64(1), greedy=True) == 1


def test_the_same_generator_gives_the_same_actions():
    draws = [gaussian().act(np.zeros((4, 1)), rng=np.random.default_rng(7)) for _ in range(2)]
    assert np.array_equal(*draws)
    assert len(np.unique(draws[0])) > 1


def test_an_input_and_a_bare_observation_are_the_same_to_a_memoryless_policy():
    p, seen = discrete(), np.array([[0.0, 3.0]])
    assert p.act(seen, greedy=True) == p.act(Input(seen, reward=np.ones(1)), greedy=True)


def test_an_observation_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3,\); this policy takes \(2,\)"):
        discrete().act(np.zeros(3))


def test_files_come_back_as_they_went(tmp_path):
    for p in (discrete(), gaussian()):
        back = innerloop.load_policy(p.save(tmp_path / "p.safetensors"))
        assert back.header.hash == portable.weights_hash(p.weights)
        assert back.header.action_space == p.header.action_space
        assert back.to_bytes() == p.to_bytes()


def test_a_damaged_file_is_refused(tmp_path):
    data = discrete().to_bytes()
    with pytest.raises(PolicyFormatError, match="do not match the hash"):
        Policy.from_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    for cut in (0, 7, 30, len(data) - 1):
        with pytest.raises(PolicyFormatError):
            Policy.from_bytes(data[:cut])
    with pytest.raises(OSError, match="nowhere"):
        innerloop.load_policy(tmp_path / "nowhere")


@given(st.binary(max_size=200))
def test_noise_is_no_policy(data):
    with pytest.raises(PolicyFormatError):
        Policy.from_bytes(data)


def test_another_format_says_update():
    data = discrete().to_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    other = data[8 : 8 + size].replace(b"innerloop-policy/1", b"innerloop-policy/9")
    with pytest.raises(PolicyFormatError, match="update innerloop"):
        Policy.from_bytes(data[:8] + other + data[8 + size :])


def test_missing_and_misshapen_weights_are_named():
    p = discrete()
    with pytest.raises(PolicyFormatError, match=r"lacks the weight layers\.0\.bias"):
        Policy(p.header, {"layers.0.weight": p.weights["layers.0.weight"]})
    with pytest.raises(PolicyFormatError, match=r"layers\.0\.bias has shape \(3,\)"):
        Policy(p.header, {**p.weights, "layers.0.bias": np.zeros(3, np.float32)})


def test_a_header_survives_json():
    header = gaussian().header
    assert Header.from_json(header.to_json()) == header
    damaged = json.loads(header.to_json())
    del damaged["hidden_sizes"]
    with pytest.raises(PolicyFormatError, match="hidden_sizes"):
        Header.from_json(json.dumps(damaged))


def test_spaces_survive_json():
    for space in (Discrete(4), Box.of(-np.inf, 3, (2, 2)), Box.of(0, 1, ())):
        assert space_from_json(json.loads(json.dumps(space_to_json(space)))) == space
    with pytest.raises(ArrayError, match="kind"):
        space_from_json({"kind": "dict"})
    with pytest.raises(ArrayError, match="needs 2 bounds"):
        space_from_json({"kind": "box", "shape": [2], "low": [0], "high": [0]})


def test_arrays_are_little_endian_whatever_they_were():
    assert encode(np.array([1], ">i4")) == ("int32", (1,), b"\x01\0\0\0")
    assert decode("int32", [1], b"\x01\0\0\0").tolist() == [1]
    with pytest.raises(ArrayError, match="complex128"):
        encode(np.zeros(1, complex))
    with pytest.raises(ArrayError, match="takes 8 bytes, but 4 came"):
        decode("float32", [2], b"1234")
    with pytest.raises(ArrayError, match="negative"):
        decode("float32", [-1], b"")
