"""The belief of PEARL and its networks, as pure functions on stacked weights.

A transition is evidence about a task: the encoder turns each, by itself, into a Gaussian over z. The belief is the
product of the prior N(0, I) and all of these (Rakelly et al. 2019, equation 2, with the prior as one more factor, so
that without evidence the belief is the prior). A product of Gaussians is two running sums, so transitions may come in
any order and any number, and the belief needs no capacity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
import torch.nn.functional as F

from innerloop.arrays import Discrete
from innerloop.policy import Header
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.networks import constant, flatten, linear
from innerloop_server.learners.transitions import Transitions

VARIANCE_FLOOR = 1e-7
"""Smallest variance of what one transition says."""
_HALF_LOG_TWO_PI_E = 0.5 * math.log(2 * math.pi * math.e)


@dataclass(frozen=True)
class Belief:
    """Independent Gaussians over z, in the sums that a product of Gaussians is made of."""

    precision: torch.Tensor
    """[B, L]: sum of the factors' precisions."""
    weighted: torch.Tensor
    """[B, L]: sum of their means, each times its precision."""

    @property
    def mean(self) -> torch.Tensor:
        """[B, L]."""
        return self.weighted / self.precision

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """A z [B, L] for standard normal noise [B, L]; zeros give the mean."""
        return self.mean + noise * torch.rsqrt(self.precision)

    def kl_to_prior(self) -> torch.Tensor:
        """KL from N(0, I), [B], in nats."""
        return 0.5 * (1 / self.precision + self.mean * self.mean - 1 + torch.log(self.precision)).sum(-1)

    def entropy(self) -> torch.Tensor:
        """[B], in nats."""
        return (_HALF_LOG_TWO_PI_E - 0.5 * torch.log(self.precision)).sum(-1)


def prior(n: int, latent: int, device: torch.device) -> Belief:
    """N(0, I) for ``n`` tasks."""
    return Belief(torch.ones(n, latent, device=device), torch.zeros(n, latent, device=device))


def updated(
    belief: Belief, means: torch.Tensor, precisions: torch.Tensor, real: torch.Tensor, weight: torch.Tensor
) -> Belief:
    """The belief times the Gaussians of M transitions, each to the power ``weight``.

    Args:
        belief: of B tasks.
        means: [B, M, L].
        precisions: [B, M, L].
        real: [B, M] bool: which transitions count.
        weight: [B].
    """
    kept = torch.where(real.unsqueeze(-1), precisions, torch.zeros_like(precisions)) * weight[:, None, None]
    return Belief(belief.precision + _sum(kept), belief.weighted + _sum(kept * means))


def _sum(x: torch.Tensor) -> torch.Tensor:
    """[B, M, L] -> [B, L], over contiguous memory, so that a task's sums do not depend on its company."""
    return x.transpose(1, 2).contiguous().sum(-1)


def encode(weights: Tensors, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What each transition says of z.

    Args:
        weights: of the encoder, [W, ...] each.
        features: [W, M, F] from :func:`evidence`.

    Returns:
        (means, precisions), [W, M, L] each.
    """
    means, spread = feed(weights, features).chunk(2, -1)
    return means, 1 / (F.softplus(spread) + VARIANCE_FLOOR)


def feed(weights: Tensors, x: torch.Tensor) -> torch.Tensor:
    """A network of rectified layers: [W, M, in] -> [W, M, out] for weights [W, ...] named as ``perceptron`` does."""
    layers = len(weights) // 2
    for i in range(layers):
        x = linear(x, weights[f"{i}.weight"], weights[f"{i}.bias"])
        if i < layers - 1:
            x = torch.relu(x)
    return x


def seen(header: Header, observations: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Normalised observations, [..., *O] -> [..., observation_size]."""
    x = flatten(header, observations, dtype)
    if isinstance(header.observation_space, Discrete):
        return x
    shift, scale = (constant(v, x.dtype, x.device) for v in (header.observation_shift, header.observation_scale))
    return (x - shift) / scale


def done(header: Header, actions: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Actions as the environment understands them: one-hot, or raw and clipped. [..., A]."""
    if isinstance(header.action_space, Discrete):
        return F.one_hot(actions.long(), header.action_space.n).to(dtype)
    low, high = reach(header, dtype, actions.device)
    return torch.clamp(actions.to(dtype), low, high)


def reach(header: Header, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw actions at which the environment begins to clip: (low, high), [A] each. Box actions only."""
    space = header.action_space
    assert not isinstance(space, Discrete)
    shift, scale = (constant(v, dtype, device) for v in (header.action_shift, header.action_scale))
    sides = (constant(tuple(side.ravel().tolist()), dtype, device) for side in (space.low, space.high))
    low, high = ((side - shift) / scale for side in sides)
    return low, high


def evidence(header: Header, steps: Transitions, reward_scale: float, dtype: torch.dtype) -> torch.Tensor:
    """What the encoder sees of transitions: observation, action, reward, change, and whether the change was seen.

    Returns:
        [B, M, F] with F = :func:`evidence_size`.
    """
    before, after = (seen(header, x, dtype) for x in (steps.observations, steps.next_observations))
    scalars = torch.stack((steps.rewards.to(dtype) * reward_scale, steps.seen.to(dtype)), -1)
    return torch.cat((before, done(header, steps.actions, dtype), after - before, scalars), -1)


def evidence_size(header: Header) -> int:
    """Width of :func:`evidence`."""
    return 2 * header.observation_size + header.action_size + 2


def situation(header: Header, observations: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """What a critic sees besides the action: observations [B, M, *O] and z [B, L] -> [B, M, observation_size + L]."""
    x = seen(header, observations, z.dtype)
    return torch.cat((x, z.unsqueeze(1).expand(*x.shape[:2], z.shape[-1])), -1)


def folded(weights: Tensors, z: torch.Tensor) -> Tensors:
    """The portable weights of a policy that looks at z, for a z that is fixed: it only shifts the first bias.

    Args:
        weights: ``layers.<i>.weight`` and so on without a leading dimension, and ``latent.weight`` [L, H].
        z: [B, L].

    Returns:
        Weights [B, ...] as ``networks.forward`` takes them.
    """
    n = len(z)
    portable = {
        name: w.unsqueeze(0).repeat(n, *(1,) * w.dim()) for name, w in weights.items() if name != "latent.weight"
    }
    # Products and a sum in place of a matrix product: one row would go to another kernel than many.
    shift = (weights["latent.weight"].T.unsqueeze(0) * z.unsqueeze(1)).sum(-1)
    return {**portable, "layers.0.bias": portable["layers.0.bias"] + shift}


def spread_noise(steps: int, latent: int) -> tuple[tuple[float, ...], ...]:
    """Standard normal vectors that cover the space evenly as they come: an additive recurrence (the generalised golden
    ratio's, Roberts 2018) through the normal quantile function. They stand for random draws where none may be made.

    Returns:
        [steps][latent].
    """
    ratio = 2.0
    for _ in range(64):  # the positive root of x^(L + 1) = x + 1; contracts to machine precision long before
        ratio = (1 + ratio) ** (1 / (latent + 1))
    normal = NormalDist()
    rows = (tuple((0.5 + (k + 1) * ratio ** -(j + 1)) % 1.0 for j in range(latent)) for k in range(steps))
    return tuple(tuple(normal.inv_cdf(min(max(u, 1e-6), 1 - 1e-6)) for u in row) for row in rows)
