from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop import policy
from innerloop.arrays import Box, Discrete, Space
from innerloop_server.domain import Experience, LearnerSpec
from innerloop_server.learners.learner import Input, Tensors
from innerloop_server.learners.maml import Maml

MakeSpec = Callable[..., LearnerSpec]
MakeExperience = Callable[..., Experience[torch.Tensor]]
ACTIONS: list[Space] = [Box.of(-1.0, 1.0, (2,)), Box.of(-1.0, 1.0, (1,)), Discrete(3)]


def same(left: Tensors, right: Tensors) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_one_step_by_hand(make_spec: MakeSpec, make_experience: MakeExperience) -> None:
    """theta - scale * rate * gradient, with the gradient of the plain policy-gradient loss."""
    learner = Maml(make_spec(rates="fixed", initial_rate=0.2))
    meta = learner.initial_meta(0)
    state = learner.begin(meta, 2)
    experience = make_experience(learner.spec, 2, 3, 5)
    policies, _ = learner.act(meta, state, Input(experience.observations))
    experience = dataclasses.replace(experience, log_probs=policies.log_prob(experience.actions))
    samples = learner.prepare(experience)
    weights = {name: value.clone().requires_grad_() for name, value in state.items() if name != "depth"}
    log_prob = learner._policy(weights, samples).log_prob(samples.actions)
    loss = [-(log_prob[b][samples.mask[b]] * samples.inner_advantages[b][samples.mask[b]]).mean() for b in range(2)]
    gradients = torch.autograd.grad(torch.stack(loss).sum(), list(weights.values()))
    after, metrics = learner.adapt(meta, state, experience, torch.tensor([1.0, 0.5]))
    for (name, value), gradient in zip(weights.items(), gradients, strict=True):
        scale = 0.2 * torch.tensor([1.0, 0.5]).reshape(2, *(1,) * (value.dim() - 1))
        torch.testing.assert_close(after[name], value.detach() - scale * gradient, rtol=1e-4, atol=1e-6)
    assert after["depth"].tolist() == [1, 1]
    assert all(metrics[name].shape == (2,) and metrics[name].dtype == torch.float32 for name in metrics)
    assert (metrics["kl"] > 0).all()
    # At the sampling policy the loss is minus the mean normalised advantage: zero.
    assert metrics["loss"].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert metrics["entropy"].tolist() == pytest.approx([2 * (-1 + 0.5 * math.log(2 * math.pi * math.e))] * 2)


def test_adapt_is_detached_and_leaves_its_arguments_alone(make_spec: MakeSpec, make_experience: MakeExperience) -> None:
    learner = Maml(make_spec())
    meta = learner.initial_meta(0)
    state = learner.begin(meta, 2)
    kept = {name: value.clone() for name, value in (meta | state).items()}
    after, metrics = learner.adapt(meta, state, make_experience(learner.spec, 2, 3, 5), torch.ones(2))
    assert same(meta | state, kept)
    assert not any(value.requires_grad for value in [*after.values(), *metrics.values()])
    assert {name: (v.shape, v.dtype) for name, v in after.items()} == {n: (v.shape, v.dtype) for n, v in state.items()}


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_rates_frozen_where_they_start_equal_fixed_rates_bit_for_bit(
    make_spec: MakeSpec, make_experience: MakeExperience, action: Space
) -> None:
    learned = Maml(make_spec(action=action, rates="learned", initial_rate=0.1))
    fixed = Maml(make_spec(action=action, rates="fixed", initial_rate=0.1))
    meta = learned.initial_meta(4)
    plain = fixed.initial_meta(4)
    assert set(meta) - set(plain) == {f"log_rates.{name}" for name in plain}
    experience = make_experience(learned.spec, 3, 4, 6)
    one, _ = learned.adapt(meta, learned.begin(meta, 3), experience, torch.ones(3))
    two, _ = fixed.adapt(plain, fixed.begin(plain, 3), experience, torch.ones(3))
    assert same(one, two)


def test_each_step_has_its_rates_and_the_last_repeat(make_spec: MakeSpec, make_experience: MakeExperience) -> None:
    learner = Maml(make_spec(inner_steps=2))
    meta = learner.initial_meta(0)
    for name in list(meta):
        if name.startswith("log_rates."):
            meta[name] = (
                torch.log(torch.tensor([0.1, 0.4])).reshape(2, *(1,) * (meta[name].dim() - 1)).expand_as(meta[name])
            )
    state = learner.begin(meta, 4)
    state["depth"] = torch.tensor([0, 1, 2, 7])
    one = make_experience(learner.spec, 1, 3, 5)
    four = dataclasses.replace(
        one, **{f.name: getattr(one, f.name).repeat(4, *(1,) * (getattr(one, f.name).dim() - 1)) for f in
                dataclasses.fields(one)}
    )  # fmt: skip
    after, _ = learner.adapt(meta, state, four, torch.ones(4))
    move = after["layers.0.weight"] - state["layers.0.weight"]
    torch.testing.assert_close(move[1], 4 * move[0], rtol=1e-4, atol=1e-6)
    assert torch.equal(move[1], move[2])
    assert torch.equal(move[1], move[3])
    assert after["depth"].tolist() == [1, 2, 3, 8]


def test_no_experience_changes_no_weight(make_spec: MakeSpec, make_experience: MakeExperience) -> None:
    learner = Maml(make_spec())
    meta = learner.initial_meta(0)
    state = learner.begin(meta, 2)
    empty = make_experience(learner.spec, 2, 3, 5, lengths=torch.tensor([[0, 0, 0], [5, 5, 5]]))
    after, metrics = learner.adapt(meta, state, empty, torch.ones(2))
    assert torch.equal(after["layers.0.weight"][0], state["layers.0.weight"][0])
    assert not torch.equal(after["layers.0.weight"][1], state["layers.0.weight"][1])
    assert all(torch.isfinite(value).all() for value in metrics.values())


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_padding_does_not_matter(make_spec: MakeSpec, make_experience: MakeExperience, action: Space) -> None:
    """More capacity and episodes of length zero change nothing beyond rounding."""
    learner = Maml(make_spec(action=action))
    meta = learner.initial_meta(0)
    state = learner.begin(meta, 2)
    tight = make_experience(learner.spec, 2, 3, 5)

    def widened(name: str) -> torch.Tensor:
        x: torch.Tensor = getattr(tight, name)
        over_time = name in ("observations", "actions", "rewards", "log_probs")
        wide = x.new_zeros((2, 4, 9, *x.shape[3:]) if over_time else (2, 4, *x.shape[2:]))
        wide[(slice(None), slice(3), slice(5))[: 3 if over_time else 2]] = x
        return wide

    wide = dataclasses.replace(tight, **{f.name: widened(f.name) for f in dataclasses.fields(tight)})
    want, _ = learner.adapt(meta, state, tight, torch.ones(2))
    got, _ = learner.adapt(meta, state, wide, torch.ones(2))
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-4, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 6),
    st.integers(1, 21),
    st.integers(1, 70),
    st.sampled_from(ACTIONS),
    st.sampled_from([[], [8], [32, 32]]),
    st.integers(0, 2**32 - 1),
)
def test_a_task_adapts_to_the_same_bits_alone_and_in_company(
    make_spec: MakeSpec,
    make_experience: MakeExperience,
    b: int,
    n: int,
    t: int,
    action: Space,
    hidden: list[int],
    seed: int,
) -> None:
    learner = Maml(make_spec(action=action, hidden_sizes=hidden, horizon=t))
    meta = learner.initial_meta(seed)
    together = make_experience(learner.spec, b, n, t, seed=seed)
    state, metrics = learner.adapt(meta, learner.begin(meta, b), together, torch.ones(b))
    state, more = learner.adapt(meta, state, together, torch.ones(b))
    for i in range(b):
        only = dataclasses.replace(
            together, **{f.name: getattr(together, f.name)[i : i + 1].clone() for f in dataclasses.fields(together)}
        )
        alone, one = learner.adapt(meta, learner.begin(meta, 1), only, torch.ones(1))
        alone, two = learner.adapt(meta, alone, only, torch.ones(1))
        for name in state:
            assert torch.equal(state[name][i], alone[name][0]), name
        for name in metrics:
            assert torch.equal(metrics[name][i], one[name][0]), name
            assert torch.equal(more[name][i], two[name][0]), name


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_the_exported_policy_acts_like_the_served_one(
    make_spec: MakeSpec, make_experience: MakeExperience, action: Space
) -> None:
    learner = Maml(make_spec(action=action))
    meta = learner.initial_meta(0)
    state, _ = learner.adapt(meta, learner.begin(meta, 2), make_experience(learner.spec, 2, 3, 5), torch.ones(2))
    header, weights = learner.export(meta, state)
    assert (header.family, header.learner) == ("toy", "toy-maml")
    observation = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    served, unchanged = learner.act(meta, state, Input(torch.from_numpy(observation).repeat(2, 1, 1)))
    assert unchanged is state
    for b in range(2):
        local = policy.Policy.from_bytes(policy.Policy(header, weights[b]).to_bytes())
        for name, value in policy.forward(local.header, local.weights, observation).items():
            got = getattr(served, name)[b].numpy()
            np.testing.assert_allclose(np.broadcast_to(got, value.shape), value, rtol=1e-5, atol=1e-5)


def test_learning_rates_fall_linearly(make_spec: MakeSpec) -> None:
    learner = Maml(make_spec(updates=10, learning_rate=0.5, rates_learning_rate=2.0))
    assert learner.learning_rate("layers.0.bias", 0) == 0.5
    assert learner.learning_rate("layers.0.bias", 5) == 0.25
    assert learner.learning_rate("log_rates.layers.0.bias", 5) == 1.0
    assert learner.learning_rate("layers.0.bias", 12) == 0.0


@pytest.mark.gpu
@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_the_device_does_not_change_the_answer(
    make_spec: MakeSpec, make_experience: MakeExperience, action: Space
) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learner = Maml(make_spec(action=action))
    meta = learner.initial_meta(0)
    experience = make_experience(learner.spec, 3, 4, 20)
    there = dataclasses.replace(
        experience, **{f.name: getattr(experience, f.name).to(device) for f in dataclasses.fields(experience)}
    )
    moved = {name: value.to(device) for name, value in meta.items()}
    want, _ = learner.adapt(meta, learner.begin(meta, 3), experience, torch.ones(3))
    got, _ = learner.adapt(moved, learner.begin(moved, 3), there, torch.ones(3, device=device))
    for name in want:
        torch.testing.assert_close(got[name].cpu(), want[name], rtol=1e-3, atol=1e-5)
