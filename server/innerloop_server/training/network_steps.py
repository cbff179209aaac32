"""Optimiser steps on the networks that :mod:`~innerloop_server.training.packed` keeps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from innerloop.arrays import Array, Arrays
from innerloop_server.learners.learner import Tensors
from innerloop_server.training import packed
from innerloop_server.training.optimiser import AdamState


def unpack(name: str, state: Mapping[str, Array], device: torch.device | None = None) -> tuple[Tensors, AdamState]:
    """The weights of a network of a state, and what Adam remembers of them."""
    weights, first, second = (
        tensors(packed.part(state, f"{name}/{part}"), device) for part in ("weights", "first", "second")
    )
    return weights, AdamState(first, second, int(state[f"{name}/count"]))


def pack(name: str, weights: Tensors, adam: AdamState) -> dict[str, Array]:
    """Undo :func:`unpack`."""
    return packed.pack(name, arrays(weights), arrays(adam.first), arrays(adam.second), adam.count)


def tensors(part: Arrays, device: torch.device | None) -> Tensors:
    """A part of a state on the device."""
    return {name: torch.from_numpy(np.array(value)).to(device or "cpu") for name, value in part.items()}


def arrays(part: Tensors) -> dict[str, Array]:
    """Undo :func:`tensors`."""
    return {name: value.detach().cpu().numpy() for name, value in part.items()}
