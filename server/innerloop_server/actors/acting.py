"""Policies of many runs evaluated at once, such that no row can tell who else was there, memory included.

A matrix product over N rows picks its kernel by N, so the same row gives other last bits among other rows
(measured: float32 gemm against gemv on OpenBLAS). Here every row is its own 1 x I product, ``[B, N, 1, I] @
[B, 1, I, O]``: one fixed kernel for every row, bitwise the same in any company, for about 0.7 microseconds a row
(17-64-64-6) beside 0.35 with the whole product. What is shared is the cost of calling numpy.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from innerloop import policy
from innerloop.arrays import Array, Arrays
from innerloop.policy import Header, Input


@dataclass(frozen=True)
class Decision:
    """What n rows of one run do now."""

    raw: Array
    """[n, A] float32 or [n] int64."""
    log_prob: Array
    """[n] float32."""
    environment: Array
    """[n, *A]: what an environment takes."""
    memory: Arrays = field(default_factory=dict)
    """[n, ...] each: what a policy that remembers goes on from."""


def shape_key(header: Header) -> Hashable:
    """Equal for headers whose weights stack: all that the maths reads, nothing that is there for people."""
    return (
        header.architecture,
        header.observation_space,
        header.action_space,
        header.hidden_sizes,
        header.observation_shift,
        header.observation_scale,
        header.action_shift,
        header.action_scale,
        header.encoder_sizes,
        header.memory_size,
        header.memory_layers,
        header.memory_heads,
        header.memory_span,
    )


def stack(weights: Sequence[Arrays]) -> Arrays:
    """[B, 1, ...] each, from B single sets: the 1 stands for the rows, which share their run's weights."""
    return {name: np.stack([one[name] for one in weights])[:, None] for name in weights[0]}


def decide(
    header: Header,
    stacked: Arrays,
    observations: Sequence[Array],
    noises: Sequence[Array] | None,
    memories: Sequence[Arrays] = (),
) -> list[Decision]:
    """Actions of B runs whose headers have the same :func:`shape_key`.

    Args:
        header: of any of them.
        stacked: what :func:`stack` gave for the B runs.
        observations: B arrays [n_b, *O]; n_b may differ.
        noises: B arrays [n_b, d]; ``None``: all greedy.
        memories: of policies that remember: B memories [n_b, ...], what the step before brought included.
    """
    observation = _pad(observations)
    after: Arrays = {}
    # Whoever is not finite is found by its own log-probability; numpy's warning would name nobody.
    with np.errstate(all="ignore"):
        if header.remembers:
            memory = {name: _pad([one[name] for one in memories]) for name in memories[0]}
            seen = policy.told(memory, Input(observation))
            parameters, after = policy.forward_with_memory(header, stacked, memory, seen)
        else:
            parameters = policy.forward(header, stacked, observation)
        raw, log_prob = policy.sample(parameters, None if noises is None else _pad(noises))
    environment = policy.to_environment(header, raw)
    if after:
        after = policy.acted(after, raw)
    return [
        Decision(
            raw[b, : len(rows), 0],
            log_prob[b, : len(rows), 0],
            environment[b, : len(rows), 0],
            {name: array[b, : len(rows), 0] for name, array in after.items()},
        )
        for b, rows in enumerate(observations)
    ]


def log_probs_of(header: Header, weights: Arrays, observations: Array, actions: Array) -> Array:
    """Log-probabilities of given actions under one policy, each row on its own as in :func:`decide`.

    Args:
        header: of the policy.
        weights: one set.
        observations: [n, *O].
        actions: [n, A] raw, or [n] int64.

    Returns:
        [n] float32.
    """
    with np.errstate(all="ignore"):
        parameters = policy.forward(header, stack([weights]), observations[None, :, None])
        return policy.log_prob(parameters, actions[None, :, None])[0, :, 0]


def _pad(arrays: Sequence[Array]) -> Array:
    """[B, N, 1, ...] with N the longest, zeros past the end of the others."""
    padded = np.zeros((len(arrays), max(len(a) for a in arrays), 1, *arrays[0].shape[1:]), arrays[0].dtype)
    for b, array in enumerate(arrays):
        padded[b, : len(array), 0] = array
    return padded
