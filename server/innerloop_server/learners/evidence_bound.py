"""The evidence lower bound of a belief over trials, as pure functions (Zintgraf et al. 2020, equations 5 to 8).

For a trial tau of H steps and the belief q_t after t steps of it::

    ELBO_t = E_{m ~ q_t}[ sum_{i < H} log p(outcome_i | m) ] - beta KL(q_t || q_{t-1}),     q_{-1} = N(0, I)

What is summed in the first part is the whole trial, what is still to come as what is past: a latent that had to explain
the past alone could forget how unsure it should be of the rest. Both parts are sums, not means: beta weighs one against
the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

_HALF_LOG_TWO_PI_E = 0.5 * math.log(2 * math.pi * math.e)


@dataclass(frozen=True)
class Belief:
    """Independent Gaussians over the latent m."""

    mean: torch.Tensor
    """[..., L]."""
    log_variance: torch.Tensor
    """[..., L]."""

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """An m for standard normal noise [..., L]."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise

    def entropy(self) -> torch.Tensor:
        """[...], in nats."""
        return (_HALF_LOG_TWO_PI_E + 0.5 * self.log_variance).sum(-1)

    def kl(self, other: Belief) -> torch.Tensor:
        """KL(self || other), [...], in nats."""
        gap = self.log_variance - other.log_variance
        shift = self.mean - other.mean
        return 0.5 * (torch.exp(gap) + shift * shift * torch.exp(-other.log_variance) - 1 - gap).sum(-1)


def kl_chain(beliefs: Belief) -> torch.Tensor:
    """KL of each belief from the one before, and of the first from N(0, I).

    Args:
        beliefs: [T, ...], in the order of time.

    Returns:
        [T, ...].
    """
    before = (torch.cat([torch.zeros_like(x[:1]), x[:-1]]) for x in (beliefs.mean, beliefs.log_variance))
    return beliefs.kl(Belief(*before))


def spread(uniforms: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Steps of trials, one in each of K equal parts: every step once where K is the trial's length, and in expectation
    each as often as the others where it is not.

    Args:
        uniforms: [K, R] float64 in [0, 1).
        lengths: [R] int64, of the trials; at least 1.

    Returns:
        [K, R] int64.
    """
    k = len(uniforms)
    parts = torch.arange(k, device=uniforms.device).unsqueeze(-1)
    at = ((parts + uniforms) * lengths / k).long()
    return torch.minimum(at, lengths - 1)  # rounding may reach the end


def paid_states(state: torch.Tensor, reward: torch.Tensor, real: torch.Tensor, states: int) -> torch.Tensor:
    """How often each state was paid in a trial, and how often it was not.

    Args:
        state: [T, R] int64: where each step led.
        reward: [T, R]: a step is paid where it is positive.
        real: [T, R] bool.
        states: S.

    Returns:
        [2, R, S] of the dtype of ``reward``: times paid, times not.
    """
    paid = reward > 0
    counts = reward.new_zeros((2, state.shape[1], states))
    for i, counted in enumerate((paid & real, ~paid & real)):
        counts[i].scatter_add_(1, state.T, counted.to(reward.dtype).T)
    return counts


def log_chance(logits: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Log-likelihood of payments that each state decides by a coin of its own.

    Args:
        logits: [..., S] of being paid.
        counts: [2, ..., S] of :func:`paid_states`, broadcastable.

    Returns:
        [...], summed over states.
    """
    return (counts[0] * F.logsigmoid(logits) + counts[1] * F.logsigmoid(-logits)).sum(-1)


def log_goal(logits: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Log-likelihood of payments where one state is paid and no other: of the goal's being among the states that can
    still be it. Those are the ones that were paid; without any, the ones that were not tried. Where a trial tried all
    in vain it says nothing.

    What a trial leaves open is summed over, so what it happened to try does not bias what is believed.

    Args:
        logits: [..., S], unnormalised, of being the goal.
        counts: [2, ..., S] of :func:`paid_states`, broadcastable.

    Returns:
        [...].
    """
    paid, untried = counts[0] > 0, counts.sum(0) == 0
    possible = torch.where(paid.any(-1, keepdim=True), paid, untried)
    possible = possible | ~possible.any(-1, keepdim=True)
    log_share = torch.log_softmax(logits, -1)
    return torch.logsumexp(log_share.masked_fill(~possible, -torch.inf), -1)


def log_density(predicted: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-density of standardised targets under unit Gaussians, up to a constant: [..., N] -> [...]."""
    error = targets - predicted
    return -0.5 * (error * error).sum(-1)
