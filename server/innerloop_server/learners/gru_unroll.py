"""A gated recurrent unit over whole trials, with its gradient written out.

Autograd through one step after another makes a small product of the kernel's gradient at every step, and a dozen passes
over the rows besides. Here a step of the backward pass is a multiplication and a product; all that does not wait for
the memory, the kernel's gradient above all, is done for the whole trial at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable


def unroll_gates(
    gate_inputs: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, memory: torch.Tensor
) -> torch.Tensor:
    """The memory after each step: what ``recurrent.remember`` gives step by step, to rounding.

    Args:
        gate_inputs: [B, T, R, 3 * M]: ``gi``.
        kernel: [B, M, 3 * M]: ``gru.hidden.weight``.
        bias: [B, 3 * M]: ``gru.hidden.bias``.
        memory: [B, R, M] before the first step.

    Returns:
        [B, T, R, M]; it can be differentiated once.
    """
    memories: torch.Tensor = _Unroll.apply(gate_inputs, kernel, bias, memory)  # type: ignore[no-untyped-call]
    return memories


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gate_inputs: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, memory: torch.Tensor
    ) -> torch.Tensor:
        b, steps, rows, width = gate_inputs.shape
        size = width // 3
        memories = gate_inputs.new_empty((steps + 1, b, rows, size))
        memories[0] = memory
        of_memory = gate_inputs.new_empty((steps, b, rows, width))
        gates = gate_inputs.new_empty((steps, b, rows, 2 * size))
        candidates = gate_inputs.new_empty((steps, b, rows, size))
        minus_one = gate_inputs.new_tensor(-1.0)
        # Views are made once for all steps: making them costs as much as what is done with a few rows.
        every, of_input = memories.unbind(0), gate_inputs[..., : 2 * size].unbind(1)
        twice = (2 * gate_inputs[..., 2 * size :]).unbind(1)
        by_step = zip(
            every[:-1],
            every[1:],
            of_input,
            twice,
            of_memory.unbind(0),
            of_memory[..., : 2 * size].unbind(0),
            of_memory[..., 2 * size :].unbind(0),
            gates.unbind(0),
            gates[..., :size].unbind(0),
            gates[..., size:].unbind(0),
            candidates.unbind(0),
            strict=True,
        )
        bias = bias.unsqueeze(1)
        for before, after, gi, gi_n, gh_all, gh, gh_n, both, reset, keep, new in by_step:
            torch.baddbmm(bias, before, kernel, out=gh_all)
            torch.add(gi, gh, out=both).sigmoid_()
            torch.addcmul(gi_n, reset, gh_n, value=2, out=new).sigmoid_()
            torch.add(minus_one, new, alpha=2, out=new)  # tanh, in a third of its time
            torch.lerp(new, before, keep, out=after)
        ctx.save_for_backward(kernel, memories, gates, candidates, of_memory)
        return memories[1:].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        kernel, memories, gates, candidates, of_memory = ctx.saved_tensors
        before = memories[:-1]
        _, b, rows, size = before.shape
        reset, keep, recalled = gates[..., :size], gates[..., size:], of_memory[..., 2 * size :]
        # What the gradient of a step's memory is times for that of what went into each gate: for all steps at once.
        of_candidate = (1 - keep) * (1 - candidates * candidates)
        of_reset = of_candidate * recalled * reset * (1 - reset)
        of_keep = (before - candidates) * keep * (1 - keep)
        factors = torch.stack([of_reset, of_keep, of_candidate * reset], -2)
        of_gates = torch.empty_like(factors)  # [T, B, R, 3, M]: the gradient of ``gh``
        total = torch.empty_like(before)  # of the memory after each step, by what is read of it and by what follows
        back = kernel.transpose(1, 2)
        carried = grad.new_zeros((b, rows, size))
        by_step = zip(
            grad.unbind(1),
            total.unbind(0),
            total.unsqueeze(-2).unbind(0),
            keep.unbind(0),
            factors.unbind(0),
            of_gates.unbind(0),
            of_gates.flatten(-2).unbind(0),
            strict=True,
        )
        for read, whole, spread, kept, factor, gated, flat in reversed(list(by_step)):
            torch.add(read, carried, out=whole)
            torch.mul(factor, spread, out=gated)
            carried = torch.baddbmm(whole * kept, flat, back)
        gradient = of_gates.flatten(-2).transpose(0, 1)  # [B, T, R, 3 * M]
        of_kernel = torch.bmm(before.transpose(0, 1).flatten(1, 2).transpose(1, 2), gradient.flatten(1, 2))
        of_input = torch.cat([gradient[..., : 2 * size], (of_candidate * total).transpose(0, 1)], -1)
        return of_input, of_kernel, gradient.sum((1, 2)), carried
