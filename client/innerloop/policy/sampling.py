"""From distribution parameters to actions. Arrays with free leading dimensions."""

from __future__ import annotations

import math

import numpy as np

from innerloop.arrays import Array, Arrays, Discrete, Space
from innerloop.policy.header import Header


def draw_noise(space: Space, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """The randomness that :func:`sample` turns into actions: ``[*shape, d]`` standard normals for a Box of d
    numbers, ``[*shape, 1]`` uniforms in [0, 1) for Discrete; float32.
    """
    if isinstance(space, Discrete):
        return rng.random((*shape, 1), dtype=np.float32)
    return rng.standard_normal((*shape, space.size), dtype=np.float32)


def sample(parameters: Arrays, noise: Array | None) -> tuple[Array, Array]:
    """Raw actions and their log-probabilities.

    Args:
        parameters: what :func:`~innerloop.policy.forward` gave.
        noise: what :func:`draw_noise` gave, with the same leading dimensions; ``None`` for the greedy action.

    Returns:
        (raw action, log-probability): float32 ``[..., d]`` or int64 ``[...]``; float32 ``[...]``.
    """
    if "logits" in parameters:
        logits = parameters["logits"]
        log_p = logits - logits.max(-1, keepdims=True)
        log_p = log_p - np.log(np.exp(log_p).sum(-1, keepdims=True))
        if noise is None:
            raw = logits.argmax(-1)
        else:
            below = np.exp(log_p).cumsum(-1) <= noise
            raw = np.minimum(below.sum(-1), logits.shape[-1] - 1)
        return raw.astype(np.int64), np.take_along_axis(log_p, raw[..., None], -1)[..., 0]
    mean, log_std = parameters["mean"], parameters["log_std"]
    raw = mean if noise is None else mean + np.exp(log_std) * noise
    return raw.astype(np.float32), log_prob(parameters, raw)


def log_prob(parameters: Arrays, raw: Array) -> Array:
    """Log-probability of raw actions, summed over action dimensions: float32 ``[...]``."""
    if "logits" in parameters:
        logits = parameters["logits"]
        log_p = logits - logits.max(-1, keepdims=True)
        log_p = log_p - np.log(np.exp(log_p).sum(-1, keepdims=True))
        chosen: Array = np.take_along_axis(log_p, raw[..., None], -1)[..., 0]
        return chosen
    mean, log_std = parameters["mean"], parameters["log_std"]
    z = (raw - mean) * np.exp(-log_std)
    total: Array = (-0.5 * z * z - log_std - np.float32(0.5 * math.log(2 * math.pi))).sum(-1)
    return total.astype(np.float32)


def to_environment(header: Header, raw: Array) -> Array:
    """The action an environment takes: a Box action is ``clip(shift + scale * raw, low, high)`` in the space's
    shape; a Discrete one is the integer itself.
    """
    space = header.action_space
    if isinstance(space, Discrete):
        return raw
    scaled = np.asarray(header.action_shift, np.float32) + np.asarray(header.action_scale, np.float32) * raw
    shaped = scaled.reshape(*raw.shape[:-1], *space.shape)
    clipped: Array = np.clip(shaped, space.low, space.high)
    return clipped
