from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop_server.learners.distributions import Categorical, Gaussian
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.natural_gradient import conjugate_gradients, dot, fisher_product
from innerloop_server.learners.promp import mean_kl

F64 = torch.float64


def split(x: torch.Tensor) -> Tensors:
    """A vector as two parameters."""
    return {"one": x[:2].reshape(2, 1), "two": x[2:]}


def join(x: Tensors) -> torch.Tensor:
    return torch.cat([x["one"].reshape(-1), x["two"]])


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.integers(0, 2**32 - 1))
def test_conjugate_gradients_solve_within_as_many_steps_as_dimensions(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    root = torch.from_numpy(rng.normal(size=(n, n)))
    matrix, target = root @ root.T + torch.eye(n, dtype=F64), torch.from_numpy(rng.normal(size=n))
    x, image = conjugate_gradients(lambda v: split(matrix @ join(v)), split(target), n)
    torch.testing.assert_close(join(x), torch.linalg.solve(matrix, target), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(join(image), matrix @ join(x), rtol=1e-7, atol=1e-9)


def test_nothing_to_solve() -> None:
    x, image = conjugate_gradients(lambda v: v, split(torch.zeros(4)), 10)
    assert dot(x, x) == dot(image, image) == 0


@pytest.mark.parametrize("kind", ["gaussian", "floored", "categorical"])
def test_the_fisher_product_is_the_hessian_of_the_mean_kl(kind: str) -> None:
    """Of two policies of three tasks with steps missing, one task without any; and of parameters that one does not
    reach, as a deviation at its floor.
    """
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.normal(size=(2, 3, 2, 4, 2)))
    masks = [torch.from_numpy(rng.random((3, 2, 4)) < 0.7) for _ in range(2)]
    masks[0][1] = False

    def policies(vector: torch.Tensor) -> list[Gaussian | Categorical]:
        kernel, log_std = vector[:4].reshape(2, 2), vector[4:]
        if kind == "categorical":
            return [Categorical(torch.tanh(one @ kernel) + log_std) for one in x]
        floor = 1.0 if kind == "floored" else -9.0
        wide = log_std.clamp(min=floor).reshape(1, 1, 1, 2)
        return [Gaussian(torch.tanh(one @ kernel), wide.expand(3, 1, 1, 2)) for one in x]

    start = torch.from_numpy(rng.normal(size=6)) * 0.3
    old = [policy.detach() for policy in policies(start)]

    def kl(vector: torch.Tensor) -> torch.Tensor:
        return mean_kl(old, policies(vector), masks)

    leaves = {"all": start.clone().requires_grad_()}
    product = fisher_product(policies(leaves["all"]), masks, leaves, damping=0.125)
    hessian = torch.func.jacrev(torch.func.grad(kl))(start) + 0.125 * torch.eye(6, dtype=F64)
    for row, want in zip(torch.eye(6, dtype=F64), hessian, strict=True):
        torch.testing.assert_close(product({"all": row})["all"], want, rtol=1e-9, atol=1e-12)
