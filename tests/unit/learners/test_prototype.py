from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from innerloop import policy
from innerloop.arrays import Box, Discrete
from innerloop_server.domain import Experience, LearnerSpec, Supervision
from innerloop_server.errors import InvalidField
from innerloop_server.learners.learner import Input, Tensors
from innerloop_server.learners.prototype import COUNTS, SUMS, Prototype

MakeSpec = Callable[..., LearnerSpec]


def make(make_spec: MakeSpec, classes: int = 3, **settings: Any) -> Prototype:
    spec = make_spec(action=Discrete(classes), horizon=1)
    own = {"hidden_sizes": [5, 4], **settings}
    return Prototype(dataclasses.replace(spec, settings=own, supervision=Supervision.CLASSIFICATION))


def shown(observations: np.ndarray, labels: np.ndarray) -> Experience[torch.Tensor]:
    """Examples [B, N, O] with labels [B, N]; nothing else that is in an experience may be looked at."""
    b, n = labels.shape
    nothing = torch.full((b, n, 1), math.nan)
    return Experience(
        observations=torch.from_numpy(observations.astype(np.float32)).unsqueeze(2),
        actions=torch.zeros(b, n, 1, dtype=torch.int64),
        rewards=nothing,
        log_probs=nothing,
        lengths=torch.ones(b, n, dtype=torch.int64),
        bootstrap=torch.zeros(b, n, dtype=torch.bool),
        final_observations=torch.zeros(b, n, observations.shape[-1]),
        time_offset=torch.zeros(b, n, dtype=torch.int64),
        feedback=torch.from_numpy(labels.astype(np.float32)).reshape(b, n, 1, 1),
        success=torch.zeros(b, n, dtype=torch.bool),
    )


def drawn(b: int, n: int, classes: int, seed: int = 0) -> Experience[torch.Tensor]:
    rng = np.random.default_rng(seed)
    return shown(rng.normal(size=(b, n, 3)), np.tile(np.arange(n) % classes, (b, 1)))


def logits(learner: Prototype, meta: Tensors, state: Tensors, observation: torch.Tensor) -> torch.Tensor:
    return learner.act(meta, state, Input(observation))[0].logits  # type: ignore[attr-defined]


def test_prototypes_and_logits_by_hand(make_spec: MakeSpec) -> None:
    spec = dataclasses.replace(
        make_spec(observation=Box.of(-9, 9, (2,)), action=Discrete(2), horizon=1),
        observation_shift=(0.0, 0.0),
        observation_scale=(1.0, 1.0),
        settings={"hidden_sizes": [2]},
        supervision=Supervision.CLASSIFICATION,
    )
    learner = Prototype(spec)
    meta = {"layers.0.weight": torch.eye(2), "layers.0.bias": torch.zeros(2)}
    # What is embedded at (1/2, 0), (1/2, 1/2) is of class 0; at (-1/2, 0), of class 1.
    places = np.array([[[0.5, 0.0], [0.5, 0.5], [-0.5, 0.0]]])
    support = shown(np.arctanh(places), np.array([[0, 0, 1]]))
    state, metrics = learner.adapt(meta, learner.begin(meta, 1), support, torch.ones(1))
    torch.testing.assert_close(state[SUMS], torch.tensor([[[1.0, 0.5], [-0.5, 0.0]]]))
    assert state[COUNTS].tolist() == [[2.0, 1.0]]
    assert float(metrics["loss"]) == pytest.approx(math.log(2))  # before it had seen any
    # (0, 1/2) is sqrt(1/4 + 1/16) from the mean (1/2, 1/4), and sqrt(1/4 + 1/4) from (-1/2, 0).
    query = torch.from_numpy(np.arctanh([[[0.0, 0.5]]]).astype(np.float32))
    found = logits(learner, meta, state, query)
    assert float(found[0, 0, 0] - found[0, 0, 1]) == pytest.approx(0.5 - 0.3125, abs=1e-6)
    queries = shown(query.numpy(), np.array([[1]]))
    loss = learner.meta_loss(meta, [learner.prepare(support), learner.prepare(queries)])
    assert float(loss) == pytest.approx(math.log1p(math.exp(0.1875)), abs=1e-6)


def test_the_answer_is_the_softmax_of_minus_squared_distances(make_spec: MakeSpec) -> None:
    learner = make(make_spec)
    meta, support = learner.initial_meta(0), drawn(2, 9, 3)
    state, _ = learner.adapt(meta, learner.begin(meta, 2), support, torch.ones(2))
    query = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 7, 3)).astype(np.float32))

    def embed(observation: torch.Tensor) -> torch.Tensor:
        x = (observation - torch.tensor(learner.spec.observation_shift)) / torch.tensor(learner.spec.observation_scale)
        for i in range(2):
            x = torch.tanh(x @ meta[f"layers.{i}.weight"] + meta[f"layers.{i}.bias"])
        return x

    labels = support.feedback[..., 0, 0]
    for b in range(2):
        at = embed(support.observations[b, :, 0])
        means = torch.stack([at[labels[b] == c].mean(0) for c in range(3)])
        wanted = torch.log_softmax(-(torch.cdist(embed(query[b]), means) ** 2), -1)
        got = torch.log_softmax(logits(learner, meta, state, query)[b], -1)
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_nothing_seen_is_every_class_and_seeing_it_again_changes_nothing(make_spec: MakeSpec) -> None:
    learner = make(make_spec)
    meta, support = learner.initial_meta(0), drawn(1, 6, 3)
    begun = learner.begin(meta, 1)
    query = torch.randn(1, 4, 3)
    assert torch.equal(logits(learner, meta, begun, query), torch.zeros(1, 4, 3))
    once, _ = learner.adapt(meta, begun, support, torch.ones(1))
    twice, metrics = learner.adapt(meta, once, support, torch.ones(1))
    torch.testing.assert_close(logits(learner, meta, twice, query), logits(learner, meta, once, query))
    assert float(metrics["kl"]) == pytest.approx(0, abs=1e-6)
    order = torch.tensor([5, 3, 0, 1, 4, 2])
    shuffled = Experience(**{name: value[:, order] for name, value in vars(support).items()})
    other, _ = learner.adapt(meta, begun, shuffled, torch.ones(1))
    torch.testing.assert_close(other[SUMS], once[SUMS])


def test_a_class_without_examples_has_a_gradient(make_spec: MakeSpec) -> None:
    learner = make(make_spec)
    meta = {name: value.requires_grad_() for name, value in learner.initial_meta(0).items()}
    support, queries = drawn(2, 4, 2), drawn(2, 6, 3, seed=1)
    loss = learner.meta_loss(meta, [learner.prepare(support), learner.prepare(queries)])
    for gradient in torch.autograd.grad(loss, list(meta.values())):
        assert torch.isfinite(gradient).all()
        assert gradient.any()


def test_the_gradient_against_central_differences(make_spec: MakeSpec) -> None:
    learner = make(make_spec)
    meta = {name: value.double().requires_grad_() for name, value in learner.initial_meta(0).items()}
    steps = [learner.prepare(drawn(2, 6, 3)), learner.prepare(drawn(2, 6, 3, seed=1))]
    gradients = torch.autograd.grad(learner.meta_loss(meta, steps), list(meta.values()))
    for (name, value), gradient in zip(meta.items(), gradients, strict=True):
        place, h = tuple(0 for _ in value.shape), 1e-6
        ends = []
        for sign in (1, -1):
            moved = value.detach().clone()
            moved[place] += sign * h
            ends.append(float(learner.meta_loss({**meta, name: moved}, steps).detach()))
        assert float(gradient[place]) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5, abs=1e-9)


def test_what_is_downloaded_is_the_same_policy(make_spec: MakeSpec) -> None:
    learner = make(make_spec)
    meta = learner.initial_meta(0)
    state, _ = learner.adapt(meta, learner.begin(meta, 2), drawn(2, 9, 3), torch.ones(2))
    header, weights = learner.export(meta, state)
    observation = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
    ours = logits(learner, meta, state, torch.from_numpy(observation).expand(2, 5, 3).contiguous())
    for b in range(2):
        policy.Policy(header, weights[b])
        np.testing.assert_allclose(policy.forward(header, weights[b], observation)["logits"], ours[b], atol=1e-5)


@pytest.mark.parametrize("b", [2, 5, 16])
def test_a_task_does_not_depend_on_its_company(make_spec: MakeSpec, b: int) -> None:
    learner = make(make_spec, hidden_sizes=[16, 8])
    meta, support = learner.initial_meta(0), drawn(b, 9, 3)
    together, _ = learner.adapt(meta, learner.begin(meta, b), support, torch.ones(b))
    query = torch.randn(b, 4, 3)
    answers = logits(learner, meta, together, query)
    for i in range(b):
        alone = Experience(**{name: value[i : i + 1].clone() for name, value in vars(support).items()})
        state, _ = learner.adapt(meta, learner.begin(meta, 1), alone, torch.ones(1))
        assert all(torch.equal(value[0], together[name][i]) for name, value in state.items())
        assert torch.equal(logits(learner, meta, state, query[i : i + 1].clone())[0], answers[i])


@pytest.mark.parametrize("supervision", [None, Supervision.REGRESSION])
def test_it_wants_labels(make_spec: MakeSpec, supervision: Supervision | None) -> None:
    spec = dataclasses.replace(make_spec(), settings={}, supervision=supervision)
    with pytest.raises(InvalidField) as caught:
        Prototype(spec)
    assert caught.value.field == "method"


@pytest.mark.parametrize(("name", "value"), [("hidden_sizes", []), ("epochs", 0), ("rate", 1.0), ("learning_rate", 0)])
def test_a_wrong_setting_is_named(make_spec: MakeSpec, name: str, value: object) -> None:
    with pytest.raises(InvalidField) as caught:
        make(make_spec, **{name: value})
    assert caught.value.field == f"settings.{name}"
