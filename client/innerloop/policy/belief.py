"""What ``belief`` adds to a gated recurrent unit: a belief about the task that is read from its memory, and seen by the
policy in the memory's place. Independent Gaussians over a latent (VariBAD, Zintgraf et al. 2020).

The belief is kept beside the memory, so that whoever holds one can tell how unsure the policy is: its entropy is
``0.5 * sum(log(2 * pi * e) + log_variance)``, in nats.
"""

from __future__ import annotations

import numpy as np

from innerloop.arrays import Array, Arrays
from innerloop.policy.header import Header

BELIEF_MEAN = "belief.mean"
BELIEF_LOG_VARIANCE = "belief.log_variance"
"""[R, latent_size] float32 each; zero, N(0, I), before a trial's first step."""


def belief_shapes(header: Header) -> dict[str, tuple[int, ...]]:
    """Name and shape of the belief's own weights."""
    size = 2 * header.latent_size
    shapes: dict[str, tuple[int, ...]] = {"belief.weight": (header.memory_size, size)}
    return shapes | {f"belief.{name}": (size,) for name in ("bias", "shift", "scale")}


def believe(weights: Arrays, hidden: Array) -> dict[str, Array]:
    """The belief [..., N, L] that a memory [..., N, M] holds."""
    both = hidden @ weights["belief.weight"] + weights["belief.bias"][..., None, :]
    mean, log_variance = np.split(both, 2, -1)
    return {BELIEF_MEAN: mean, BELIEF_LOG_VARIANCE: log_variance}


def seen_belief(weights: Arrays, belief: Arrays) -> Array:
    """What the policy sees of a belief, [..., N, 2 L]."""
    both = np.concatenate([belief[BELIEF_MEAN], belief[BELIEF_LOG_VARIANCE]], -1)
    seen: Array = (both - weights["belief.shift"][..., None, :]) / weights["belief.scale"][..., None, :]
    return seen
