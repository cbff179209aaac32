"""An adversary that writes a task number by number: each is a choice among bins, given those before it.

A policy over categories can hold on to several far apart regions at once, and its entropy is exact and bounded, which
is what keeps an adversary from collapsing early (Mediratta et al. 2023, "Stabilizing Unsupervised Environment Design",
https://arxiv.org/abs/2308.10797). Trained by PPO on one reward a task, the regret.
"""

from __future__ import annotations

import numpy as np
import torch

from innerloop.arrays import Array
from innerloop_server.learners import perceptron
from innerloop_server.learners.learner import Tensors

EMPTY_LOGIT = -1e9
"""Of a bin that a coordinate does not have."""


def prefixes(centres: Array) -> Array:
    """What the network sees before it writes each number of M tasks: those written, zeros after them, and its place.

    Args:
        centres: [M, P] the numbers.

    Returns:
        [M, P, 2 P] float32.
    """
    p = centres.shape[-1]
    written = np.tril(np.ones((p, p), np.float32), -1)
    numbers = centres[:, None, :].astype(np.float32) * written
    place = np.broadcast_to(np.eye(p, dtype=np.float32), numbers.shape)
    return np.concatenate([numbers, place], -1)


def log_probabilities(weights: Tensors, inputs: torch.Tensor, exists: torch.Tensor) -> torch.Tensor:
    """Of every bin of every number.

    Args:
        weights: the adversary's.
        inputs: [M, P, 2 P], from :func:`prefixes`.
        exists: [P, K] bool: the bins that each coordinate has.

    Returns:
        [M, P, K].
    """
    logits = perceptron.forward(weights, inputs, torch.tanh)
    return torch.log_softmax(torch.where(exists, logits, EMPTY_LOGIT), -1)


def loss(
    log_p: torch.Tensor,
    choices: torch.Tensor,
    old_log_prob: torch.Tensor,
    advantages: torch.Tensor,
    clip: float,
    entropy: float,
) -> torch.Tensor:
    """The clipped surrogate over M tasks, each one action of P choices, minus the entropy bonus.

    Args:
        log_p: [M, P, K].
        choices: [M, P] int64, the bins that were written.
        old_log_prob: [M] of the tasks under the adversary that wrote them.
        advantages: [M].
        clip: how far the ratio may leave 1 and still be rewarded.
        entropy: weight of the mean entropy of a choice, in nats.
    """
    ratio = torch.exp(log_prob(log_p, choices) - old_log_prob)
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -surrogate.mean() - entropy * entropies(log_p).mean()


def log_prob(log_p: torch.Tensor, choices: torch.Tensor) -> torch.Tensor:
    """[M] of whole tasks, summed over their numbers."""
    return log_p.gather(-1, choices.unsqueeze(-1)).squeeze(-1).sum(-1)


def entropies(log_p: torch.Tensor) -> torch.Tensor:
    """[M, P] of each choice, in nats."""
    return -(torch.exp(log_p) * log_p).sum(-1)
