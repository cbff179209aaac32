"""What ``transformer`` remembers with, in the place of a gated recurrent unit: attention to the steps of the trial so
far (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762).

What it keeps of a step is a key and a value in every block, of the last ``memory_span`` steps, and how many steps there
were. Time is in the angle between queries and keys (rotary position embedding, Su et al. 2021,
https://arxiv.org/abs/2104.09864), which depends on how long ago a step was and not on when: a trial may go on for ever.
"""

from __future__ import annotations

import math

import numpy as np

from innerloop.arrays import Array, Arrays
from innerloop.policy.header import Header

KEPT_STEPS = "memory.steps"
"""[R] int64: steps of the trial so far."""
WIDER = 2
"""How many times wider than the memory the hidden layer of a block is."""
NORM_FLOOR = 1e-5
"""Added to the variance that a row's numbers are divided by the root of."""
SLOWEST = 10_000.0
"""The first pair of a head's numbers turns by one radian a step, each later one more slowly, none so many times."""


def kept_keys(block: int) -> str:
    """Name of the array [R, memory_heads, memory_span, D] float32 that keeps a block's keys, already turned. The slots
    are filled in turn, and the oldest step makes room for the newest.
    """
    return f"memory.{block}.keys"


def kept_values(block: int) -> str:
    """As :func:`kept_keys`: its values."""
    return f"memory.{block}.values"


def attention_shapes(header: Header, encoded: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of the transformer's weights, which reads so many numbers a step."""
    size = header.memory_size
    layers = {"embed": (encoded, size)}
    for i in range(header.memory_layers):
        layers[f"blocks.{i}.attend"] = (size, 3 * size)
        layers[f"blocks.{i}.mix"] = (size, size)
        layers[f"blocks.{i}.widen"] = (size, WIDER * size)
        layers[f"blocks.{i}.narrow"] = (WIDER * size, size)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[1:]}
    return shapes


def empty_attention(header: Header, rows: int) -> dict[str, Array]:
    """What is kept before a trial's first step."""
    shape = (rows, header.memory_heads, header.memory_span, header.memory_size // header.memory_heads)
    names = [kept(i) for i in range(header.memory_layers) for kept in (kept_keys, kept_values)]
    return {name: np.zeros(shape, np.float32) for name in names} | {KEPT_STEPS: np.zeros(rows, np.int64)}


def attend(header: Header, weights: Arrays, memory: Arrays, x: Array, first: Array) -> tuple[Array, dict[str, Array]]:
    """One step of every row.

    Args:
        header: the architecture.
        weights: as ``networks.forward`` takes them.
        memory: as :func:`empty_attention` lays it out, leading dimensions [..., N].
        x: [..., N, E]: the encoded step.
        first: [..., N] bool: whose memory is emptied before.

    Returns:
        (what the step came to mean [..., N, memory_size], what is kept from here on).
    """
    heads, span = header.memory_heads, header.memory_span
    steps = np.where(first, 0, memory[KEPT_STEPS])
    # The slot of this step, and those that no step of the trial has come to yet.
    here = (np.arange(span) == (steps % span)[..., None])[..., None, :, None]
    unused = (np.arange(span) > steps[..., None])[..., None, None, :]
    emptied = first[..., None, None, None]
    after: dict[str, Array] = {KEPT_STEPS: steps + 1}
    u = _linear(weights, "embed", x)
    for i in range(header.memory_layers):
        of_each = _linear(weights, f"blocks.{i}.attend", _norm(u))
        q, k, v = (
            part.reshape(*part.shape[:-1], heads, 1, -1) for part in np.split(of_each, 3, -1)
        )  # [..., N, H, 1, D]
        q, k = _turned(q, steps), _turned(k, steps)
        for name, new in ((kept_keys(i), k), (kept_values(i), v)):
            after[name] = np.where(here, new, np.where(emptied, np.float32(0), memory[name]))
        scores = q @ np.swapaxes(after[kept_keys(i)], -1, -2) / np.float32(math.sqrt(q.shape[-1]))
        scores = np.where(unused, np.float32(-np.inf), scores)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares = shares / shares.sum(-1, keepdims=True)
        u = u + _linear(weights, f"blocks.{i}.mix", (shares @ after[kept_values(i)]).reshape(u.shape))
        w = np.maximum(_linear(weights, f"blocks.{i}.widen", _norm(u)), np.float32(0))
        u = u + _linear(weights, f"blocks.{i}.narrow", w)
    return _norm(u), after


def _norm(x: Array) -> Array:
    x = x - x.mean(-1, keepdims=True)
    y: Array = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(NORM_FLOOR))
    return y


def _turned(x: Array, steps: Array) -> Array:
    """Pairs of numbers of ``x`` [..., N, H, 1, D], one of each half, as points of a plane that turn with the steps
    [..., N]. Angles are float64: after a million steps a float32 would be off by a twentieth of a radian.
    """
    half = x.shape[-1] // 2
    angles = steps[..., None] * SLOWEST ** (-np.arange(half) / half)
    cos, sin = (turn(angles).astype(x.dtype)[..., None, None, :] for turn in (np.cos, np.sin))
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


def _linear(weights: Arrays, name: str, x: Array) -> Array:
    y: Array = x @ weights[f"{name}.weight"] + weights[f"{name}.bias"][..., None, :]
    return y
