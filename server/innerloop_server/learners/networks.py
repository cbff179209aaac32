"""The policy network on stacked weights: the torch twin of ``innerloop.policy.forward``, to 1e-5.

Weights are a flat dict named as ``innerloop.policy.weight_shapes`` says, each with a leading task dimension B. One
batched matrix product a layer serves all tasks, and what it gives a task does not depend on the others.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F

from innerloop.arrays import Discrete
from innerloop.policy import LOG_STD_FLOOR, Header, weight_shapes
from innerloop_server.domain import LearnerSpec
from innerloop_server.learners.distributions import Categorical, Gaussian
from innerloop_server.learners.learner import Tensors


def header(spec: LearnerSpec, hidden_sizes: tuple[int, ...]) -> Header:
    """The portable header of an MLP policy for the spaces of ``spec``."""
    return Header(
        observation_space=spec.observation_space,
        action_space=spec.action_space,
        hidden_sizes=hidden_sizes,
        observation_shift=spec.observation_shift,
        observation_scale=spec.observation_scale,
        action_shift=spec.action_shift,
        action_scale=spec.action_scale,
        family=spec.family,
        learner=spec.name,
    )


@functools.lru_cache(maxsize=1024)
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Settings as a tensor, made once: every step of a rollout asks for them, and on a GPU each making is a copy."""
    with torch.inference_mode(False):  # or whoever asks first decides whether autograd may use it
        return torch.tensor(values, dtype=dtype, device=device)


def flatten(header: Header, observation: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Observations as rows of numbers: Discrete ones as one-hot, a Box flattened, nothing normalised.

    Args:
        header: names the observation space.
        observation: [..., *O].
        dtype: of the result.

    Returns:
        [..., observation_size].
    """
    space = header.observation_space
    if isinstance(space, Discrete):
        return F.one_hot(observation.long(), space.n).to(dtype)
    lead = observation.shape[: observation.dim() - len(space.shape)]
    return observation.reshape(*lead, space.size).to(dtype)


def forward(header: Header, weights: Tensors, observation: torch.Tensor) -> Gaussian | Categorical:
    """What the policies of B tasks would do.

    Args:
        header: the architecture.
        weights: [B, ...] each; their dtype is the dtype of the computation.
        observation: [B, ..., *O]; every leading dimension after B is free.

    Returns:
        A distribution with the leading dimensions of ``observation``.
    """
    kernel = weights["layers.0.weight"]
    x = flatten(header, observation, kernel.dtype)
    lead = x.shape[:-1]
    x = x.reshape(lead[0], -1, header.observation_size)
    if not isinstance(header.observation_space, Discrete):
        shift, scale = (constant(v, x.dtype, x.device) for v in (header.observation_shift, header.observation_scale))
        x = (x - shift) / scale
    last = len(header.hidden_sizes)
    for i in range(last + 1):
        x = linear(x, weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"])
        if i < last:
            x = torch.tanh(x)
    x = x.reshape(*lead, header.action_size)
    if header.distribution == "categorical":
        return Categorical(x)
    log_std = weights["log_std"].clamp(min=LOG_STD_FLOOR)
    return Gaussian(x, log_std.reshape(lead[0], *(1,) * (len(lead) - 1), header.action_size))


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """[B, n, in] by [B, in, out] -> [B, n, out]."""
    if weight.shape[-1] == 1:
        # A batch of one would go to a matrix-vector kernel that rounds otherwise: what a task computes must not depend
        # on its company.
        return (x * weight.transpose(1, 2)).sum(-1, keepdim=True) + bias.unsqueeze(1)
    return torch.baddbmm(bias.unsqueeze(1), x, weight)


def initial_weights(
    header: Header, rng: np.random.Generator, *, last_layer_scale: float, initial_log_std: float
) -> Tensors:
    """Fresh weights, without a leading dimension, float32 on the CPU.

    Xavier-uniform kernels (Glorot and Bengio 2010), zero biases. ``last_layer_scale`` shrinks the last kernel: near
    0 the policy starts indifferent, so that the first inner step may take it either way.
    """
    weights: Tensors = {}
    last = f"layers.{len(header.hidden_sizes)}.weight"
    for name, shape in weight_shapes(header).items():
        if name == "log_std":
            weights[name] = torch.full(shape, initial_log_std)
        elif name.endswith("bias"):
            weights[name] = torch.zeros(shape)
        else:
            bound = math.sqrt(6 / sum(shape)) * (last_layer_scale if name == last else 1.0)
            weights[name] = torch.from_numpy(rng.uniform(-bound, bound, shape).astype(np.float32))
    return weights


def stack(weights: Tensors, n: int) -> Tensors:
    """The same weights for ``n`` tasks: [n, ...] each, contiguous and differentiable.

    Contiguous, because a stride of zero would send the matrix products down another kernel than adapted weights.
    """
    return {name: value.unsqueeze(0).repeat(n, *(1,) * value.dim()) for name, value in weights.items()}
