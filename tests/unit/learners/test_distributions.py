from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop import policy
from innerloop.arrays import Box, Discrete
from innerloop_server.learners.distributions import Categorical, Gaussian


def test_gaussian_numbers() -> None:
    standard = Gaussian(torch.zeros(2), torch.zeros(2))
    assert standard.log_prob(torch.tensor([1.0, 0.0])).item() == pytest.approx(-0.5 - math.log(2 * math.pi))
    assert standard.entropy().item() == pytest.approx(math.log(2 * math.pi * math.e))
    wide = Gaussian(torch.tensor([1.0, 0.0]), torch.tensor([math.log(2.0), 0.0]))
    assert standard.kl(standard).item() == 0
    assert standard.kl(wide).item() == pytest.approx(math.log(2) + (1 + 1) / 8 - 0.5)
    assert wide.sample(torch.tensor([0.5, -1.0])).tolist() == pytest.approx([2.0, -1.0])
    assert wide.sample(None) is wide.mean


def test_categorical_numbers() -> None:
    fair = Categorical(torch.zeros(4))
    skewed = Categorical(torch.log(torch.tensor([0.5, 0.25, 0.125, 0.125])) + 7)
    assert fair.entropy().item() == pytest.approx(math.log(4))
    assert skewed.log_prob(torch.tensor(0)).item() == pytest.approx(math.log(0.5))
    assert fair.kl(skewed).item() == pytest.approx(0.25 * math.log(0.5 * 1 * 2 * 2))
    assert skewed.kl(skewed).item() == 0
    assert skewed.sample(None).item() == 0
    for uniform, action in ((0.0, 0), (0.49, 0), (0.51, 1), (0.76, 2), (0.99, 3), (1.0, 3)):
        assert skewed.sample(torch.tensor([uniform])).item() == action


def test_large_logits_stay_finite() -> None:
    sure = Categorical(torch.tensor([1e4, 0.0]))
    assert sure.log_prob(torch.tensor(0)).item() == 0
    assert sure.sample(torch.tensor([0.999])).item() == 0
    assert math.isfinite(sure.entropy().item())


def test_kl_across_kinds_is_refused() -> None:
    with pytest.raises(TypeError, match="Categorical"):
        Gaussian(torch.zeros(2), torch.zeros(2)).kl(Categorical(torch.zeros(2)))
    with pytest.raises(TypeError, match="Gaussian"):
        Categorical(torch.zeros(2)).kl(Gaussian(torch.zeros(2), torch.zeros(2)))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_samples_as_the_portable_policy_does(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    mean, log_std = rng.normal(size=(2, 3, size)).astype(np.float32)
    noise = policy.draw_noise(Box.of(-1.0, 1.0, (size,)), rng, (3,))
    raw, log_prob = policy.sample({"mean": mean, "log_std": log_std}, noise)
    gaussian = Gaussian(torch.from_numpy(mean), torch.from_numpy(log_std))
    sampled = gaussian.sample(torch.from_numpy(noise))
    np.testing.assert_allclose(sampled.numpy(), raw, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gaussian.log_prob(torch.from_numpy(raw)).numpy(), log_prob, rtol=1e-5, atol=1e-5)

    uniforms = policy.draw_noise(Discrete(size), rng, (3,))
    action, log_prob = policy.sample({"logits": mean}, uniforms)
    categorical = Categorical(torch.from_numpy(mean))
    assert categorical.sample(torch.from_numpy(uniforms)).tolist() == action.tolist()
    np.testing.assert_allclose(categorical.log_prob(torch.from_numpy(action)).numpy(), log_prob, rtol=1e-5, atol=1e-5)
