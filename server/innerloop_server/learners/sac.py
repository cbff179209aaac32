"""Soft actor-critic (Haarnoja et al. 2018, https://arxiv.org/abs/1812.05905) as pure functions.

Gaussian policies are not squashed: actions are clipped where the environment clips them, so clipping is part of the
environment and the critic is asked about clipped actions. Then a policy's entropy has a closed form, and the portable
policy, which clips too, is the very policy that was trained. Categorical policies average over their actions exactly
(Christodoulou 2019, https://arxiv.org/abs/1910.07207).
"""

from __future__ import annotations

import torch

from innerloop_server.learners.distributions import Categorical, Gaussian


def soft_value(q: torch.Tensor, policy: Gaussian | Categorical, temperature: float) -> torch.Tensor:
    """``E[q] + temperature * entropy``: what an observation is worth to a policy that is paid for its entropy.

    Args:
        q: [..., n] of every action of a categorical policy; [...] of one sampled action of a Gaussian one.
        policy: leading dimensions [...].
        temperature: reward that one nat of entropy is worth.

    Returns:
        [...].
    """
    if isinstance(policy, Categorical):
        log_p = policy.log_probs()
        return (torch.exp(log_p) * (q - temperature * log_p)).sum(-1)
    return q + temperature * policy.entropy()


def bellman_target(
    rewards: torch.Tensor, terminated: torch.Tensor, next_values: torch.Tensor, discount: float
) -> torch.Tensor:
    """``r + discount * v``, or ``r`` where the step ended its episode for good; all [...]."""
    return rewards + discount * torch.where(terminated, torch.zeros_like(next_values), next_values)


def critic_loss(q: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared error of every critic over the steps in ``mask``, summed over critics.

    Args:
        q: [critics, ...].
        targets: [...], constant.
        mask: [...] bool.

    Returns:
        A scalar.
    """
    error = torch.where(mask, q - targets, torch.zeros_like(q))
    return (error * error).sum() / mask.sum().clamp(min=1)


def actor_loss(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Minus the mean of :func:`soft_value` over the steps in ``mask`` (both [...])."""
    return -torch.where(mask, values, torch.zeros_like(values)).sum() / mask.sum().clamp(min=1)


def out_of_reach(mean: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """How far means lie outside the box that actions are clipped to, squared and summed over dimensions.

    Where every sample of a policy is clipped the critic says nothing about where its mean should go; this does.

    Args:
        mean: [..., A].
        low: [A] of the raw action.
        high: [A].

    Returns:
        [...].
    """
    excess = mean - torch.maximum(torch.minimum(mean, high), low)
    return (excess * excess).sum(-1)
