"""An outer step of MAML-TRPO: along the natural gradient, as far as a bound on the KL allows.

TRPO (Schulman et al. 2015, https://arxiv.org/abs/1502.05477, appendix C) on the adapted policies, as in MAML's own
experiments. The KL is of each adapted policy from what it becomes, on its own episodes, so its Fisher information
reaches the meta-parameters through the inner steps. The line search adapts again for every candidate, on the episodes
that were stored, with the actions that were taken: candidates differ in the meta-parameters alone.

Loss, gradient, Fisher products and KL are means over tasks, and are summed up a few tasks at a time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from innerloop_server.learners.distributions import Categorical, Gaussian
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.natural_gradient import Product, conjugate_gradients, dot, fisher_product
from innerloop_server.learners.promp import mean_kl
from innerloop_server.learners.trainable import GradientLearner, Prepared
from innerloop_server.training import optimiser

CG_ITERATIONS = 10
CG_DAMPING = 1e-5
BACKTRACKS = 15
"""Candidates of the line search."""
BACKTRACK_RATIO = 0.8
"""How much shorter each is than the one before."""
STEPS_AT_ONCE = 4_000
"""On the CPU: environment steps, padded ones too, of the tasks that are computed together. A layer's activations, 1 MB
at 64 units, then stay in the processor's cache from one operation to the next, and the memory of one serves the next
without going back to the system: all tasks at once take more time and more memory."""


@dataclass(frozen=True)
class _Part:
    """Some of the tasks."""

    share: float
    """Of all tasks."""
    samples: list[Prepared]
    """K + 1 of them."""


@dataclass(frozen=True)
class _Around:
    """The meta-loss around the meta-parameters that a step starts from."""

    loss: float
    gradient: Tensors
    """Float64."""
    product: Product
    """With the Fisher information. It holds the second-order graphs of all parts: the largest of all that is held."""
    policies: list[list[Gaussian | Categorical]]
    """The adapted policies of each part after k = 1..K inner steps, constants."""


def step(
    learner: GradientLearner, meta: Tensors, samples: Sequence[Prepared], kl_limit: float
) -> tuple[Tensors, dict[str, float]]:
    """One outer step.

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
    parts = list(_parts(samples))
    around = _look_around(learner, meta, parts)
    direction, image = conjugate_gradients(around.product, around.gradient, CG_ITERATIONS)
    curvature = dot(direction, image)
    before = around.policies
    metrics = {"loss": around.loss, "gradient_norm": math.sqrt(dot(around.gradient, around.gradient))}
    del around
    size = math.sqrt(2 * kl_limit / curvature) if curvature > 0 else 0.0
    for i in range(BACKTRACKS if size > 0 else 0):
        share = BACKTRACK_RATIO**i
        candidate = {name: value - (share * size * direction[name]).to(value.dtype) for name, value in meta.items()}
        lost, kl = _judge(learner, candidate, parts, before)
        if lost < metrics["loss"] and kl <= kl_limit:
            return candidate, {**metrics, "outer_kl": kl, "step_size": share}
    return meta, {**metrics, "outer_kl": 0.0, "step_size": 0.0}


def _parts(samples: Sequence[Prepared]) -> Iterator[_Part]:
    """The tasks in their order, as few at a time as ``STEPS_AT_ONCE`` says; on a GPU, which wants many, all at once."""
    tasks = samples[0].mask.shape[0]
    steps = max(one.mask[0].numel() for one in samples)
    size = max(1, STEPS_AT_ONCE // max(1, steps)) if samples[0].mask.device.type == "cpu" else tasks
    for start in range(0, tasks, size):
        rows = slice(start, min(start + size, tasks))
        yield _Part((rows.stop - start) / tasks, [_of(one, rows) for one in samples])


def _of(samples: Prepared, rows: slice) -> Prepared:
    """The tasks at ``rows``."""
    kept = {field.name: getattr(samples, field.name)[rows] for field in dataclasses.fields(samples)}
    return dataclasses.replace(samples, **kept)


def _look_around(learner: GradientLearner, meta: Tensors, parts: Sequence[_Part]) -> _Around:
    """All that the direction of a step depends on."""
    leaves = optimiser.leaves(meta)
    loss = 0.0
    gradient = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in meta.items()}
    products: list[Product] = []
    policies: list[list[Gaussian | Categorical]] = []
    for part in parts:
        unrolled = list(learner.unroll(leaves, part.samples))
        lost = learner.outer_loss(unrolled)
        slopes = torch.autograd.grad(
            lost, list(leaves.values()), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        loss += part.share * float(lost.detach())
        _accumulate(gradient, part.share, dict(zip(leaves, slopes, strict=True)))
        after = [one.after for one in unrolled]
        products.append(fisher_product(after, [one.judged.mask for one in unrolled], leaves, CG_DAMPING))
        policies.append([policy.detach() for policy in after])

    def product(vector: Tensors) -> Tensors:
        total = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in vector.items()}
        for part, of_part in zip(parts, products, strict=True):
            _accumulate(total, part.share, of_part(vector))
        return total

    return _Around(loss, gradient, product, policies)


def _accumulate(total: Tensors, share: float, one: Tensors) -> None:
    """Add ``share * one`` to float64 sums, in place."""
    for name, value in total.items():
        value.add_(one[name].to(torch.float64), alpha=share)


def _judge(
    learner: GradientLearner,
    meta: Tensors,
    parts: Sequence[_Part],
    before: Sequence[Sequence[Gaussian | Categorical]],
) -> tuple[float, float]:
    """What the policies adapted from ``meta`` lose, and how far they are from those before."""
    leaves = optimiser.leaves(meta)
    loss = kl = 0.0
    for part, old in zip(parts, before, strict=True):
        unrolled = list(learner.unroll(leaves, part.samples, second_order=False))
        with torch.no_grad():
            away = mean_kl(old, [one.after for one in unrolled], [one.judged.mask for one in unrolled])
            loss += part.share * float(learner.outer_loss(unrolled))
        kl += part.share * float(away)
    return loss, kl
