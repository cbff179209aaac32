"""Surrogate objectives on padded samples: pure functions, one number a task, smaller is better."""

from __future__ import annotations

import torch

ADVANTAGE_EPSILON = 1e-8


def masked_mean(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the real steps of each task.

    Args:
        x: [B, ...].
        mask: [B, ...] bool, of the shape of ``x``.

    Returns:
        [B]; zero for a task without a real step.
    """
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    total = torch.where(mask, x, zero).reshape(x.shape[0], -1).sum(-1)
    return total / mask.reshape(x.shape[0], -1).sum(-1).clamp(min=1)


def normalise(advantages: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Advantages with mean 0 and standard deviation 1 over each task's real steps; zero elsewhere.

    Per task and per step, or else one task with large rewards owns the meta-gradient. The deviation is the root of
    a mean of squares, because ``torch.var`` is not bitwise independent of the batch.
    """
    lead = (-1, *(1,) * (advantages.dim() - 1))
    centred = advantages - masked_mean(advantages, mask).reshape(lead)
    deviation = torch.sqrt(masked_mean(centred * centred, mask)).reshape(lead)
    zero = torch.zeros((), dtype=advantages.dtype, device=advantages.device)
    return torch.where(mask, centred / (deviation + ADVANTAGE_EPSILON), zero)


def surrogate(
    log_prob: torch.Tensor, old_log_prob: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """The inner loss in ratio form: ``-mean(A * pi / pi_old)``.

    Its gradient at the sampling policy is the policy gradient, and, unlike ``-mean(A * log pi)``, differentiating
    it twice keeps the dependence of the samples on the policy: the low-variance-curvature estimator of Rothfuss et
    al. 2019 (ProMP, https://arxiv.org/abs/1810.06784, equation 10).

    Args:
        log_prob: [B, N, T] under the policy to improve.
        old_log_prob: [B, N, T] under the policy that sampled.
        advantages: [B, N, T].
        mask: [B, N, T] bool.

    Returns:
        [B].
    """
    return -masked_mean(torch.exp(log_prob - old_log_prob) * advantages, mask)


def clipped_surrogate(
    log_prob: torch.Tensor, old_log_prob: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor, clip: float
) -> torch.Tensor:
    """The PPO loss (Schulman et al. 2017, https://arxiv.org/abs/1707.06347, equation 7), [B].

    Args:
        log_prob: [B, N, T] under the policy to improve.
        old_log_prob: [B, N, T] under the policy that sampled.
        advantages: [B, N, T].
        mask: [B, N, T] bool.
        clip: how far the ratio may leave 1 and still be rewarded.
    """
    ratio = torch.exp(log_prob - old_log_prob)
    bounded = ratio.clamp(1 - clip, 1 + clip)
    return -masked_mean(torch.minimum(ratio * advantages, bounded * advantages), mask)
