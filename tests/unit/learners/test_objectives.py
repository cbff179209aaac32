from __future__ import annotations

import math

import pytest
import torch

from innerloop_server.learners import objectives


def test_masked_mean_by_hand() -> None:
    x = torch.tensor([[1.0, 2.0, 99.0], [math.nan, math.nan, math.nan]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert objectives.masked_mean(x, mask).tolist() == [1.5, 0.0]


def test_normalise_by_hand() -> None:
    x = torch.tensor([[1.0, 3.0, 99.0], [10.0, 30.0, 20.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    got = objectives.normalise(x, mask)
    assert got[0].tolist() == pytest.approx([-1, 1, 0])
    assert got[1].tolist() == pytest.approx([-(1.5**0.5), 1.5**0.5, 0])


def test_constant_advantages_become_zero() -> None:
    assert objectives.normalise(torch.full((1, 4), 7.0), torch.ones(1, 4, dtype=torch.bool)).tolist() == [[0] * 4]


def test_ratio_form_has_the_policy_gradient_at_the_sampling_policy() -> None:
    generator = torch.Generator().manual_seed(0)
    log_prob = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    advantages = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, 3, 4, generator=generator) < 0.7
    ratio_form = objectives.surrogate(log_prob, log_prob.detach(), advantages, mask).sum()
    log_form = -objectives.masked_mean(log_prob * advantages, mask).sum()
    torch.testing.assert_close(torch.autograd.grad(ratio_form, log_prob), torch.autograd.grad(log_form, log_prob))


def test_the_clipped_surrogate_takes_the_worse_side() -> None:
    # Ratios 2 and 1/2 with advantages +1 and -1 of each: min(rA, clip(r)A) = 1.2, -2, 0.5, -0.8.
    log_prob = torch.log(torch.tensor([[2.0, 2.0, 0.5, 0.5]]))
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    loss = objectives.clipped_surrogate(
        log_prob, torch.zeros(1, 4), advantages, torch.ones(1, 4, dtype=torch.bool), 0.2
    )
    assert loss.item() == pytest.approx(-(1.2 - 2 + 0.5 - 0.8) / 4)
