"""Optimiser steps on the networks that :mod:`~innerloop_server.training.packed` keeps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from innerloop.arrays import Array, Arrays
from innerloop_server.learners.learner import Tensors
from innerloop_server.training import optimiser, packed
from innerloop_server.training.optimiser import AdamState


def unpack(name: str, state: Mapping[str, Array], device: torch.device | None = None) -> tuple[Tensors, AdamState]:
    """The weights of a network of a state, and what Adam remembers of them."""
    weights, first, second = (
        _tensors(packed.part(state, f"{name}/{part}"), device) for part in ("weights", "first", "second")
    )
    return weights, AdamState(first, second, int(state[f"{name}/count"]))


def pack(name: str, weights: Tensors, adam: AdamState) -> dict[str, Array]:
    """Undo :func:`unpack`."""
    return packed.pack(name, _arrays(weights), _arrays(adam.first), _arrays(adam.second), adam.count)


def leaves(weights: Tensors) -> Tensors:
    """The weights as what a gradient is taken by."""
    return {name: value.detach().requires_grad_() for name, value in weights.items()}


def descend(
    loss: torch.Tensor, by: Tensors, adam: AdamState, rate: float, clip: float = 0.0
) -> tuple[Tensors, AdamState]:
    """One Adam step down ``loss``, a function of the leaves ``by``; ``clip`` as in ``optimiser.clip_norm``."""
    gradients = dict(zip(by, torch.autograd.grad(loss, list(by.values())), strict=True))
    clipped, _ = optimiser.clip_norm(gradients, clip)
    values = {name: value.detach() for name, value in by.items()}
    return optimiser.step(values, clipped, adam, dict.fromkeys(values, rate))


def _tensors(arrays: Arrays, device: torch.device | None) -> Tensors:
    return {name: torch.from_numpy(np.array(value)).to(device or "cpu") for name, value in arrays.items()}


def _arrays(tensors: Tensors) -> dict[str, Array]:
    return {name: value.detach().cpu().numpy() for name, value in tensors.items()}
