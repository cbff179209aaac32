"""An outer step of MAML-TRPO: along the natural gradient, as far as a bound on the KL allows.

TRPO (Schulman et al. 2015, https://arxiv.org/abs/1502.05477, appendix C) on the adapted policies, as in MAML's own
experiments. The KL is of each adapted policy from what it becomes, on its own episodes, so its Fisher information
reaches the meta-parameters through the inner steps. The line search adapts again for every candidate, on the episodes
that were stored, with the actions that were taken: candidates differ in the meta-parameters alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from innerloop_server.learners.distributions import Categorical, Gaussian
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.natural_gradient import conjugate_gradients, dot, fisher_product
from innerloop_server.learners.promp import mean_kl
from innerloop_server.learners.trainable import GradientLearner, Prepared
from innerloop_server.training import optimiser

CG_ITERATIONS = 10
CG_DAMPING = 1e-5
BACKTRACKS = 15
"""Candidates of the line search."""
BACKTRACK_RATIO = 0.8
"""How much shorter each is than the one before."""


def step(
    learner: GradientLearner, meta: Tensors, samples: Sequence[Prepared], kl_limit: float
) -> tuple[Tensors, dict[str, float]]:
    """One outer step; all tasks at once.

    Args:
        learner: the method.
        meta: meta-parameters.
        samples: K + 1 of them, as ``GradientLearner.meta_loss`` wants them.
        kl_limit: largest mean KL.

    Returns:
        (meta, metrics): ``loss`` and ``gradient_norm`` before the step; ``outer_kl`` of the step that was taken and
        ``step_size``, its share of the longest one, both 0 where no candidate loses less within the limit and ``meta``
        stays as it is.
    """
    leaves = optimiser.leaves(meta)
    unrolled = list(learner.unroll(leaves, samples))
    loss = learner.outer_loss(unrolled)
    parts = torch.autograd.grad(
        loss, list(leaves.values()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    gradient = dict(zip(leaves, parts, strict=True))
    policies = [one.after for one in unrolled]
    masks = [one.judged.mask for one in unrolled]
    product = fisher_product(policies, masks, leaves, CG_DAMPING)
    direction, image = conjugate_gradients(product, gradient, CG_ITERATIONS)
    curvature = dot(direction, image)
    before = [policy.detach() for policy in policies]
    metrics = {"loss": float(loss.detach()), "gradient_norm": math.sqrt(dot(gradient, gradient))}
    del unrolled, policies, product, loss, parts  # the second-order graphs: the largest of all that is held
    size = math.sqrt(2 * kl_limit / curvature) if curvature > 0 else 0.0
    for i in range(BACKTRACKS if size > 0 else 0):
        share = BACKTRACK_RATIO**i
        candidate = {name: value - (share * size * direction[name]).to(value.dtype) for name, value in meta.items()}
        lost, kl = _judge(learner, candidate, samples, before)
        if lost < metrics["loss"] and kl <= kl_limit:
            return candidate, {**metrics, "outer_kl": kl, "step_size": share}
    return meta, {**metrics, "outer_kl": 0.0, "step_size": 0.0}


def _judge(
    learner: GradientLearner, meta: Tensors, samples: Sequence[Prepared], before: Sequence[Gaussian | Categorical]
) -> tuple[float, float]:
    """What the policies adapted from ``meta`` lose, and how far they are from those before."""
    leaves = optimiser.leaves(meta)
    unrolled = list(learner.unroll(leaves, samples, second_order=False))
    with torch.no_grad():
        loss = learner.outer_loss(unrolled)
        kl = mean_kl(before, [one.after for one in unrolled], [one.judged.mask for one in unrolled])
    return float(loss), float(kl)
