"""ANIL, Meta-SGD and first order: what differs from MAML, and that nothing else does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from innerloop.arrays import Box, Discrete, Space
from innerloop_server.domain import Experience, LearnerSpec
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.maml import Maml

MakeSpec = Callable[..., LearnerSpec]
MakeExperience = Callable[..., Experience[torch.Tensor]]
ACTIONS: list[Space] = [Box.of(-1.0, 1.0, (2,)), Discrete(3)]
BODY = {"layers.0.weight", "layers.0.bias"}


def same(left: Tensors, right: Tensors) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def meta_gradients(learner: Maml, make_experience: MakeExperience) -> Tensors:
    samples = [learner.prepare(make_experience(learner.spec, 3, 4, 6, seed=k)) for k in range(3)]
    leaves = {name: value.requires_grad_() for name, value in learner.initial_meta(1).items()}
    loss = learner.meta_loss(leaves, samples)
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_a_head_alone_adapts(make_spec: MakeSpec, make_experience: MakeExperience, action: Space) -> None:
    """The body keeps its bits; the head, and a deviation with it, moves exactly as it would with the body."""
    head, whole = (Maml(make_spec(action=action, adapt=adapt)) for adapt in ("head", "all"))
    meta, full = head.initial_meta(0), whole.initial_meta(0)
    names = {name for name in full if not name.startswith("log_rates.")}
    assert set(meta) == names | {f"log_rates.{name}" for name in names - BODY}
    experience = make_experience(head.spec, 2, 3, 5)
    state = head.begin(meta, 2)
    after, metrics = head.adapt(meta, state, experience, torch.ones(2))
    want, _ = whole.adapt(full, whole.begin(full, 2), experience, torch.ones(2))
    assert after.keys() == want.keys()
    for name in names:
        assert torch.equal(after[name], state[name] if name in BODY else want[name]), name
        assert name in BODY or not torch.equal(after[name], state[name]), name
    assert (metrics["kl"] > 0).all()


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_without_a_body_the_head_is_all(make_spec: MakeSpec, make_experience: MakeExperience, action: Space) -> None:
    """ANIL of a network that is all head is MAML, bit for bit."""
    head, whole = (Maml(make_spec(action=action, hidden_sizes=[], adapt=adapt)) for adapt in ("head", "all"))
    assert same(head.initial_meta(3), whole.initial_meta(3))
    assert same(meta_gradients(head, make_experience), meta_gradients(whole, make_experience))


def test_the_body_learns_in_the_outer_loop(make_spec: MakeSpec, make_experience: MakeExperience) -> None:
    gradients = meta_gradients(Maml(make_spec(adapt="head")), make_experience)
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())


@pytest.mark.parametrize("order", ["second", "first"])
@pytest.mark.parametrize("adapt", ["all", "head"])
def test_frozen_rates_give_the_meta_gradient_of_fixed_ones_bit_for_bit(
    make_spec: MakeSpec, make_experience: MakeExperience, order: str, adapt: str
) -> None:
    learned, fixed = (Maml(make_spec(rates=rates, order=order, adapt=adapt)) for rates in ("learned", "fixed"))
    one, two = (meta_gradients(learner, make_experience) for learner in (learned, fixed))
    assert same({name: one[name] for name in two}, two)


def test_the_orders_differ_in_the_meta_gradient_alone(make_spec: MakeSpec, make_experience: MakeExperience) -> None:
    second, first = (Maml(make_spec(order=order)) for order in ("second", "first"))
    meta = second.initial_meta(0)
    experience = make_experience(second.spec, 2, 3, 5)
    one, _ = second.adapt(meta, second.begin(meta, 2), experience, torch.ones(2))
    two, _ = first.adapt(meta, first.begin(meta, 2), experience, torch.ones(2))
    assert same(one, two)
    assert not same(meta_gradients(second, make_experience), meta_gradients(first, make_experience))
