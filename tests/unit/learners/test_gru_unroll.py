"""The gradient that is written out is the one that autograd takes through the steps."""

from __future__ import annotations

import pytest
import torch

from innerloop_server.learners import recurrent
from innerloop_server.learners.gru_unroll import unroll_gates
from innerloop_server.learners.learner import Tensors

PARTS = ("gates", "gru.hidden.weight", "gru.hidden.bias", "memory")


def parts(b: int, steps: int, rows: int, size: int, dtype: torch.dtype = torch.float64) -> Tensors:
    draw = torch.Generator().manual_seed(b + steps)
    shapes = ((b, steps, rows, 3 * size), (b, size, 3 * size), (b, 3 * size), (b, rows, size))
    return {
        name: torch.randn(shape, generator=draw, dtype=dtype).requires_grad_()
        for name, shape in zip(PARTS, shapes, strict=True)
    }


def step_by_step(given: Tensors) -> torch.Tensor:
    memory, memories = given["memory"], []
    for gates in given["gates"].unbind(1):
        memory = recurrent.remember(given, memory, gates)
        memories.append(memory)
    return torch.stack(memories, 1)


@pytest.mark.parametrize(("b", "steps", "rows", "size"), [(1, 1, 1, 1), (1, 7, 5, 3), (3, 4, 2, 6)])
def test_it_is_the_cell_step_by_step_and_so_is_its_gradient(b: int, steps: int, rows: int, size: int) -> None:
    given = parts(b, steps, rows, size)
    whole, one_by_one = unroll_gates(*given.values()), step_by_step(given)
    torch.testing.assert_close(whole, one_by_one, atol=1e-14, rtol=0)
    cotangent = torch.randn(whole.shape, generator=torch.Generator().manual_seed(9), dtype=whole.dtype)
    got = torch.autograd.grad((whole * cotangent).sum(), list(given.values()))
    want = torch.autograd.grad((one_by_one * cotangent).sum(), list(given.values()))
    for name, ours, theirs in zip(PARTS, got, want, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12, msg=name)


def test_its_gradient_agrees_with_finite_differences() -> None:
    assert torch.autograd.gradcheck(unroll_gates, tuple(parts(2, 3, 2, 2).values()))


def test_in_single_precision_it_stays_near_the_cell_over_a_long_trial() -> None:
    given = {name: value.detach() for name, value in parts(1, 300, 4, 16, torch.float32).items()}
    # Kernels of such sizes as training starts from: with larger ones rounding grows by itself.
    given["gru.hidden.weight"] = given["gru.hidden.weight"] / 4
    torch.testing.assert_close(unroll_gates(*given.values()), step_by_step(given), atol=2e-5, rtol=0)
