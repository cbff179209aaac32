"""The meta-gradient against a closed form and against central differences, in float64."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch

from innerloop.arrays import Box, Discrete, Space
from innerloop_server.domain import Experience, LearnerSpec
from innerloop_server.learners.maml import Maml
from innerloop_server.learners.trainable import Samples

MakeSpec = Callable[..., LearnerSpec]
MakeExperience = Callable[..., Experience[torch.Tensor]]
F64 = torch.float64


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def bandit_samples(
    actions: torch.Tensor, inner: torch.Tensor, outer: torch.Tensor, mean: torch.Tensor, log_std: float
) -> Samples:
    """One-step episodes of one task, sampled by a Gaussian with that mean: [1, N, 1]."""
    z = (actions - mean) / math.exp(log_std)
    log_probs = -0.5 * z * z - log_std - 0.5 * math.log(2 * math.pi)
    lead = (1, len(actions), 1)
    return Samples(
        observations=torch.zeros(*lead, 1),
        actions=actions.reshape(*lead, 1),
        log_probs=log_probs.detach().reshape(lead),
        mask=torch.ones(lead, dtype=torch.bool),
        inner_advantages=inner.reshape(lead),
        outer_advantages=outer.reshape(lead),
    )


@pytest.mark.parametrize("order", ["second", "first"])
def test_one_step_gaussian_bandit_in_closed_form(make_spec: MakeSpec, order: str) -> None:
    """Policy N(b, s^2), loss L(b - alpha g(b)): dL/db = L' (1 - alpha H), dL/dlog(alpha) = -alpha g L'.

    With ratios at 1, g = -mean(A (a - b) / s^2), H = -mean(A ((a - b)^2 / s^4 - 1 / s^2)), and L' is g on the
    adapted policy's own samples. First-order drops H and nothing else.
    """
    spec = make_spec(Box.of(-1.0, 1.0, (1,)), Box.of(-9.0, 9.0, (1,)), hidden_sizes=[], inner_steps=1, order=order)
    spec = dataclasses.replace(spec, observation_shift=(0.0,), observation_scale=(1.0,))
    learner = Maml(spec)
    b, log_std, alpha = 0.3, -0.4, 0.25
    s2 = math.exp(2 * log_std)
    meta = {
        "layers.0.weight": torch.zeros(1, 1, dtype=F64),
        "layers.0.bias": tensor(b),
        "log_std": tensor(log_std),
        "log_rates.layers.0.weight": torch.zeros(1, 1, 1, dtype=F64),
        "log_rates.layers.0.bias": torch.full((1, 1), math.log(alpha), dtype=F64),
        # A rate of exp(-800) = 0 holds the deviation still.
        "log_rates.log_std": torch.full((1, 1), -800.0, dtype=F64),
    }
    leaves = {name: value.requires_grad_() for name, value in meta.items()}
    a0, adv0 = tensor(0.1, -0.7, 1.2, 0.4), tensor(1.0, -0.5, 0.3, -0.8)
    a1, adv1 = tensor(0.5, 0.9, -0.2), tensor(-0.4, 1.1, 0.6)
    g = -(adv0 * (a0 - b) / s2).mean()
    h = -(adv0 * ((a0 - b) ** 2 / s2**2 - 1 / s2)).mean()
    adapted = b - alpha * g
    outer = -(adv1 * (a1 - adapted) / s2).mean()

    # Neither step's other advantages may be looked at.
    before = bandit_samples(a0, adv0, torch.full_like(adv0, torch.nan), tensor(b), log_std)
    after = bandit_samples(a1, torch.full_like(adv1, torch.nan), adv1, adapted, log_std)
    loss = learner.meta_loss(leaves, [before, after])
    names = ("layers.0.bias", "log_rates.layers.0.bias")
    of_bias, of_rate = torch.autograd.grad(loss, [leaves[name] for name in names])

    assert loss.item() == pytest.approx(-adv1.mean().item(), rel=1e-12)
    want = outer if order == "first" else outer * (1 - alpha * h)
    assert of_bias.item() == pytest.approx(want.item(), rel=1e-10)
    assert of_rate.item() == pytest.approx((-alpha * g * outer).item(), rel=1e-10)
    assert abs(h.item()) > 0.1  # or the two orders could not be told apart


@pytest.mark.parametrize("adapt", ["all", "head"])
@pytest.mark.parametrize("action", [Box.of(-1.0, 1.0, (2,)), Discrete(3)], ids=str)
def test_central_differences(make_spec: MakeSpec, make_experience: MakeExperience, action: Space, adapt: str) -> None:
    """Every coordinate of the whole chain: two inner steps, learned rates, off the sampling policy."""
    spec = make_spec(action=action, hidden_sizes=[3], inner_steps=2, initial_rate=0.3, adapt=adapt)
    learner = Maml(spec)
    meta = {name: value.to(F64) for name, value in learner.initial_meta(1).items()}
    steps: list[Samples] = []
    for k in range(3):
        samples = learner.prepare(make_experience(spec, 2, 3, 4, seed=k))
        state = learner.begin(meta, 2)
        near = learner._policy(state, samples).log_prob(samples.actions)
        wiggle = 0.03 * torch.sin(torch.arange(near.numel(), dtype=F64)).reshape(near.shape)
        steps.append(
            dataclasses.replace(
                samples,
                log_probs=near + wiggle,
                inner_advantages=samples.inner_advantages.to(F64),
                outer_advantages=samples.outer_advantages.to(F64).flip(1) * samples.mask,
            )
        )
    leaves = {name: value.clone().requires_grad_() for name, value in meta.items()}
    gradients = dict(
        zip(leaves, torch.autograd.grad(learner.meta_loss(leaves, steps), list(leaves.values())), strict=True)
    )

    def loss_at(name: str, index: int, offset: float) -> float:
        moved = {key: value.clone() for key, value in meta.items()}
        moved[name].view(-1)[index] += offset
        for value in moved.values():
            value.requires_grad_()  # the inner gradients need a graph
        return learner.meta_loss(moved, steps).item()

    h = 1e-5
    for name, gradient in gradients.items():
        numeric = torch.tensor(
            [(loss_at(name, i, h) - loss_at(name, i, -h)) / (2 * h) for i in range(gradient.numel())], dtype=F64
        ).reshape(gradient.shape)
        scale = max(gradient.abs().max().item(), 1e-6)
        assert (gradient - numeric).abs().max().item() < 1e-4 * scale, name
        assert gradient.abs().max() > 0, name
