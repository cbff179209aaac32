"""A small tanh network that runs on numpy arrays and on torch tensors alike.

The networks of teachers are this: trained with torch, and asked for tasks without it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from innerloop.arrays import Arrays


def initial(sizes: tuple[int, ...], rng: np.random.Generator, last_layer_scale: float = 1.0) -> Arrays:
    """Fresh weights: Xavier-uniform kernels (Glorot and Bengio 2010), zero biases, float32.

    Args:
        sizes: of the input, of each hidden layer, of the output.
        rng: where they are drawn from.
        last_layer_scale: shrinks the last kernel.

    Returns:
        ``<i>.weight`` [sizes[i], sizes[i + 1]] and ``<i>.bias`` [sizes[i + 1]] of each layer i.
    """
    weights: dict[str, np.ndarray] = {}
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        bound = np.sqrt(6 / (inputs + outputs)) * (last_layer_scale if i == len(sizes) - 2 else 1.0)
        weights[f"{i}.weight"] = rng.uniform(-bound, bound, (inputs, outputs)).astype(np.float32)
        weights[f"{i}.bias"] = np.zeros(outputs, np.float32)
    return weights


def forward(weights: Mapping[str, Any], x: Any, tanh: Callable[[Any], Any] = np.tanh) -> Any:
    """The network's output, nothing applied to it.

    Args:
        weights: from :func:`initial`, as arrays or as tensors.
        x: [..., inputs] of the same kind.
        tanh: of that kind: ``np.tanh`` or ``torch.tanh``.

    Returns:
        [..., outputs].
    """
    layers = len(weights) // 2
    for i in range(layers):
        x = x @ weights[f"{i}.weight"] + weights[f"{i}.bias"]
        if i < layers - 1:
            x = tanh(x)
    return x
