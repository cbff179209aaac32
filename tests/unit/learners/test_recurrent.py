from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.arrays import Box, Discrete
from innerloop.policy import Header, weight_shapes
from innerloop_server.domain import LearnerSpec
from innerloop_server.learners import networks, recurrent
from innerloop_server.learners.distributions import Categorical
from innerloop_server.learners.learner import Input, Tensors

MakeSpec = Callable[..., LearnerSpec]
Sizes = tuple[tuple[int, ...], int, tuple[int, ...]]
SIZES: Sizes = ((5,), 4, (6,))


def sized(spec: LearnerSpec, sizes: Sizes = SIZES) -> Header:
    """A header with these widths of encoder, memory and policy."""
    encoder, memory, policy = sizes
    header = networks.header(spec, policy)
    return dataclasses.replace(header, architecture="gru", encoder_sizes=encoder, memory_size=memory)


def fresh(header: Header, seed: int = 0) -> Tensors:
    rng = np.random.default_rng(seed)
    weights = recurrent.initial_weights(header, rng, last_layer_scale=1.0, initial_log_std=-1.0)
    # Biases are zero at the start; here they should show.
    noise = torch.Generator().manual_seed(seed)
    return {name: value + 0.1 * torch.randn(value.shape, generator=noise) for name, value in weights.items()}


def logits_of(header: Header, weights: Tensors, y: torch.Tensor) -> torch.Tensor:
    policy = recurrent.policy(header, weights, y)
    assert isinstance(policy, Categorical)
    return policy.logits


def test_the_memory_is_torchs_gru_cell(make_spec: MakeSpec) -> None:
    header = sized(make_spec())
    weights = {name: value.double() for name, value in fresh(header).items()}
    cell = torch.nn.GRUCell(5, 4, dtype=torch.float64)
    with torch.no_grad():
        cell.weight_ih.copy_(weights["gru.input.weight"].T)
        cell.weight_hh.copy_(weights["gru.hidden.weight"].T)
        cell.bias_ih.copy_(weights["gru.input.bias"])
        cell.bias_hh.copy_(weights["gru.hidden.bias"])
    x = torch.randn(7, recurrent.input_size(header), dtype=torch.float64)
    memory = torch.randn(7, 4, dtype=torch.float64)
    y, after = recurrent.look(networks.stack(weights, 1), memory[None], x[None], torch.zeros(1, 7, dtype=torch.bool))
    encoded = torch.tanh(x @ weights["encoder.layers.0.weight"] + weights["encoder.layers.0.bias"])
    want = cell(encoded, memory)
    torch.testing.assert_close(after[0], want, atol=1e-14, rtol=0)
    torch.testing.assert_close(y[0], torch.cat([want, encoded], -1), atol=1e-14, rtol=0)


def test_features_by_hand_of_discrete_actions(make_spec: MakeSpec) -> None:
    header = sized(make_spec(Box.of(-1, 1, (2,)), Discrete(3)))  # (o - (0, .1)) / (1, 1.5)
    yes, no = torch.tensor([[True]]), torch.tensor([[False]])
    seen = Input(torch.tensor([[[2.0, 3.1]]]), torch.tensor([[1]]), torch.tensor([[0.5]]), no, yes, no)
    x, first = recurrent.features(header, seen, torch.float64)
    torch.testing.assert_close(x[0, 0], torch.tensor([2, 2, 0, 1, 0, 0.5, 1, 0]).double(), atol=1e-7, rtol=0)
    assert not first
    x, _ = recurrent.features(header, dataclasses.replace(seen, truncated=no), torch.float64)
    assert x[0, 0, -2] == 0
    x, _ = recurrent.features(header, dataclasses.replace(seen, truncated=no, terminated=yes), torch.float64)
    assert x[0, 0, -2] == 1
    for start in (Input(seen.observation), dataclasses.replace(seen, trial_end=yes)):
        x, first = recurrent.features(header, start, torch.float64)
        torch.testing.assert_close(x[0, 0], torch.tensor([2.0, 2, 0, 0, 0, 0, 0, 1]).double(), atol=1e-7, rtol=0)
        assert first


def test_features_by_hand_of_box_actions(make_spec: MakeSpec) -> None:
    header = sized(make_spec(Discrete(2), Box.of(-1, 1, (2,))))
    no = torch.tensor([[False]])
    seen = Input(torch.tensor([[1]]), torch.tensor([[[7.0, -8.0]]]), torch.tensor([[0.5]]), no, no, no)
    x, _ = recurrent.features(header, seen, torch.float32)
    assert x[0, 0].tolist() == [0, 1, 7, -8, 0.5, 0, 0]


@pytest.mark.parametrize("sizes", [SIZES, ((), 4, ()), ((5, 3), 4, (6, 7))])
def test_unrolling_is_looking_step_by_step(make_spec: MakeSpec, sizes: Sizes) -> None:
    header = sized(make_spec(action=Discrete(3)), sizes)
    raw = {name: value.double() for name, value in fresh(header).items()}
    shapes = weight_shapes(header) | recurrent.value_shapes(header)
    assert {name: tuple(value.shape) for name, value in raw.items()} == shapes
    weights = networks.stack(raw, 2)
    x = torch.randn(2, 6, 3, recurrent.input_size(header), dtype=torch.float64)
    whole = recurrent.unroll(weights, x)
    memory = torch.zeros(2, 3, 4, dtype=torch.float64)
    for t in range(6):
        y, memory = recurrent.look(weights, memory, x[:, t], torch.zeros(2, 3, dtype=torch.bool))
        torch.testing.assert_close(whole[:, t], y, atol=1e-13, rtol=0)
    assert recurrent.policy(header, weights, y).sample(None).shape == (2, 3)
    assert recurrent.value(weights, y).shape == (2, 3)


def test_a_row_that_starts_a_trial_forgets_and_the_others_do_not(make_spec: MakeSpec) -> None:
    header = sized(make_spec())
    weights = networks.stack(fresh(header), 1)
    x, memory = torch.randn(1, 3, recurrent.input_size(header)), torch.randn(1, 3, 4)
    _, plain = recurrent.look(weights, memory, x, torch.zeros(1, 3, dtype=torch.bool))
    _, reset = recurrent.look(weights, memory, x, torch.tensor([[False, True, False]]))
    _, empty = recurrent.look(weights, torch.zeros_like(memory), x, torch.zeros(1, 3, dtype=torch.bool))
    assert torch.equal(reset[0, [0, 2]], plain[0, [0, 2]])
    assert torch.equal(reset[0, 1], empty[0, 1])
    assert not torch.equal(reset[0, 1], plain[0, 1])


@settings(max_examples=40, deadline=None)
@given(
    b=st.integers(2, 9),
    rows=st.integers(1, 4),
    memory=st.sampled_from([1, 3, 8, 17, 64]),
    actions=st.sampled_from([1, 2, 5]),
    seed=st.integers(0, 99),
)
def test_what_a_task_computes_does_not_depend_on_its_company(
    make_spec: MakeSpec, b: int, rows: int, memory: int, actions: int, seed: int
) -> None:
    header = sized(make_spec(action=Discrete(actions)), ((7,), memory, (9,)))
    shared = fresh(header, seed)
    weights, alone = recurrent.share(shared, b), recurrent.share(shared, 1)
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(b, rows, recurrent.input_size(header), generator=rng)
    before = torch.randn(b, rows, memory, generator=rng)
    first = torch.rand(b, rows, generator=rng) < 0.3
    y, after = recurrent.look(weights, before, x, first)
    logits, values = logits_of(header, weights, y), recurrent.value(weights, y)
    for i in range(b):
        own, its = recurrent.look(alone, before[i : i + 1], x[i : i + 1], first[i : i + 1])
        assert torch.equal(own, y[i : i + 1])
        assert torch.equal(its, after[i : i + 1])
        assert torch.equal(logits_of(header, alone, own), logits[i : i + 1])
        assert torch.equal(recurrent.value(alone, own), values[i : i + 1])


def test_each_gates_recurrence_is_orthogonal_at_the_start(make_spec: MakeSpec) -> None:
    header = sized(make_spec())
    rng = np.random.default_rng(0)
    weights = recurrent.initial_weights(header, rng, last_layer_scale=0.01, initial_log_std=-2.0)
    for gate in torch.split(weights["gru.hidden.weight"], 4, 1):
        torch.testing.assert_close(gate @ gate.T, torch.eye(4), atol=1e-6, rtol=0)
    assert weights["policy.layers.1.weight"].abs().max() < 0.01
    assert weights["log_std"].tolist() == [-2.0, -2.0]
    assert all(not value.any() for name, value in weights.items() if name.endswith("bias"))
