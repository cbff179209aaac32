"""The belief of PEARL and its networks, as pure functions on stacked weights.

A transition is evidence about a task: the encoder turns each, by itself, into a few linear measurements of z, each with
noise of variance one. The belief is the prior N(0, I) times the Gaussians that these say (Rakelly et al. 2019, equation
2, with the prior as one more factor, so that without evidence the belief is the prior). A product of Gaussians is two
running sums, so transitions may come in any order and any number, and the belief needs no capacity.

The paper's factors have diagonal covariances: each speaks of every number in z apart. A measurement is a factor that
speaks of one direction in z and of no other, so beliefs have full covariances (Bayesian regression on learned features,
as in Harrison et al. 2018, https://arxiv.org/abs/1807.08912). That matters where single transitions are ambiguous and
many together are not: a distance from a goal leaves a circle, which is linear in the goal and its square.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
import torch.nn.functional as F

from innerloop.arrays import Box, Discrete
from innerloop.policy import Header
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.networks import constant, flatten, linear
from innerloop_server.learners.transitions import Transitions

_HALF_LOG_TWO_PI_E = 0.5 * math.log(2 * math.pi * math.e)


@dataclass(frozen=True)
class Belief:
    """Gaussians over z, in the sums that a product of Gaussians is made of."""

    precision: torch.Tensor
    """[B, L, L]: sum of the factors' precisions. The prior's share, I, bounds its eigenvalues from below."""
    weighted: torch.Tensor
    """[B, L]: sum of their precisions times their means."""

    @property
    def mean(self) -> torch.Tensor:
        """[B, L]."""
        return self.sample(torch.zeros_like(self.weighted))

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """A z [B, L] for standard normal noise [B, L]; zeros give the mean."""
        root, whitened = self._whitening
        return (root.transpose(1, 2) * (whitened + noise).unsqueeze(1)).sum(-1)

    def kl_to_prior(self) -> torch.Tensor:
        """KL from N(0, I), [B], in nats."""
        root, _ = self._whitening
        mean = self.mean
        spread = (root * root).sum(-1) + mean * mean - 1
        return (0.5 * spread - torch.log(root.diagonal(dim1=1, dim2=2))).sum(-1)

    def entropy(self) -> torch.Tensor:
        """[B], in nats."""
        root, _ = self._whitening
        return (_HALF_LOG_TWO_PI_E + torch.log(root.diagonal(dim1=1, dim2=2))).sum(-1)

    @functools.cached_property
    def _whitening(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The inverse W [B, L, L] of the precision's Cholesky factor, and W @ weighted [B, L].

        By elimination, in products and sums alone: what a task gets does not depend on its company. The pivots of a
        matrix that is I and something positive are at least one, so holding them there only takes away rounding.
        """
        n = self.precision.shape[-1]
        identity = torch.eye(n, dtype=self.precision.dtype, device=self.precision.device).expand_as(self.precision)
        rest = torch.cat((self.precision, self.weighted.unsqueeze(-1), identity), -1)
        rows = []
        for i in range(n):
            row = rest[:, 0] * torch.rsqrt(rest[:, 0, i : i + 1].clamp(min=1))
            rest = rest[:, 1:] - row[:, i + 1 : n].unsqueeze(-1) * row.unsqueeze(1)
            rows.append(row)
        solved = torch.stack(rows, 1)
        return solved[..., n + 1 :], solved[..., n]


def prior(n: int, latent: int, like: torch.Tensor) -> Belief:
    """N(0, I) for ``n`` tasks, of the dtype and on the device of ``like``."""
    identity = torch.eye(latent, dtype=like.dtype, device=like.device)
    return Belief(identity.repeat(n, 1, 1), like.new_zeros((n, latent)))


def updated(
    belief: Belief, directions: torch.Tensor, values: torch.Tensor, real: torch.Tensor, weight: torch.Tensor
) -> Belief:
    """The belief after R measurements of each of M transitions, each to the power ``weight``.

    Args:
        belief: of B tasks.
        directions: [B, M, R, L].
        values: [B, M, R]: z along the directions, as far as is known with a standard deviation of one.
        real: [B, M] bool: which transitions count.
        weight: [B].
    """
    both = torch.cat((directions, values.unsqueeze(-1)), -1)
    counted = torch.where(real[:, :, None, None], both, torch.zeros_like(both)).flatten(1, 2)
    # Sums over contiguous memory and no matrix product: what a task gets must not depend on its company.
    rows = counted.transpose(1, 2).contiguous()
    gained = (rows[:, :-1].unsqueeze(2) * rows.unsqueeze(1)).sum(-1) * weight[:, None, None]
    return Belief(belief.precision + gained[..., :-1], belief.weighted + gained[..., -1])


def encode(weights: Tensors, features: torch.Tensor, latent: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What each transition says of z.

    Args:
        weights: of the encoder, [W, ...] each.
        features: [W, M, F] from :func:`evidence`.
        latent: L.

    Returns:
        (directions [W, M, R, L], values [W, M, R]).
    """
    measured = feed(weights, features)
    measured = measured.reshape(*measured.shape[:-1], -1, latent + 1)
    return measured[..., :-1], measured[..., -1]


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


def evidence(
    header: Header, steps: Transitions, reward_scale: float, dtype: torch.dtype, *, squares: bool = False
) -> torch.Tensor:
    """What the encoder sees of transitions: observation, action, change, reward, and whether the change was seen; then,
    if asked for, the squares of the observation that followed and of the reward: a range is a sum of squares.

    Returns:
        [B, M, F] with F = :func:`evidence_size`.
    """
    before, after = (seen(header, x, dtype) for x in (steps.observations, steps.next_observations))
    rewards = (steps.rewards.to(dtype) * reward_scale).unsqueeze(-1)
    parts = [before, done(header, steps.actions, dtype), after - before, rewards, steps.seen.to(dtype).unsqueeze(-1)]
    return torch.cat([*parts, after * after, rewards * rewards] if squares else parts, -1)


def evidence_size(header: Header, *, squares: bool = False) -> int:
    """Width of :func:`evidence`."""
    plain = 2 * header.observation_size + header.action_size + 2
    return plain + header.observation_size + 1 if squares else plain


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


def looking(header: Header, latent: int) -> Header:
    """Of the same policy before z is fixed, when it is one more thing to look at: of networks on :func:`situation`."""
    size = header.observation_size + latent
    return dataclasses.replace(
        header,
        observation_space=Box.of(-math.inf, math.inf, (size,)),
        observation_shift=(0.0,) * size,
        observation_scale=(1.0,) * size,
    )


def unfolded(weights: Tensors) -> Tensors:
    """Weights [1, ...] for :func:`looking`: one matrix product a layer serves all tasks, as they share them."""
    kernel = torch.cat((weights["layers.0.weight"], weights["latent.weight"]))
    shared = {name: w for name, w in weights.items() if name != "latent.weight"}
    return {name: w.unsqueeze(0) for name, w in {**shared, "layers.0.weight": kernel}.items()}


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
