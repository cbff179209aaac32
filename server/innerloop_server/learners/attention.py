"""A policy with memory: a causal transformer (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762), weights stacked.

It remembers by keeping what it saw: of every step a key and a value in every block, in place of the one vector that
:mod:`.recurrent` carries along. One step of one row, in that module's notation (``x`` and ``first`` are its features)::

    t     = 0 where first is 1, else one more than at the step before
    e     = x through the encoder, as there
    u     = e @ embed.weight + embed.bias
    for each block i:
        q, k, v = norm(u) @ blocks.<i>.attend.weight + blocks.<i>.attend.bias       three blocks of columns
        q, k    = turned by t in every head: its numbers j and j + D / 2 are a point
                  of a plane, turned by t * 10000 ** (-2 j / D)
        k, v are kept; those of the last ``memory_span`` steps of the trial, this one's included, are K and V
        a       = softmax(q @ K' / sqrt(D)) @ V in every head of width D
        u       = u + a @ blocks.<i>.mix.weight + blocks.<i>.mix.bias
        w       = max(0, norm(u) @ blocks.<i>.widen.weight + blocks.<i>.widen.bias)
        u       = u + w @ blocks.<i>.narrow.weight + blocks.<i>.narrow.bias
    m'    = norm(u)
    y     = [m', e], and the heads on it as there

``norm(u) = (u - mean) / sqrt(variance + 1e-5)`` over the row's numbers. It has no weights: a layer follows that has
them. Blocks normalise what they read and not what they add to (Xiong et al. 2020,
https://arxiv.org/abs/2002.04745).

Time is in the angle between q and k alone, which depends on how long ago a step was and not on when (rotary position
embedding, Su et al. 2021, https://arxiv.org/abs/2104.09864). So a trial may go on past the lengths that were trained:
the window slides, and the oldest step makes room.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from innerloop.policy import Header
from innerloop.policy.attention import KEPT_STEPS, NORM_FLOOR, SLOWEST, kept_keys, kept_values
from innerloop_server.learners import networks, recurrent
from innerloop_server.learners.learner import Tensors

Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(block, queries, keys, values), [..., H, D] each -> what the queries found, [..., H, D]."""
Turns = tuple[torch.Tensor, torch.Tensor]
"""What of a pair of numbers stays where it is, and what comes from the other, [..., H, D] each."""


def begin(header: Header, like: torch.Tensor, n: int, rows: int) -> Tensors:
    """Empty memories of n tasks and so many rows; ``like`` gives dtype and device.

    Returns:
        Keys and values of each block, [n, R, H, S, D] with S slots for steps that are filled in turn; and the number of
        steps of the trial so far, [n, R] int64.
    """
    size = header.memory_size // header.memory_heads
    shape = (n, rows, header.memory_heads, header.memory_span, size)
    names = [kept(i) for i in range(header.memory_layers) for kept in (kept_keys, kept_values)]
    return {name: like.new_zeros(shape) for name in names} | {
        KEPT_STEPS: torch.zeros((n, rows), dtype=torch.int64, device=like.device)
    }


def look(
    header: Header, weights: Tensors, memory: Tensors, x: torch.Tensor, first: torch.Tensor
) -> tuple[torch.Tensor, Tensors]:
    """One step of every row.

    Args:
        header: the architecture.
        weights: [B, ...] each.
        memory: as :func:`begin` lays it out.
        x: [B, R, input_size].
        first: [B, R] bool: whose memory is emptied before.

    Returns:
        (what the heads read, ``[m', e]``: [B, R, M + E]; the memory after).
    """
    steps = memory[KEPT_STEPS].masked_fill(first, 0)
    emptied = first[..., None, None, None]
    slot = (steps % header.memory_span)[..., None, None, None]
    # Slots that no step of the trial has come to yet; none when it is longer than the memory.
    unused = (torch.arange(header.memory_span, device=x.device) > steps.unsqueeze(-1))[..., None, None, :]
    after: Tensors = {KEPT_STEPS: steps + 1}

    def attend(block: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        for name, new in ((kept_keys(block), k), (kept_values(block), v)):
            new = new.unsqueeze(-2)
            after[name] = torch.where(emptied, 0.0, memory[name]).scatter_(-2, slot.expand_as(new), new)
        scores = q.unsqueeze(-2) @ after[kept_keys(block)].transpose(-1, -2) / math.sqrt(q.shape[-1])
        shares = torch.softmax(scores.masked_fill(unused, -math.inf), -1)
        return (shares @ after[kept_values(block)]).squeeze(-2)

    return _read(header, weights, x, _turns(header, steps, x.dtype), attend), after


def unroll(header: Header, weights: Tensors, x: torch.Tensor) -> torch.Tensor:
    """Whole trials from an empty memory, in one pass: what :func:`look` says step by step.

    Args:
        header: the architecture.
        weights: [B, ...] each.
        x: [B, T, R, input_size].

    Returns:
        ``[m', e]`` of every step: [B, T, R, M + E].
    """
    b, length, rows = x.shape[:3]
    steps = torch.arange(length, device=x.device)
    ago = steps.unsqueeze(-1) - steps
    seen = None if length <= header.memory_span else (ago >= 0) & (ago < header.memory_span)

    def attend(_: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        # [B, R, T, H, D] -> [B * R, H, T, D]: a trial's steps are one matrix.
        q, k, v = (part.flatten(0, 1).transpose(1, 2) for part in (q, k, v))
        found: torch.Tensor = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None)
        return found.transpose(1, 2).reshape(b, rows, length, header.memory_heads, -1)

    return _read(header, weights, x.transpose(1, 2), _turns(header, steps, x.dtype), attend).transpose(1, 2)


def initial_weights(
    header: Header, rng: np.random.Generator, *, last_layer_scale: float, initial_log_std: float
) -> Tensors:
    """Fresh weights of policy and value, as ``recurrent.initial_weights``.

    What 2 n layers in n blocks add to the stream is divided by the root of 2 n (Radford et al. 2019, GPT-2), so that
    depth does not drown what was seen last.
    """
    weights = recurrent.initial_weights(header, rng, last_layer_scale=last_layer_scale, initial_log_std=initial_log_std)
    for i in range(header.memory_layers):
        for name in (f"blocks.{i}.mix.weight", f"blocks.{i}.narrow.weight"):
            weights[name] = weights[name] / math.sqrt(2 * header.memory_layers)
    return weights


def _read(header: Header, weights: Tensors, x: torch.Tensor, turns: Turns, attend: Attend) -> torch.Tensor:
    """``[m', e]`` [B, ..., M + E] of steps ``x`` [B, ..., input_size], whatever it is that they attend to."""
    lead = x.shape[:-1]
    encoded = recurrent.encode(weights, x.reshape(lead[0], -1, x.shape[-1]))
    u = _linear(weights, "embed", encoded)
    for i in range(header.memory_layers):
        parts = _linear(weights, f"blocks.{i}.attend", _norm(u)).chunk(3, -1)
        q, k, v = (part.reshape(*lead, header.memory_heads, -1) for part in parts)
        found = attend(i, _turned(q, turns), _turned(k, turns), v)
        u = u + _linear(weights, f"blocks.{i}.mix", found.reshape(u.shape))
        wide = torch.relu(_linear(weights, f"blocks.{i}.widen", _norm(u)))
        u = u + _linear(weights, f"blocks.{i}.narrow", wide)
    return torch.cat([_norm(u), encoded], -1).reshape(*lead, -1)


def _turns(header: Header, steps: torch.Tensor, dtype: torch.dtype) -> Turns:
    """By how much steps [...] turn their queries and keys.

    Angles are float64: after a million steps a float32 would be off by a twentieth of a radian. The same for every
    head, and laid out for each: a plain product is the fastest there is.
    """
    half = header.memory_size // header.memory_heads // 2
    rates = SLOWEST ** (-torch.arange(half, dtype=torch.float64, device=steps.device) / half)
    angles = steps[..., None, None] * rates
    cos, sin = torch.cos(angles).to(dtype), torch.sin(angles).to(dtype)
    along, across = torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)
    return along.repeat_interleave(header.memory_heads, -2), across.repeat_interleave(header.memory_heads, -2)


def _turned(x: torch.Tensor, turns: Turns) -> torch.Tensor:
    """Pairs of numbers of ``x`` [..., H, D], one of each half, as points of a plane that turn."""
    along, across = turns
    return x * along + x.roll(x.shape[-1] // 2, -1) * across


def _norm(x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=NORM_FLOOR)


def _linear(weights: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    return networks.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
