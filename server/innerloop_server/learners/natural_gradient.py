"""Natural gradients without a matrix: conjugate gradients on products with the Fisher information. Pure functions.

Vectors are flat dicts of tensors, like the parameters they belong to. Their arithmetic is float64 whatever the
parameters are: after ten products in a row a float32 residual is mostly rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from innerloop_server.learners.distributions import Categorical, Gaussian
from innerloop_server.learners.learner import Tensors

Product = Callable[[Tensors], Tensors]
"""A symmetric matrix: what it makes of a vector."""


def dot(left: Tensors, right: Tensors) -> float:
    """The inner product, in float64, whatever order the names stand in: a checkpoint does not keep it."""
    return math.fsum(float((value.to(torch.float64) * right[name]).sum()) for name, value in left.items())


def conjugate_gradients(product: Product, target: Tensors, iterations: int) -> tuple[Tensors, Tensors]:
    """``x`` with ``product(x)`` near ``target``: conjugate gradients from zero (Hestenes and Stiefel 1952).

    Args:
        product: positive semi-definite; ``target`` lies in its range.
        target: the right side.
        iterations: at most; fewer where the residual is gone.

    Returns:
        (``x``, ``product(x)``), float64; the latter is ``target`` less what is left of it, and costs nothing.
    """
    residual = {name: value.to(torch.float64) for name, value in target.items()}
    x = {name: torch.zeros_like(value) for name, value in residual.items()}
    direction = dict(residual)
    left = dot(residual, residual)
    for _ in range(iterations):
        if left <= torch.finfo(torch.float64).tiny:
            break
        image = product(direction)
        step = left / dot(direction, image)
        x = _add(x, step, direction)
        residual = _add(residual, -step, image)
        still = dot(residual, residual)
        direction = _add(residual, still / left, direction)
        left = still
    return x, _add(target, -1.0, residual)


def fisher_product(
    policies: Sequence[Gaussian | Categorical],
    masks: Sequence[torch.Tensor],
    parameters: Tensors,
    damping: float,
) -> Product:
    """Products with the Fisher information of what ``parameters`` make policies do, and ``damping`` times the identity.

    It is the Hessian of the mean KL from these policies, where that is zero: ``J^T F J`` with the Jacobian J of the
    distributions' own parameters, and their Fisher information F in closed form. J forward is the derivative of
    ``J^T u`` in u, so the graph of ``J^T u`` is built once, and a product costs two passes through graphs that stand.

    Args:
        policies: differentiable in ``parameters``, leading dimensions [B, N, T].
        masks: [B, N, T] bool each: the mean is over each task's real steps, then over tasks, then over the policies.
        parameters: name -> leaf.
        damping: added to the diagonal.
    """
    leaves = list(parameters.values())
    outputs = [[part.contiguous() for part in policy.parameters()] for policy in policies]
    flat = [part for parts in outputs for part in parts]
    dummies = [torch.zeros_like(part, requires_grad=True) for part in flat]
    # Not every parameter reaches every output: a rate of zero, or a categorical policy's missing deviation.
    backward = torch.autograd.grad(
        flat, leaves, dummies, create_graph=True, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    shares = []
    for parts, mask in zip(outputs, masks, strict=True):
        steps = mask.flatten(1).sum(-1).clamp(min=1) * (mask.shape[0] * len(masks))
        shares.append((mask.to(parts[0].dtype) / steps.reshape(-1, *(1,) * (mask.dim() - 1))).unsqueeze(-1))

    def product(vector: Tensors) -> Tensors:
        given = [vector[name].to(leaf.dtype) for name, leaf in parameters.items()]
        forward = torch.autograd.grad(
            backward, dummies, given, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        weighed: list[torch.Tensor] = []
        rest = list(forward)
        for policy, parts, share in zip(policies, outputs, shares, strict=True):
            tangents, rest = rest[: len(parts)], rest[len(parts) :]
            weighed += [part * share for part in policy.detach().fisher(tangents)]
        back = torch.autograd.grad(flat, leaves, weighed, retain_graph=True, allow_unused=True, materialize_grads=True)
        return {
            name: image.to(torch.float64) + damping * vector[name]
            for (name, _), image in zip(parameters.items(), back, strict=True)
        }

    return product


def _add(left: Tensors, scale: float, right: Tensors) -> Tensors:
    return {name: value + scale * right[name] for name, value in left.items()}
