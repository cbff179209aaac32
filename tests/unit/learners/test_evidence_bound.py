"""The evidence lower bound of a belief, part by part."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Independent, Normal, kl_divergence

from innerloop_server.learners import evidence_bound
from innerloop_server.learners.evidence_bound import Belief

numbers = st.floats(-3, 3, width=32)


def torchs(belief: Belief) -> Independent:
    return Independent(Normal(belief.mean, torch.exp(0.5 * belief.log_variance)), 1)


@given(st.lists(numbers, min_size=8, max_size=8))
@settings(deadline=None)
def test_entropy_and_kl_are_those_of_torch(values: list[float]) -> None:
    mean, log_variance, other_mean, other = torch.tensor(values, dtype=torch.float64).reshape(4, 2)
    one, two = Belief(mean, log_variance), Belief(other_mean, other)
    torch.testing.assert_close(one.entropy(), torchs(one).entropy())
    torch.testing.assert_close(one.kl(two), kl_divergence(torchs(one), torchs(two)))


def test_a_chain_of_beliefs_by_hand() -> None:
    # From N(0, 1) to N(1, 1): 1/2. To N(1, e^2): (e^2 - 1 - 2) / 2. To N(3, e^2): 4 e^-2 / 2. Nothing moved: 0.
    mean = torch.tensor([1.0, 1.0, 3.0, 3.0]).reshape(4, 1, 1)
    log_variance = torch.tensor([0.0, 2.0, 2.0, 2.0]).reshape(4, 1, 1)
    want = torch.tensor([0.5, (math.e**2 - 3) / 2, 2 * math.e**-2, 0.0])
    torch.testing.assert_close(evidence_bound.kl_chain(Belief(mean, log_variance))[:, 0], want)


def test_payments_are_counted_state_by_state() -> None:
    state = torch.tensor([[0, 2], [1, 2], [0, 2], [1, 0]])
    reward = torch.tensor([[-1.0, 1.0], [2.0, 0.5], [0.0, -0.1], [5.0, 1.0]])
    real = torch.tensor([[True, True], [True, True], [True, True], [False, True]])
    counts = evidence_bound.paid_states(state, reward, real, 3)
    assert counts[0].tolist() == [[0, 1, 0], [1, 0, 2]]
    assert counts[1].tolist() == [[2, 0, 0], [0, 0, 1]]
    # Chances of being paid: 1/2, 1/4, 4/5.
    logits = torch.tensor([0.0, math.log(1 / 3), math.log(4)])
    want = [2 * math.log(1 / 2) + math.log(1 / 4), math.log(1 / 2) + 2 * math.log(4 / 5) + math.log(1 / 5)]
    torch.testing.assert_close(evidence_bound.log_chance(logits, counts), torch.tensor(want))


def test_the_best_chances_are_the_shares() -> None:
    """Of a state that was paid 3 times in 4, log 3 is what explains most."""
    counts = torch.tensor([[[3.0]], [[1.0]]])
    logits = torch.linspace(-3, 3, 601, dtype=torch.float64).reshape(-1, 1, 1)
    best = logits[evidence_bound.log_chance(logits, counts).argmax()]
    assert abs(float(best) - math.log(3)) < 0.01


def test_a_goal_is_where_it_was_found_or_where_nobody_was() -> None:
    shares = torch.tensor([0.5, 0.3, 0.2])
    tried = {
        "found in the first": ([3, 0, 0], [1, 2, 0], 0.5),
        "not in the first": ([0, 0, 0], [4, 0, 0], 0.3 + 0.2),
        "nowhere been": ([0, 0, 0], [0, 0, 0], 1.0),
        "only the last is left": ([0, 0, 0], [1, 2, 0], 0.2),
        "all in vain": ([0, 0, 0], [1, 2, 1], 1.0),
    }
    for name, (paid, unpaid, want) in tried.items():
        counts = torch.tensor([paid, unpaid]).float()
        logits = (torch.log(shares) + 7).requires_grad_()
        log_share = evidence_bound.log_goal(logits, counts)
        assert float(log_share.detach()) == pytest.approx(math.log(want), abs=1e-6), name
        (gradient,) = torch.autograd.grad(log_share, [logits])
        assert torch.isfinite(gradient).all(), name


def test_what_was_tried_does_not_bias_where_the_goal_is_believed() -> None:
    """One of three states is the goal. The first is always tried, the last only where the second was tried in vain: the
    likelihood is still greatest at a third each. Payments state by state would make the last one sure."""
    trials = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 0, 0], [1, 0, 0], [1, 1, 0]]])
    logits = torch.zeros(3, requires_grad=True)
    (of_goal,) = torch.autograd.grad(evidence_bound.log_goal(logits, trials).sum(), [logits])
    torch.testing.assert_close(of_goal, torch.zeros(3), atol=1e-6, rtol=0)
    (of_states,) = torch.autograd.grad(evidence_bound.log_chance(logits, trials).sum(), [logits])
    assert of_states[2] == 0.5, "never seen unpaid"


@given(st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 99))
@settings(deadline=None)
def test_steps_are_spread_over_the_trial(k: int, lengths: list[int], seed: int) -> None:
    uniforms = torch.from_numpy(np.random.default_rng(seed).random((k, len(lengths))))
    at = evidence_bound.spread(uniforms, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        steps = at[:, row].tolist()
        assert steps == sorted(steps)
        assert steps[0] >= 0
        assert steps[-1] < length
        if k == length:
            assert steps == list(range(length))


def test_every_step_is_drawn_as_often_as_the_others() -> None:
    uniforms = torch.from_numpy(np.random.default_rng(0).random((3, 40_000)))
    at = evidence_bound.spread(uniforms, torch.full((40_000,), 7))
    shares = torch.bincount(at.flatten(), minlength=7) / at.numel()
    assert float((shares - 1 / 7).abs().max()) < 0.005


def test_a_density_up_to_a_constant() -> None:
    predicted, targets = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    assert evidence_bound.log_density(predicted, targets).tolist() == [-2.5]
