from __future__ import annotations

import pytest
import torch

from innerloop_server.training import optimiser


def test_equals_torch_adam() -> None:
    generator = torch.Generator().manual_seed(0)
    mine = {"a": torch.randn(3, 2, generator=generator), "b": torch.randn(4, generator=generator)}
    theirs = {name: value.clone().requires_grad_() for name, value in mine.items()}
    adam = torch.optim.Adam([{"params": [theirs["a"]], "lr": 0.1}, {"params": [theirs["b"]], "lr": 0.01}])
    state = optimiser.start(mine)
    for _ in range(5):
        gradients = {name: torch.randn(value.shape, generator=generator) for name, value in mine.items()}
        for name, value in theirs.items():
            value.grad = gradients[name].clone()
        adam.step()
        mine, state = optimiser.step(mine, gradients, state, {"a": 0.1, "b": 0.01})
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value.detach(), rtol=1e-5, atol=1e-6)
    assert state.count == 5


def test_a_step_leaves_its_arguments_alone() -> None:
    parameters, gradients = {"a": torch.ones(2)}, {"a": torch.ones(2)}
    state = optimiser.start(parameters)
    optimiser.step(parameters, gradients, state, {"a": 0.1})
    assert parameters["a"].tolist() == [1, 1]
    assert state.first["a"].tolist() == [0, 0]
    assert state.count == 0


def test_clip_norm() -> None:
    gradients = {"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])}
    clipped, norm = optimiser.clip_norm(gradients, 1.0)
    assert norm == pytest.approx(5)
    assert [clipped["a"].item(), clipped["b"].item()] == pytest.approx([0.6, 0.8])
    assert optimiser.clip_norm(gradients, 0.0)[0] is gradients
    assert optimiser.clip_norm(gradients, 6.0)[0] is gradients


def test_a_norm_does_not_depend_on_the_order_of_names() -> None:
    """A checkpoint comes back with its tensors in any order, and must go on to the bit."""
    parts = {str(i): torch.tensor([x]) for i, x in enumerate([1e8, *[1.0] * 20])}
    backwards = dict(reversed(parts.items()))
    assert optimiser.clip_norm(parts, 0.0)[1] == optimiser.clip_norm(backwards, 0.0)[1]
