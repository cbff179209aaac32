"""Adam as a pure function: what it remembers is a value, so a training checkpoints and resumes to the bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from innerloop_server.learners.learner import Tensors

BETA_1 = 0.9
BETA_2 = 0.999
EPSILON = 1e-8


@dataclass(frozen=True)
class AdamState:
    """What Adam remembers of the gradients."""

    first: Tensors
    """Running mean of each gradient."""
    second: Tensors
    """Running mean of each gradient's square."""
    count: int
    """Steps behind it."""


def start(parameters: Tensors) -> AdamState:
    """Nothing remembered yet."""
    first, second = ({name: torch.zeros_like(value) for name, value in parameters.items()} for _ in range(2))
    return AdamState(first, second, 0)


def step(
    parameters: Tensors, gradients: Tensors, state: AdamState, rates: Mapping[str, float]
) -> tuple[Tensors, AdamState]:
    """One step of Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1).

    Args:
        parameters: name -> value.
        gradients: name -> gradient, same names and shapes.
        state: as :func:`start` or the last step gave it.
        rates: name -> learning rate.

    Returns:
        (parameters, state), both new.
    """
    count = state.count + 1
    correction_1, correction_2 = 1 - BETA_1**count, 1 - BETA_2**count
    moved: Tensors = {}
    first: Tensors = {}
    second: Tensors = {}
    for name, value in parameters.items():
        g = gradients[name]
        first[name] = BETA_1 * state.first[name] + (1 - BETA_1) * g
        second[name] = BETA_2 * state.second[name] + (1 - BETA_2) * g * g
        scale = torch.sqrt(second[name] / correction_2) + EPSILON
        moved[name] = value - rates[name] * (first[name] / correction_1) / scale
    return moved, AdamState(first, second, count)


def clip_norm(gradients: Tensors, limit: float) -> tuple[Tensors, float]:
    """Shrink the gradients together so that their norm is at most ``limit`` (0: leave them).

    Returns:
        (gradients, norm before).
    """
    # The exact sum: the order of the names, which a checkpoint does not keep, must not round it.
    norm = math.sqrt(math.fsum(float((g * g).sum()) for g in gradients.values()))
    if limit <= 0 or norm <= limit:
        return gradients, norm
    return {name: g * (limit / norm) for name, g in gradients.items()}, norm


def leaves(weights: Tensors) -> Tensors:
    """The weights as what a gradient is taken by."""
    return {name: value.detach().requires_grad_() for name, value in weights.items()}


def descend(
    loss: torch.Tensor, by: Tensors, state: AdamState, rates: Mapping[str, float] | float, limit: float = 0.0
) -> tuple[Tensors, AdamState, float]:
    """One Adam step down a loss.

    Args:
        loss: a scalar, a function of ``by``.
        by: what :func:`leaves` gave.
        state: what Adam remembers.
        rates: learning rate of each of them, or of all.
        limit: as in :func:`clip_norm`.

    Returns:
        (the weights after it, state, norm of the gradient before clipping).
    """
    gradients = dict(zip(by, torch.autograd.grad(loss, list(by.values())), strict=True))
    clipped, norm = clip_norm(gradients, limit)
    values = {name: value.detach() for name, value in by.items()}
    each = rates if isinstance(rates, Mapping) else dict.fromkeys(values, rates)
    moved, after = step(values, clipped, state, each)
    return moved, after, norm
