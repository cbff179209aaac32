from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop import policy
from innerloop.arrays import Box, Discrete, Space
from innerloop_server.domain import LearnerSpec
from innerloop_server.learners import networks
from innerloop_server.learners.distributions import Gaussian

MakeSpec = Callable[..., LearnerSpec]

SPACES: list[Space] = [Box.of(-np.inf, np.inf, (3,)), Box.of(-1.0, 1.0, (2, 2)), Discrete(4)]


@pytest.mark.parametrize("observation", SPACES, ids=str)
@pytest.mark.parametrize("action", [Box.of(-1.0, 1.0, (2,)), Discrete(3)], ids=str)
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 5), st.sampled_from([(), (8,), (16, 8)]))
def test_agrees_with_the_portable_policy(
    make_spec: MakeSpec, observation: Space, action: Space, seed: int, b: int, n: int, hidden: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    header = networks.header(make_spec(observation, action), hidden)
    weights = {
        name: rng.normal(size=(b, *shape)).astype(np.float32) * 0.5
        for name, shape in policy.weight_shapes(header).items()
    }
    if isinstance(observation, Discrete):
        seen = rng.integers(0, observation.n, (b, n))
    else:
        seen = rng.normal(size=(b, n, *observation.shape)).astype(np.float32)
    want = policy.forward(header, weights, seen)
    got = networks.forward(header, {k: torch.from_numpy(v) for k, v in weights.items()}, torch.from_numpy(seen))
    for name, value in want.items():
        np.testing.assert_allclose(
            torch.broadcast_to(getattr(got, name), value.shape).numpy(), value, rtol=1e-5, atol=1e-5
        )


def test_leading_dimensions_are_free(make_spec: MakeSpec) -> None:
    header = networks.header(make_spec(), (8,))
    weights = networks.stack(
        networks.initial_weights(header, np.random.default_rng(0), last_layer_scale=1.0, initial_log_std=-1.0), 2
    )
    observation = torch.randn(2, 3, 4, 3, generator=torch.Generator().manual_seed(0))
    whole = networks.forward(header, weights, observation)
    flat = networks.forward(header, weights, observation.reshape(2, 12, 3))
    assert isinstance(whole, Gaussian)
    assert isinstance(flat, Gaussian)
    assert torch.equal(whole.mean, flat.mean.reshape(2, 3, 4, 2))
    assert whole.log_prob(whole.mean).shape == (2, 3, 4)


def test_the_deviation_has_a_floor(make_spec: MakeSpec) -> None:
    header = networks.header(make_spec(), ())
    weights = {k: torch.full((1, *shape), -100.0) for k, shape in policy.weight_shapes(header).items()}
    floored = networks.forward(header, weights, torch.zeros(1, 1, 3))
    assert isinstance(floored, Gaussian)
    assert floored.log_std.min().item() == pytest.approx(policy.LOG_STD_FLOOR)


def test_initial_weights(make_spec: MakeSpec) -> None:
    header = networks.header(make_spec(), (8,))

    def fresh(scale: float) -> dict[str, torch.Tensor]:
        return networks.initial_weights(header, np.random.default_rng(3), last_layer_scale=scale, initial_log_std=-0.5)

    weights, shrunk = fresh(1.0), fresh(0.1)
    assert {k: tuple(v.shape) for k, v in weights.items()} == policy.weight_shapes(header)
    assert weights["log_std"].tolist() == [-0.5, -0.5]
    assert not weights["layers.0.bias"].any()
    assert weights["layers.0.weight"].abs().max() <= (6 / 11) ** 0.5
    assert torch.equal(weights["layers.0.weight"], shrunk["layers.0.weight"])
    torch.testing.assert_close(weights["layers.1.weight"] * 0.1, shrunk["layers.1.weight"])
