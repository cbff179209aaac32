"""Losses of labelled examples: pure functions, one number an example, smaller is better.

What a supervised learner is trained on is what it is scored by: the cross-entropy of the right label, or the squared
error of the prediction in the units of the environment.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from innerloop_server.domain import LearnerSpec, Supervision
from innerloop_server.learners.distributions import Categorical, Gaussian
from innerloop_server.learners.networks import constant


def binary_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of two labels, in nats: ``log(1 + exp(z)) - y z`` with ``z`` the second logit minus the first.

    Args:
        logits: [..., 2].
        labels: [...] int64, 0 or 1.

    Returns:
        [...].
    """
    z = logits[..., 1] - logits[..., 0]
    return F.binary_cross_entropy_with_logits(z, labels.to(z.dtype), reduction="none")


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Minus the log-probability of the right label, in nats.

    Args:
        logits: [..., n].
        labels: [...] int64, 0 to n - 1.

    Returns:
        [...].
    """
    return -Categorical(logits).log_prob(labels)


def squared_error(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over the target's dimensions.

    Args:
        prediction: [..., F].
        target: [..., F].

    Returns:
        [...].
    """
    gap = prediction - target
    return (gap * gap).sum(-1) / gap.shape[-1]


def example_loss(spec: LearnerSpec, policy: Gaussian | Categorical, feedback: torch.Tensor) -> torch.Tensor:
    """What each example costs a policy of a supervised learner.

    A regression is judged by where it aims: its mean, scaled as an environment takes it but not clipped, because a
    prediction outside the bounds must still be pulled back.

    Args:
        spec: says which loss, and how predictions are scaled.
        policy: leading dimensions [B, N, T].
        feedback: [B, N, T, F] the right answers.

    Returns:
        [B, N, T].
    """
    if spec.supervision is Supervision.REGRESSION:
        assert isinstance(policy, Gaussian)  # what a Box action space gives
        mean = policy.mean
        shift, scale = (constant(v, mean.dtype, mean.device) for v in (spec.action_shift, spec.action_scale))
        return squared_error(shift + scale * mean, feedback.to(mean.dtype))
    assert isinstance(policy, Categorical)  # what a Discrete action space gives
    labels = feedback[..., 0].long()
    two = policy.logits.shape[-1] == 2
    return binary_cross_entropy(policy.logits, labels) if two else cross_entropy(policy.logits, labels)
