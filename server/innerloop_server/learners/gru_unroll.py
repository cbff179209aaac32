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
        gates = gate_inputs.new_empty((steps, b, rows, 2 * size))
        candidates, recalled = (gate_inputs.new_empty((steps, b, rows, size)) for _ in range(2))
        for t in range(steps):
            of_input = gate_inputs[:, t]
            of_memory = torch.baddbmm(bias.unsqueeze(1), memories[t], kernel)
            torch.add(of_input[..., : 2 * size], of_memory[..., : 2 * size], out=gates[t])
            gates[t].sigmoid_()
            recalled[t] = of_memory[..., 2 * size :]
            torch.addcmul(of_input[..., 2 * size :], gates[t, ..., :size], recalled[t], out=candidates[t])
            candidates[t].mul_(2).sigmoid_().mul_(2).sub_(1)  # tanh, in a third of its time
            torch.lerp(candidates[t], memories[t], gates[t, ..., size:], out=memories[t + 1])
        ctx.save_for_backward(kernel, memories, gates, candidates, recalled)
        return memories[1:].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        kernel, memories, gates, candidates, recalled = ctx.saved_tensors
        before = memories[:-1]
        steps, b, rows, size = before.shape
        reset, keep = gates[..., :size], gates[..., size:]
        # What the gradient of a step's memory is times for that of what went into each gate: for all steps at once.
        of_candidate = (1 - keep) * (1 - candidates * candidates)
        of_reset = of_candidate * recalled * reset * (1 - reset)
        of_keep = (before - candidates) * keep * (1 - keep)
        factors = torch.stack([of_reset, of_keep, of_candidate * reset], -2)
        of_gates = torch.empty_like(factors)  # [T, B, R, 3, M]: the gradient of ``gh``
        total = torch.empty_like(before)  # of the memory after each step, by what is read of it and by what follows
        back = kernel.transpose(1, 2)
        carried = grad.new_zeros((b, rows, size))
        for t in reversed(range(steps)):
            torch.add(grad[:, t], carried, out=total[t])
            torch.mul(factors[t], total[t].unsqueeze(-2), out=of_gates[t])
            carried = torch.baddbmm(total[t] * keep[t], of_gates[t].flatten(-2), back)
        gradient = of_gates.flatten(-2).transpose(0, 1)  # [B, T, R, 3 * M]
        of_kernel = torch.bmm(before.transpose(0, 1).flatten(1, 2).transpose(1, 2), gradient.flatten(1, 2))
        of_input = torch.cat([gradient[..., : 2 * size], (of_candidate * total).transpose(0, 1)], -1)
        return of_input, of_kernel, gradient.sum((1, 2)), carried
