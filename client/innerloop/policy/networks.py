"""The networks, on arrays with free leading dimensions.

``mlp``: weights ``layers.0.weight`` [..., in, out], ``layers.0.bias`` [..., out], ..., and ``log_std`` [...,
action_size] for a gaussian policy. ``gru``: ``encoder.layers.<i>``, ``gru.input``, ``gru.hidden`` and
``policy.layers.<i>`` in their place; ``belief`` has ``belief.*`` besides, ``transformer`` has ``embed`` and
``blocks.<i>.*`` in the place of ``gru.*``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from innerloop.arrays import Array, Arrays, Box, Discrete
from innerloop.policy.attention import attend, attention_shapes
from innerloop.policy.belief import belief_shapes, believe, seen_belief
from innerloop.policy.header import Header
from innerloop.policy.memory import HIDDEN, PREVIOUS, Input
from innerloop.policy.tallies import seen_tallies, tallied, tally_size

LOG_STD_FLOOR = math.log(1e-6)
"""Log standard deviations are never below this (a standard deviation of 1e-6)."""
FLAGS = 3
"""Inputs of ``gru`` beside observation and action: reward, whether an episode ended, whether the trial begins."""


def input_size(header: Header) -> int:
    """Of a policy that remembers: how many numbers it reads a step."""
    before = header.observation_size if header.transitions else 0
    return header.observation_size + header.action_size + FLAGS + tally_size(header) + before


def weight_shapes(header: Header) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight the header calls for, without leading dimensions."""
    if header.remembers:
        encoder = (input_size(header), *header.encoder_sizes)
        size = header.memory_size
        shapes = _layer_shapes("encoder.layers", encoder)
        if header.architecture == "transformer":
            shapes |= attention_shapes(header, encoder[-1])
        else:
            shapes["gru.input.weight"] = (encoder[-1], 3 * size)
            shapes["gru.input.bias"] = (3 * size,)
            shapes["gru.hidden.weight"] = (size, 3 * size)
            shapes["gru.hidden.bias"] = (3 * size,)
        read = size + encoder[-1]
        if header.architecture == "belief":
            shapes |= belief_shapes(header)
            read = header.observation_size + 2 * header.latent_size
        shapes |= _layer_shapes("policy.layers", (read, *header.hidden_sizes, header.action_size))
    else:
        shapes = _layer_shapes("layers", (header.observation_size, *header.hidden_sizes, header.action_size))
    if isinstance(header.action_space, Box):
        shapes["log_std"] = (header.action_size,)
    return shapes


def forward(header: Header, weights: Arrays, observation: Array) -> dict[str, Array]:
    """Distribution parameters of a policy without memory, for a batch of observations.

    Args:
        header: the architecture.
        weights: one set (no leading dimension) with ``observation`` [N, *O]; or stacked sets, leading dimension B,
            with ``observation`` [B, N, *O].
        observation: float array, or integers where the space is Discrete (then one-hot).

    Returns:
        ``{"logits": [..., n]}`` or ``{"mean": [..., d], "log_std": [..., d]}``, float32, leading dimensions as in
        ``observation``.
    """
    return _parameters(header, weights, _layers(weights, "layers", _observed(header, observation), header.hidden_sizes))


def forward_with_memory(
    header: Header, weights: Arrays, memory: Arrays, input: Input
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Distribution parameters of a policy with memory, and what its network keeps from here on.

    Args:
        header: the architecture.
        weights: as in :func:`forward`.
        memory: what the network keeps, [..., N, ...] each; the rest is not read.
        input: all of it, [..., N, ...] each. In rows of ``trial_end`` the memory is emptied first, and what the input
            says of the step before is not read.

    Returns:
        (parameters as in :func:`forward`, the network's part of the memory).
    """
    assert input.previous_action is not None  # a whole input: see ``memory.told``
    assert input.reward is not None
    assert input.terminated is not None
    assert input.truncated is not None
    assert input.trial_end is not None
    observation = _observed(header, input.observation)
    first = input.trial_end[..., None]
    if isinstance(header.action_space, Discrete):
        action: Array = np.eye(header.action_space.n, dtype=np.float32)[input.previous_action]
    else:
        action = input.previous_action.astype(np.float32)
    ended = (input.terminated | input.truncated)[..., None].astype(np.float32)
    zero = np.float32(0)
    before = [np.where(first, zero, part) for part in (action, input.reward[..., None].astype(np.float32), ended)]
    x = np.concatenate([observation, *before, first.astype(np.float32)], -1)
    read_again: dict[str, Array] = {}
    if header.tallies:
        read_again = tallied(memory, input.observation, input.previous_action, input.reward, input.trial_end)
        x = np.concatenate([x, seen_tallies(header, read_again)], -1)
    if header.transitions:
        x = np.concatenate([x, np.where(first, zero, memory[PREVIOUS])], -1)
        read_again = {**read_again, PREVIOUS: observation}
    for i in range(len(header.encoder_sizes)):
        x = np.tanh(_linear(weights, f"encoder.layers.{i}", x))
    if header.architecture == "transformer":
        hidden, kept = attend(header, weights, memory, x, input.trial_end)
    else:
        hidden = _gated(weights, np.where(first, zero, memory[HIDDEN]), x)
        kept = {HIDDEN: hidden}
    if header.architecture == "belief":
        belief = believe(weights, hidden)
        read, kept = (observation, seen_belief(weights, belief)), {**kept, **belief}
    else:
        read = (hidden, x)
    out = _layers(weights, "policy.layers", np.concatenate(read, -1), header.hidden_sizes)
    return _parameters(header, weights, out), {**kept, **read_again}


def _gated(weights: Arrays, hidden: Array, x: Array) -> Array:
    """The memory [..., N, M] of a gated recurrent unit (Cho et al. 2014, https://arxiv.org/abs/1406.1078) after having
    looked at ``x`` [..., N, E]; gates as ``torch.nn.GRUCell`` has them.
    """
    size = hidden.shape[-1]
    of_input, of_hidden = _linear(weights, "gru.input", x), _linear(weights, "gru.hidden", hidden)
    gates = _sigmoid(of_input[..., : 2 * size] + of_hidden[..., : 2 * size])
    reset, keep = gates[..., :size], gates[..., size:]
    new = np.tanh(of_input[..., 2 * size :] + reset * of_hidden[..., 2 * size :])
    after: Array = new + keep * (hidden - new)
    return after


def _observed(header: Header, observation: Array) -> Array:
    """[..., observation_size] float32: one-hot, or flattened and normalised."""
    if isinstance(header.observation_space, Discrete):
        one_hot: Array = np.eye(header.observation_space.n, dtype=np.float32)[observation]
        return one_hot
    lead = observation.shape[: observation.ndim - len(header.observation_space.shape)]
    x: Array = observation.reshape(*lead, header.observation_size).astype(np.float32)
    shift, scale = np.asarray(header.observation_shift, np.float32), np.asarray(header.observation_scale, np.float32)
    normalised: Array = (x - shift) / scale
    return normalised


def _parameters(header: Header, weights: Arrays, out: Array) -> dict[str, Array]:
    if header.distribution == "categorical":
        return {"logits": out}
    log_std = np.maximum(weights["log_std"], np.float32(LOG_STD_FLOOR))[..., None, :]
    return {"mean": out, "log_std": np.broadcast_to(log_std, out.shape)}


def _layers(weights: Arrays, name: str, x: Array, hidden_sizes: Sequence[int]) -> Array:
    last = len(hidden_sizes)
    for i in range(last + 1):
        x = _linear(weights, f"{name}.{i}", x)
        if i < last:
            x = np.tanh(x)
    return x


def _linear(weights: Arrays, name: str, x: Array) -> Array:
    y: Array = x @ weights[f"{name}.weight"] + weights[f"{name}.bias"][..., None, :]
    return y


def _sigmoid(x: Array) -> Array:
    """By way of tanh, which never overflows."""
    y: Array = np.float32(0.5) + np.float32(0.5) * np.tanh(np.float32(0.5) * x)
    return y


def _layer_shapes(name: str, sizes: Sequence[int]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        shapes[f"{name}.{i}.weight"] = (n_in, n_out)
        shapes[f"{name}.{i}.bias"] = (n_out,)
    return shapes
