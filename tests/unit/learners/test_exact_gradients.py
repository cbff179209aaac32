"""Every estimator of the gradient family against sums over all trajectories of a tiny decision process, in float64.

The whole pipeline runs: baselines are fitted, advantages normalised, policies adapted. On a batch that holds every
trajectory as often as it is expected, the estimators must give the expectations that dynamic programming gives.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # tiny_mdp
from tiny_mdp import F64, every_episode, expected_return, policy, sampled, theta_of

from innerloop.arrays import Discrete
from innerloop_server.domain import Experience, LearnerSpec
from innerloop_server.learners.baselines import fit_values
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.maml import Maml
from innerloop_server.learners.natural_gradient import conjugate_gradients, fisher_product
from innerloop_server.learners.objectives import ADVANTAGE_EPSILON
from innerloop_server.learners.reptile import Reptile
from innerloop_server.learners.returns import gae
from innerloop_server.training import outer_trpo

MakeSpec = Callable[..., LearnerSpec]
H = 3
CHANCES = ((0.25, 0.25), (0.5, 0.5), (0.75, 0.75))
"""The policies before and after each of two inner steps: chance of action 1 in either state."""
NAMES = ("layers.0.weight", "layers.0.bias")


class Case:
    """Two inner steps from one policy of quarters to the next. Rates are what it takes to get there exactly."""

    def __init__(self, make_spec: MakeSpec, horizon: int = H, **settings: object) -> None:
        spec = make_spec(Discrete(2), Discrete(2), horizon=horizon, hidden_sizes=[], discount=1.0, **settings)
        self.learner = Maml(spec)
        self.thetas = [theta_of(*chances) for chances in CHANCES]
        self.episodes = [every_episode(theta, horizon) for theta in self.thetas]
        self.met = [sampled(theta, horizon) for theta in self.thetas]
        self.deviations = [deviation(spec, episodes) for episodes in self.episodes]
        self.samples = [self.learner.prepare(episodes) for episodes in self.episodes]
        self.gradients = [torch.func.grad(self.surrogate(k))(theta) for k, theta in enumerate(self.thetas)]
        rates = [
            torch.where(g == 0, torch.tensor(-800.0, dtype=F64), torch.log((a - b) / g.where(g != 0, g + 1)))
            for a, b, g in zip(self.thetas, self.thetas[1:], self.gradients, strict=False)
        ]
        self.start = torch.cat([self.thetas[0], *(rate.nan_to_num(nan=-800.0) for rate in rates)])

    def surrogate(self, k: int) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda theta: self.met[k].surrogate(theta, self.deviations[k])

    def adapted(self, whole: torch.Tensor) -> list[torch.Tensor]:
        """The parameters after k = 0, 1, 2 inner steps on the episodes of ``met``, from [theta, log rates] [18]."""
        theta, thetas = whole[:6], [whole[:6]]
        for k in range(2):
            log_rates = whole[6 + 6 * k : 12 + 6 * k]
            theta = theta - torch.exp(log_rates) * torch.func.grad(self.surrogate(k))(theta)
            thetas.append(theta)
        return thetas

    def outer(self, whole: torch.Tensor) -> torch.Tensor:
        thetas = self.adapted(whole)
        return (self.surrogate(1)(thetas[1]) + self.surrogate(2)(thetas[2])) / 2

    def outer_kl(self, whole: torch.Tensor) -> torch.Tensor:
        thetas = self.adapted(whole)
        return (self.met[1].kl(thetas[1]) + self.met[2].kl(thetas[2])) / 2

    def penalty(self, whole: torch.Tensor) -> torch.Tensor:
        thetas = self.adapted(whole)
        return (self.met[0].kl(thetas[0]) + self.met[1].kl(thetas[1])) / 2


def hessian(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    return torch.func.jacrev(torch.func.grad(function))


def deviation(spec: LearnerSpec, episodes: Experience[torch.Tensor]) -> float:
    """What advantages are divided by: the root of the mean squared distance from their mean, and a little more."""
    observations = torch.nn.functional.one_hot(episodes.observations, 2).to(F64)
    values = fit_values(spec.baseline, episodes, observations, observations[:, :, 0] * 0, spec.horizon, 1.0)
    raw = gae(episodes.rewards, values.v_t, values.v_final, episodes.lengths, 1.0, 1.0)
    return float(raw.std(correction=0)) + ADVANTAGE_EPSILON


def as_meta(whole: torch.Tensor) -> Tensors:
    """[theta, log rates of two steps] as a learner names them."""
    meta = {"layers.0.weight": whole[:4].reshape(2, 2), "layers.0.bias": whole[4:6]}
    rates = whole[6:].reshape(2, 6)
    return meta | {
        "log_rates.layers.0.weight": rates[:, :4].reshape(2, 2, 2),
        "log_rates.layers.0.bias": rates[:, 4:],
    }


def as_vector(tensors: Tensors) -> torch.Tensor:
    rates = [tensors[f"log_rates.{name}"].reshape(2, -1) for name in NAMES]
    return torch.cat([*(tensors[name].reshape(-1) for name in NAMES), torch.cat(rates, -1).reshape(-1)])


def gradient_of(learner: Maml, whole: torch.Tensor, samples: list[Any], near: Sequence[Any] = ()) -> torch.Tensor:
    leaves = {name: value.clone().requires_grad_() for name, value in as_meta(whole).items()}
    loss = learner.meta_loss(leaves, samples, near)
    return as_vector(dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True)))


@pytest.fixture
def case(make_spec: MakeSpec) -> Case:
    return Case(make_spec)


def test_the_case_is_what_it_says(case: Case) -> None:
    """Dynamic programming and the sum over trajectories agree, and the inner steps lead from policy to policy."""
    for theta, met in zip(case.thetas, case.met, strict=True):
        summed = torch.func.grad(lambda x: expected_return(x, H))(theta)
        programmed = torch.func.grad(lambda x, met=met: -H * met.surrogate(x, 1.0))(theta)
        torch.testing.assert_close(programmed, summed, rtol=1e-12, atol=1e-12)
    for got, want in zip(case.adapted(case.start), CHANCES, strict=True):
        assert policy(got)[:, 1].tolist() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("method", [Maml, Reptile])
def test_an_inner_step_follows_the_policy_gradient(make_spec: MakeSpec, case: Case, method: type) -> None:
    """theta + rate * grad J / (H * deviation), grad J by summing over every trajectory."""
    rate = {"rates": "fixed", "initial_rate": 0.7} if method is Maml else {"rate": 0.7}
    spec = make_spec(Discrete(2), Discrete(2), horizon=H, hidden_sizes=[], discount=1.0, **rate)
    learner = method(spec)
    theta = case.thetas[0]
    meta = {name: value for name, value in as_meta(case.start).items() if name in NAMES}
    state, _ = learner.adapt(meta, learner.begin(meta, 1), case.episodes[0], torch.ones(1))
    want = theta + 0.7 * torch.func.grad(lambda x: expected_return(x, H))(theta) / (H * case.deviations[0])
    got = torch.cat([state[name].reshape(-1) for name in NAMES])
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_the_second_order_meta_gradient(case: Case) -> None:
    got = gradient_of(case.learner, case.start, case.samples)
    want = torch.func.grad(case.outer)(case.start)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)


def test_the_second_order_meta_gradient_off_the_policies_that_sampled(make_spec: MakeSpec) -> None:
    """Later optimiser steps on the same episodes: ratios are no longer one."""
    case = Case(make_spec, clip=1e6)
    whole = case.start + 0.2 * torch.sin(torch.arange(18, dtype=F64))
    got = gradient_of(case.learner, whole, case.samples)
    torch.testing.assert_close(got, torch.func.grad(case.outer)(whole), rtol=1e-6, atol=1e-7)


def test_the_first_order_meta_gradient(make_spec: MakeSpec) -> None:
    """The inner gradients are constants: what remains is the mean of the adapted policies' own gradients."""
    case = Case(make_spec, order="first")
    g0, g1, g2 = case.gradients
    r0, r1 = torch.exp(case.start[6:]).reshape(2, 6)
    want = torch.cat([(g1 + g2) / 2, -r0 * g0 * (g1 + g2) / 2, -r1 * g1 * g2 / 2])
    torch.testing.assert_close(gradient_of(case.learner, case.start, case.samples), want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("order", ["second", "first"])
def test_promp_adds_the_kl_of_the_policies_before(make_spec: MakeSpec, order: str) -> None:
    case = Case(make_spec, outer="promp", order=order, kl_penalty=0.3, clip=1e6)
    near = case.learner.sampled(as_meta(case.start), case.samples)
    whole = case.start + 0.2 * torch.cos(torch.arange(18, dtype=F64))
    loss = case.learner.meta_loss({n: v.requires_grad_() for n, v in as_meta(whole).items()}, case.samples, near)
    plain = case.learner.meta_loss({n: v.requires_grad_() for n, v in as_meta(whole).items()}, case.samples)
    assert (loss - plain).item() == pytest.approx(0.3 * case.penalty(whole).item(), rel=1e-9)
    assert case.penalty(whole) > 1e-3
    if order == "second":
        want = torch.func.grad(lambda x: case.outer(x) + 0.3 * case.penalty(x))(whole)
        torch.testing.assert_close(gradient_of(case.learner, whole, case.samples, near), want, rtol=1e-6, atol=1e-7)


def test_promp_starts_out_as_ppo(make_spec: MakeSpec, case: Case) -> None:
    """Where nothing has moved, the penalty has neither value nor gradient, and the clip holds nothing."""
    promp = Case(make_spec, outer="promp", kl_penalty=0.3)
    near = promp.learner.sampled(as_meta(promp.start), promp.samples)
    assert len(near) == 2
    got = gradient_of(promp.learner, promp.start, promp.samples, near)
    torch.testing.assert_close(got, gradient_of(case.learner, case.start, case.samples), rtol=1e-9, atol=1e-12)


def test_the_natural_gradient(make_spec: MakeSpec) -> None:
    """The Fisher product is the Hessian of the exact mean KL, and conjugate gradients solve with it."""
    case = Case(make_spec, outer="trpo")
    leaves = {name: value.clone().requires_grad_() for name, value in as_meta(case.start).items()}
    unrolled = list(case.learner.unroll(leaves, case.samples))
    masks = [one.judged.mask for one in unrolled]
    product = fisher_product([one.after for one in unrolled], masks, leaves, damping=1e-5)
    fisher = hessian(case.outer_kl)(case.start) + 1e-5 * torch.eye(18, dtype=F64)
    for row, want in zip(torch.eye(18, dtype=F64), fisher, strict=True):
        torch.testing.assert_close(as_vector(product(as_meta(row))), want, rtol=1e-6, atol=1e-9)
    gradient = torch.func.grad(case.outer)(case.start)
    direction, image = conjugate_gradients(product, as_meta(gradient), 10)
    want = torch.linalg.solve(fisher, gradient)
    torch.testing.assert_close(as_vector(direction), want, rtol=1e-4, atol=1e-4 * want.abs().max().item())
    torch.testing.assert_close(as_vector(image), gradient, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("order", ["second", "first"])
def test_a_trust_region_step_says_how_far_it_went(make_spec: MakeSpec, order: str) -> None:
    """Its KL is that of policies that adapted again, on the stored episodes, from the new meta-parameters."""
    case = Case(make_spec, outer="trpo", order=order)
    moved, metrics = outer_trpo.step(case.learner, as_meta(case.start), case.samples, kl_limit=0.01)
    whole = as_vector(moved)
    assert metrics["outer_kl"] == pytest.approx(case.outer_kl(whole).item(), rel=1e-6)
    assert 0.002 < metrics["outer_kl"] <= 0.01
    assert case.outer(whole) < case.outer(case.start)
    gradient = gradient_of(case.learner, case.start, case.samples)
    assert metrics["gradient_norm"] == pytest.approx(gradient.norm().item(), rel=1e-6)
    if order == "second":
        fisher = hessian(case.outer_kl)(case.start) + 1e-5 * torch.eye(18, dtype=F64)
        direction = torch.linalg.solve(fisher, gradient)
        longest = torch.sqrt(2 * 0.01 / (direction @ gradient)) * direction
        step = case.start - whole
        torch.testing.assert_close(step, metrics["step_size"] * longest, rtol=1e-4, atol=1e-4 * step.norm().item())


def test_a_step_that_cannot_lower_the_loss_is_not_taken(make_spec: MakeSpec) -> None:
    case = Case(make_spec, outer="trpo")
    flat = [dataclasses.replace(s, outer_advantages=s.outer_advantages * 0) for s in case.samples]
    moved, metrics = outer_trpo.step(case.learner, as_meta(case.start), flat, kl_limit=0.01)
    assert torch.equal(as_vector(moved), case.start)
    assert metrics["outer_kl"] == metrics["step_size"] == 0


def test_reptile_follows_the_inner_loop(make_spec: MakeSpec, case: Case) -> None:
    """After one inner step its outer step is ``eps * rate`` times the policy gradient at the start: joint training."""
    spec = make_spec(Discrete(2), Discrete(2), horizon=H, hidden_sizes=[], inner_steps=1, discount=1.0, rate=0.7,
                     updates=4, outer_step=0.8)  # fmt: skip
    learner = Reptile(spec)
    meta = {name: value for name, value in as_meta(case.start).items() if name in NAMES}
    state, _ = learner.adapt(meta, learner.begin(meta, 1), case.episodes[0], torch.ones(1))
    moved = learner.outer_update(meta, state, [True], update=1)
    got = torch.cat([(moved[name] - meta[name]).reshape(-1) for name in NAMES])
    want = 0.8 * 0.75 * 0.7 * torch.func.grad(lambda x: expected_return(x, H))(case.thetas[0])
    torch.testing.assert_close(got, want / (H * case.deviations[0]), rtol=1e-6, atol=1e-7)


def test_the_bias_of_what_each_estimator_leaves_out() -> None:
    """docs/training.md has these numbers.

    The truth is the gradient of J(theta + 3 J'(theta)), J in returns a step, and that is ``(I + 3 J'') J'(theta')``.
    The ratio form's curvature leaves out how later values depend on the policy; log-probabilities in its place leave
    out how samples do, here all there is; first order leaves out all curvature; Reptile also that it is the adapted
    policy that counts.
    """
    rate, theta = 3.0, theta_of(0.25, 0.75)
    met = sampled(theta, H)
    advantages = met.values - (met.old * met.values).sum(-1, keepdim=True)

    def mean_return(x: torch.Tensor) -> torch.Tensor:
        return expected_return(x, H) / H

    def log_form(x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("ts,sa,tsa->", met.occupancy, met.old * torch.log(policy(x)), advantages) / H

    slope = torch.func.grad(mean_return)
    after = slope(theta + rate * slope(theta))
    truth = after + rate * hessian(mean_return)(theta) @ after
    ratio = after - rate * hessian(lambda x: met.surrogate(x, 1.0))(theta) @ after
    logs = after + rate * hessian(log_form)(theta) @ after
    adapted, joint = theta, torch.zeros(6, dtype=F64)
    for _ in range(3):
        joint, adapted = joint + slope(adapted), adapted + rate * slope(adapted)
    assert off(ratio, truth) == pytest.approx((0.084, 0.999), abs=5e-4)
    assert off(after, truth) == pytest.approx((0.319, 0.964), abs=5e-4)
    assert off(logs, after) == pytest.approx((0, 1), abs=1e-9)
    assert off(slope(theta), truth)[1] == pytest.approx(0.851, abs=5e-4)
    assert off(joint, truth)[1] == pytest.approx(0.914, abs=5e-4)


def off(got: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """(distance in lengths of the truth, cosine)."""
    return float((got - truth).norm() / truth.norm()), float(torch.dot(got, truth) / (got.norm() * truth.norm()))


def test_one_step_tasks_have_no_bias(make_spec: MakeSpec) -> None:
    """Where no value comes after an action, the ratio form's curvature is all there is."""
    theta, met = theta_of(0.25, 0.75), sampled(theta_of(0.25, 0.75), 1)
    want = hessian(lambda x: expected_return(x, 1))(theta)
    torch.testing.assert_close(-hessian(lambda x: met.surrogate(x, 1.0))(theta), want, rtol=1e-10, atol=1e-12)
    case = Case(make_spec, horizon=1)
    got = gradient_of(case.learner, case.start, case.samples)
    torch.testing.assert_close(got, torch.func.grad(case.outer)(case.start), rtol=1e-6, atol=1e-7)
