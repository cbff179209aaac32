"""Distributions over raw actions: the torch twins of ``innerloop.policy.sample`` and ``log_prob``.

They are values (parameters and nothing else), differentiable in their parameters, and each row's numbers depend on
that row alone, so a task's log-probabilities do not change with its company.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from innerloop_server.learners.learner import Distribution

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Gaussian:
    """Independent normals, one an action dimension."""

    mean: torch.Tensor
    """[..., A]."""
    log_std: torch.Tensor
    """[..., A], broadcastable to ``mean``."""

    def sample(self, noise: torch.Tensor | None) -> torch.Tensor:
        """``mean + std * noise`` for standard normal ``noise`` [..., A]; the mean for ``None``."""
        if noise is None:
            return self.mean
        return self.mean + torch.exp(self.log_std) * noise

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """[...], summed (not averaged) over the action dimensions of ``action`` [..., A]."""
        z = (action - self.mean) * torch.exp(-self.log_std)
        return (-0.5 * z * z - self.log_std - _HALF_LOG_TWO_PI).sum(-1)

    def entropy(self) -> torch.Tensor:
        """[...], in nats; a function of ``log_std`` alone."""
        return (self.log_std + (0.5 + _HALF_LOG_TWO_PI)).expand_as(self.mean).sum(-1)

    def kl(self, other: Distribution) -> torch.Tensor:
        """KL(self || other), [...].

        Raises:
            TypeError: ``other`` is not a Gaussian.
        """
        if not isinstance(other, Gaussian):
            raise TypeError(f"no KL from a Gaussian to a {type(other).__name__}")
        gap = (self.mean - other.mean) * torch.exp(-other.log_std)
        ratio = torch.exp(2 * (self.log_std - other.log_std))
        return (other.log_std - self.log_std + 0.5 * (ratio + gap * gap - 1)).sum(-1)

    def detach(self) -> Gaussian:
        """The same, a constant."""
        return Gaussian(self.mean.detach(), self.log_std.detach())

    def parameters(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean, log_std), [..., A] each."""
        return self.mean, self.log_std.expand_as(self.mean)

    def fisher(self, tangents: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The Fisher information of each row times a change of its :meth:`parameters`: what the Hessian of the KL is
        where both distributions are the same. ``1 / std^2`` for the mean, 2 for ``log_std``.
        """
        of_mean, of_log_std = tangents
        return of_mean * torch.exp(-2 * self.log_std), 2 * of_log_std


@dataclass(frozen=True)
class Categorical:
    """One of n actions."""

    logits: torch.Tensor
    """[..., n], unnormalised."""

    def log_probs(self) -> torch.Tensor:
        """[..., n], normalised."""
        shifted = self.logits - self.logits.max(-1, keepdim=True).values.detach()
        return shifted - torch.log(torch.exp(shifted).sum(-1, keepdim=True))

    def sample(self, noise: torch.Tensor | None) -> torch.Tensor:
        """Inverse of the cumulative probabilities at uniform ``noise`` [..., 1]; the most likely for ``None``.
        [...] int64.
        """
        if noise is None:
            return self.logits.argmax(-1)
        below = torch.exp(self.log_probs()).cumsum(-1) <= noise
        # Rounding may leave the last cumulative probability below the noise.
        return below.sum(-1).clamp(max=self.logits.shape[-1] - 1)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """[...] for ``action`` [...] int64."""
        return self.log_probs().gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> torch.Tensor:
        """[...], in nats."""
        log_p = self.log_probs()
        return -(torch.exp(log_p) * log_p).sum(-1)

    def kl(self, other: Distribution) -> torch.Tensor:
        """KL(self || other), [...].

        Raises:
            TypeError: ``other`` is not a Categorical.
        """
        if not isinstance(other, Categorical):
            raise TypeError(f"no KL from a Categorical to a {type(other).__name__}")
        log_p = self.log_probs()
        return (torch.exp(log_p) * (log_p - other.log_probs())).sum(-1)

    def detach(self) -> Categorical:
        """The same, a constant."""
        return Categorical(self.logits.detach())

    def parameters(self) -> tuple[torch.Tensor]:
        """(logits,), [..., n]."""
        return (self.logits,)

    def fisher(self, tangents: Sequence[torch.Tensor]) -> tuple[torch.Tensor]:
        """The Fisher information of each row times a change of its :meth:`parameters`: ``(diag(p) - p p^T) x``."""
        (x,) = tangents
        p = torch.exp(self.log_probs())
        return (p * (x - (p * x).sum(-1, keepdim=True)),)
