"""MAML on right answers: losses by hand, steps in closed form, the meta-gradient against central differences."""

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
from innerloop_server.domain import Experience, LearnerSpec, Supervision
from innerloop_server.learners.learner import Input, Tensors
from innerloop_server.learners.maml import Maml
from innerloop_server.learners.supervised import binary_cross_entropy, cross_entropy, squared_error
from innerloop_server.learners.trainable import Examples

MakeSpec = Callable[..., LearnerSpec]
MakeExperience = Callable[..., Experience[torch.Tensor]]
F64 = torch.float64
KINDS: list[Space] = [Discrete(2), Discrete(4), Box.of(-9.0, 9.0, (2,))]


@pytest.fixture
def make_learner(make_spec: MakeSpec) -> Callable[..., Maml]:
    def make(action: Space, **values: object) -> Maml:
        kind = Supervision.CLASSIFICATION if isinstance(action, Discrete) else Supervision.REGRESSION
        spec = dataclasses.replace(make_spec(action=action, horizon=1, **values), supervision=kind)
        if kind is Supervision.REGRESSION:
            spec = dataclasses.replace(spec, action_shift=(0.5, -1.0), action_scale=(2.0, 0.5))
        return Maml(spec)

    return make


def examples(learner: Maml, b: int, n: int, seed: int = 0) -> Experience[torch.Tensor]:
    """Random answers to random questions; nothing else that is in an experience may be looked at."""
    spec, rng = learner.spec, np.random.default_rng(seed)
    space = spec.action_space
    if isinstance(space, Discrete):
        feedback = rng.integers(0, space.n, (b, n, 1, 1)).astype(np.float32)
        actions = torch.zeros(b, n, 1, dtype=torch.int64)
    else:
        feedback = rng.normal(size=(b, n, 1, space.size)).astype(np.float32)
        actions = torch.full((b, n, 1, space.size), math.nan)
    nothing = torch.full((b, n, 1), math.nan)
    return Experience(
        observations=torch.from_numpy(rng.normal(size=(b, n, 1, *spec.observation_space.shape)).astype(np.float32)),
        actions=actions,
        rewards=nothing,
        log_probs=nothing,
        lengths=torch.ones(b, n, dtype=torch.int64),
        bootstrap=torch.zeros(b, n, dtype=torch.bool),
        final_observations=torch.zeros(b, n, *spec.observation_space.shape),
        time_offset=torch.zeros(b, n, dtype=torch.int64),
        feedback=torch.from_numpy(feedback),
        success=torch.zeros(b, n, dtype=torch.bool),
    )


def double(values: Tensors) -> Tensors:
    return {name: value.to(F64) if value.is_floating_point() else value for name, value in values.items()}


def test_losses_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [1.0, 3.0], [1.0, 3.0]], dtype=F64)
    two = binary_cross_entropy(logits, torch.tensor([1, 1, 0]))
    assert two.tolist() == pytest.approx([math.log(2), math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))])
    three = cross_entropy(torch.tensor([[0.0, math.log(2), math.log(5)]], dtype=F64), torch.tensor([1]))
    assert three.tolist() == pytest.approx([math.log(4)])
    error = squared_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 5.0]]))
    assert error.tolist() == [5.0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-300, 300), min_size=2, max_size=2), st.integers(0, 1))
def test_binary_is_categorical_cross_entropy_of_two(logits: list[float], label: int) -> None:
    values, labels = torch.tensor([logits], dtype=F64, requires_grad=True), torch.tensor([label])
    losses = [loss(values, labels) for loss in (binary_cross_entropy, cross_entropy)]
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-12)
    first, second = (torch.autograd.grad(loss.sum(), values)[0] for loss in losses)
    torch.testing.assert_close(first, second, atol=1e-12, rtol=1e-9)


def seen(learner: Maml, experience: Experience[torch.Tensor]) -> torch.Tensor:
    """[N, O] what the network of the only task sees."""
    shift, scale = (torch.tensor(v, dtype=F64) for v in (learner.header.observation_shift,
                                                         learner.header.observation_scale))  # fmt: skip
    return (experience.observations[0, :, 0].to(F64) - shift) / scale


def test_one_step_of_binary_cross_entropy_in_closed_form(make_learner: Callable[..., Maml]) -> None:
    """d loss / d w_c = mean over examples of (p_c - [y = c]) x: logistic regression."""
    learner = make_learner(Discrete(2), hidden_sizes=[], rates="fixed", initial_rate=0.3)
    meta = double(learner.initial_meta(0))
    state, experience = learner.begin(meta, 1), examples(learner, 1, 6)
    after, metrics = learner.adapt(meta, state, experience, torch.tensor([0.5]))

    x, y = seen(learner, experience), experience.feedback[0, :, 0, 0].long()
    p = torch.softmax(x @ meta["layers.0.weight"] + meta["layers.0.bias"], -1)
    gap = p - torch.nn.functional.one_hot(y, 2)
    assert 0 < y.sum() < 6
    torch.testing.assert_close(after["layers.0.weight"][0], meta["layers.0.weight"] - 0.15 * x.T @ gap / 6)
    torch.testing.assert_close(after["layers.0.bias"][0], meta["layers.0.bias"] - 0.15 * gap.mean(0))
    assert metrics["loss"].item() == pytest.approx(-torch.log(p[torch.arange(6), y]).mean().item())
    assert metrics["kl"] > 0 < metrics["entropy"]


def test_one_step_of_squared_error_in_closed_form(make_learner: Callable[..., Maml]) -> None:
    """d loss / d w_d = mean over examples of 2 / F scale_d (shift_d + scale_d f_d - y_d) x: least squares."""
    learner = make_learner(Box.of(-9.0, 9.0, (2,)), hidden_sizes=[], rates="fixed", initial_rate=0.3)
    meta = double(learner.initial_meta(0))
    state, experience = learner.begin(meta, 1), examples(learner, 1, 6)
    after, metrics = learner.adapt(meta, state, experience, torch.tensor([1.0]))

    x, y = seen(learner, experience), experience.feedback[0, :, 0].to(F64)
    shift, scale = torch.tensor([0.5, -1.0], dtype=F64), torch.tensor([2.0, 0.5], dtype=F64)
    error = shift + scale * (x @ meta["layers.0.weight"] + meta["layers.0.bias"]) - y
    torch.testing.assert_close(after["layers.0.weight"][0], meta["layers.0.weight"] - 0.3 * x.T @ (error * scale) / 6)
    torch.testing.assert_close(after["layers.0.bias"][0], meta["layers.0.bias"] - 0.3 * (error * scale).mean(0))
    assert metrics["loss"].item() == pytest.approx((error**2).mean().item())
    assert metrics["kl"] == metrics["entropy"] == 0  # a prediction is a point


def test_a_prediction_is_a_point(make_learner: Callable[..., Maml]) -> None:
    learner = make_learner(KINDS[2], initial_log_std=3.0)
    meta = learner.initial_meta(0)
    assert not any("log_std" in name for name in meta)
    state = learner.begin(meta, 2)
    after, _ = learner.adapt(meta, state, examples(learner, 2, 3), torch.ones(2))
    assert (after["log_std"] == policy.LOG_STD_FLOOR).all()
    assert not torch.equal(after["layers.1.bias"], state["layers.1.bias"])
    distribution, _ = learner.act(meta, after, Input(torch.zeros(2, 1, 3)))
    aimed, sampled = distribution.sample(None), distribution.sample(torch.full((2, 1, 2), 4.0))
    torch.testing.assert_close(sampled, aimed, atol=1e-5, rtol=0)
    header, weights = learner.export(meta, after)
    exported = policy.forward(header, weights[0], np.zeros((1, 3), np.float32))
    np.testing.assert_allclose(exported["mean"], aimed[0].numpy(), atol=1e-6)


@pytest.mark.parametrize("action", KINDS, ids=str)
def test_all_inner_steps_learn_from_the_first_examples(make_learner: Callable[..., Maml], action: Space) -> None:
    """The meta-loss is that of adapting again and again on the support, each time judged on other queries."""
    learner = make_learner(action, inner_steps=3, initial_rate=0.2)
    meta = double(learner.initial_meta(0))
    support, *queries = (examples(learner, 2, 4, seed) for seed in range(4))
    state, wanted = learner.begin(meta, 2), 0.0
    for query in queries:
        state, _ = learner.adapt(meta, state, support, torch.ones(2))
        _, judged = learner.adapt(meta, state, query, torch.ones(2))
        wanted += judged["loss"].mean().item() / 3
    leaves = {name: value.requires_grad_() for name, value in meta.items()}
    loss = learner.meta_loss(leaves, [learner.prepare(e) for e in (support, *queries)])
    assert loss.item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("order", ["second", "first"])
def test_the_meta_gradient_of_least_squares_in_closed_form(make_spec: MakeSpec, order: str) -> None:
    """Predictions b with loss mean (b - y)^2: b' = b - 2 alpha (b - y0), outer gradient 2 (b' - y1) (1 - 2 alpha)."""
    spec = make_spec(Box.of(-1, 1, (1,)), Box.of(-9, 9, (1,)), hidden_sizes=[], inner_steps=1, order=order, horizon=1)
    learner = Maml(dataclasses.replace(spec, supervision=Supervision.REGRESSION))
    alpha, b, y0, y1 = 0.2, 0.7, [1.0, 2.0], [-1.0, 0.5]
    meta = {
        "layers.0.weight": torch.zeros(1, 1, dtype=F64),
        "layers.0.bias": torch.tensor([b], dtype=F64),
        "log_rates.layers.0.weight": torch.zeros(1, 1, 1, dtype=F64),
        "log_rates.layers.0.bias": torch.full((1, 1), math.log(alpha), dtype=F64),
    }
    leaves = {name: value.requires_grad_() for name, value in meta.items()}

    def labelled(answers: list[float]) -> Examples:
        lead = (1, len(answers), 1, 1)
        real = torch.ones(lead[:-1], dtype=torch.bool)
        return Examples(torch.zeros(lead), real, torch.tensor(answers, dtype=F64).reshape(lead))

    loss = learner.meta_loss(leaves, [labelled(y0), labelled(y1)])
    names = ("layers.0.bias", "log_rates.layers.0.bias")
    of_bias, of_rate = torch.autograd.grad(loss, [leaves[name] for name in names])
    inner = 2 * (b - 1.5)
    outer = 2 * (b - alpha * inner + 0.25)
    assert of_bias.item() == pytest.approx(outer * (1 if order == "first" else 1 - 2 * alpha), rel=1e-12)
    assert of_rate.item() == pytest.approx(-outer * alpha * inner, rel=1e-12)


@pytest.mark.parametrize("action", KINDS, ids=str)
def test_the_meta_gradient_by_central_differences(make_learner: Callable[..., Maml], action: Space) -> None:
    learner = make_learner(action, hidden_sizes=[3], inner_steps=2, initial_rate=0.3)
    meta = double(learner.initial_meta(1))
    steps = [learner.prepare(examples(learner, 2, 5, seed)) for seed in range(3)]

    def loss_of(values: Tensors) -> torch.Tensor:
        return learner.meta_loss(values, steps)

    leaves = {name: value.clone().requires_grad_() for name, value in meta.items()}
    gradients = torch.autograd.grad(loss_of(leaves), list(leaves.values()))
    h = 1e-5
    for name, gradient in zip(leaves, gradients, strict=True):
        numeric = torch.zeros_like(gradient)
        for i in range(gradient.numel()):
            ends = []
            for offset in (h, -h):
                moved = {key: value.clone() for key, value in meta.items()}
                moved[name].view(-1)[i] += offset
                ends.append(loss_of({key: value.requires_grad_() for key, value in moved.items()}).item())
            numeric.view(-1)[i] = (ends[0] - ends[1]) / (2 * h)
        assert gradient.abs().max() > 0, name
        assert (gradient - numeric).abs().max() < 1e-4 * gradient.abs().max(), name


@pytest.mark.parametrize("action", KINDS, ids=str)
@pytest.mark.parametrize("n", [1, 3, 10, 17])
def test_a_task_computes_the_same_in_any_company(make_learner: Callable[..., Maml], action: Space, n: int) -> None:
    learner = make_learner(action, hidden_sizes=[9, 5])
    meta = learner.initial_meta(0)
    together = examples(learner, 7, n)
    many, metrics = learner.adapt(meta, learner.begin(meta, 7), together, torch.ones(7))
    for i in (0, 3, 6):
        one = Experience(**{name: value[i : i + 1] for name, value in vars(together).items()})
        alone, own = learner.adapt(meta, learner.begin(meta, 1), one, torch.ones(1))
        assert all(torch.equal(alone[name][0], many[name][i]) for name in alone)
        assert all(torch.equal(own[name][0], metrics[name][i]) for name in own)


@pytest.mark.parametrize("action", KINDS, ids=str)
def test_many_steps_learn_the_examples_by_heart(make_learner: Callable[..., Maml], action: Space) -> None:
    rate = 0.5 if isinstance(action, Discrete) else 0.1
    learner = make_learner(action, hidden_sizes=[32], rates="fixed", initial_rate=rate)
    meta = learner.initial_meta(0)
    state, experience = learner.begin(meta, 1), examples(learner, 1, 5)
    losses = []
    for _ in range(1000):
        state, metrics = learner.adapt(meta, state, experience, torch.ones(1))
        losses.append(metrics["loss"].item())
    assert losses[-1] < 0.05 < 0.3 < losses[0]
    if isinstance(action, Discrete):
        distribution, _ = learner.act(meta, state, Input(experience.observations[:, :, 0]))
        assert torch.equal(distribution.sample(None), experience.feedback[..., 0, 0].long())
