"""A policy with memory: a gated recurrent unit (Cho et al. 2014, https://arxiv.org/abs/1406.1078) on stacked weights.

One step of one row, ``[a, b]`` being concatenation, matrices standing right of their rows, and ``m`` the memory::

    first = trial_end of the step before, or there was none
    x     = [o, a, r, ended, first]                       (:func:`features`)
            o: the normalised observation, one-hot where it is Discrete
            a: the previous action, one-hot where it is Discrete, raw where it is a Box
            r: the previous reward;  ended: the previous step ended its episode (terminated or truncated)
            a, r and ended are zero where first is 1
    m     = 0 where first is 1
    e     = x, then e = tanh(e @ encoder.layers.<i>.weight + encoder.layers.<i>.bias) for each layer i
    gi    = e @ gru.input.weight  + gru.input.bias        three blocks of columns: r, z, n
    gh    = m @ gru.hidden.weight + gru.hidden.bias       likewise
    r     = sigmoid(gi_r + gh_r)
    z     = sigmoid(gi_z + gh_z)
    n     = tanh(gi_n + r * gh_n)
    m'    = n + z * (m - n)                               as torch.nn.GRUCell: (1 - z) * n + z * m
    y     = [m', e], then policy.layers.<i> on it, tanh between the layers and none after the last
    logits or mean = y;  log_std is a weight of its own, never below ``LOG_STD_FLOOR``

``value.layers.<i>`` on ``[m', e]`` gives the value and is for training alone. Weights are [B, in, out] and biases
[B, out], rows [B, R, ...]; what a row computes does not depend on which other tasks there are.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F

from innerloop.arrays import Discrete
from innerloop.policy import LOG_STD_FLOOR, Header, input_size, weight_shapes
from innerloop.policy.networks import FLAGS
from innerloop_server.learners import networks
from innerloop_server.learners.distributions import Categorical, Gaussian
from innerloop_server.learners.gru_unroll import unroll_gates
from innerloop_server.learners.learner import Input, Tensors
from innerloop_server.learners.trial_record import TrialRecord

TOLD = "value.told.weight"
"""A meta-parameter: how the value reads what tells the task."""


def value_shapes(header: Header) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of the value, without leading dimensions; the policy's are
    ``innerloop.policy.weight_shapes``.
    """
    encoded = (input_size(header), *header.encoder_sizes)[-1]
    widths = (header.memory_size + encoded, *header.hidden_sizes, 1)
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        shapes[f"value.layers.{i}.weight"] = (n_in, n_out)
        shapes[f"value.layers.{i}.bias"] = (n_out,)
    return shapes


def features(header: Header, input: Input, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """What the network reads of an input.

    Args:
        header: names the spaces, and normalises observations.
        input: [B, R, ...]; any more leading dimensions are free. All that is ``None`` besides the observation means
            that every row is at its trial's first step.
        dtype: of the result.

    Returns:
        (x [B, R, input_size], first [B, R] bool).
    """
    observation = networks.flatten(header, input.observation, dtype)
    lead = observation.shape[:-1]
    if not isinstance(header.observation_space, Discrete):
        shift, scale = header.observation_shift, header.observation_scale
        observation = observation - networks.constant(shift, dtype, observation.device)
        observation = observation / networks.constant(scale, dtype, observation.device)
    if input.previous_action is None:
        first = torch.ones(lead, dtype=torch.bool, device=observation.device)
        before = observation.new_zeros((*lead, header.action_size + FLAGS - 1))
    else:
        assert input.reward is not None  # they come together
        assert input.terminated is not None
        assert input.truncated is not None
        assert input.trial_end is not None
        first = input.trial_end.bool()
        if isinstance(header.action_space, Discrete):
            action = F.one_hot(input.previous_action.long(), header.action_space.n).to(dtype)
        else:
            action = input.previous_action.reshape(*lead, header.action_size).to(dtype)
        ended = (input.terminated.bool() | input.truncated.bool()).to(dtype)
        before = torch.cat([action, input.reward.to(dtype).unsqueeze(-1), ended.unsqueeze(-1)], -1)
        before = before.masked_fill(first.unsqueeze(-1), 0)
    return torch.cat([observation, before, first.to(dtype).unsqueeze(-1)], -1), first


def trial_features(header: Header, trials: TrialRecord, dtype: torch.dtype) -> torch.Tensor:
    """What the network reads at each step of whole trials, [T, R, input_size]."""
    start, _ = features(header, Input(trials.observations[:1]), dtype)
    then = Input(
        observation=trials.observations[1:],
        previous_action=trials.actions[:-1],
        reward=trials.rewards[:-1],
        terminated=trials.terminated[:-1],
        truncated=trials.truncated[:-1],
        # Trials are whole: none starts in the middle, and what comes after one's end is not real.
        trial_end=torch.zeros_like(trials.trial_end[:-1]),
    )
    return torch.cat([start, features(header, then, dtype)[0]])


def share(weights: Tensors, n: int) -> Tensors:
    """The same weights for ``n`` tasks, [n, ...] each, without a copy: what adapts is the memory, so a thousand tasks
    act with one set of weights. Where n is 1 ``expand`` keeps the strides, which say what kernel the products go to.
    """
    return {name: value.unsqueeze(0).expand(n, *value.shape) for name, value in weights.items()}


def encode(weights: Tensors, x: torch.Tensor) -> torch.Tensor:
    """``e`` [B, R, E] of ``x`` [B, R, input_size]."""
    for i in range(_depth(weights, "encoder")):
        x = torch.tanh(_linear(weights, f"encoder.layers.{i}", x))
    return x


def remember(weights: Tensors, memory: torch.Tensor, gate_inputs: torch.Tensor) -> torch.Tensor:
    """The memory after having looked.

    Args:
        weights: [B, ...] each.
        memory: [B, R, M] before, zero where a trial starts.
        gate_inputs: [B, R, 3 * M] ``gi``.

    Returns:
        [B, R, M].
    """
    size = memory.shape[-1]
    gate_memory = _linear(weights, "gru.hidden", memory)
    gates = _sigmoid(gate_inputs[..., : 2 * size] + gate_memory[..., : 2 * size])
    reset, keep = gates[..., :size], gates[..., size:]
    new = torch.tanh(gate_inputs[..., 2 * size :] + reset * gate_memory[..., 2 * size :])
    return new + keep * (memory - new)


def look(
    weights: Tensors, memory: torch.Tensor, x: torch.Tensor, first: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of every row.

    Args:
        weights: [B, ...] each.
        memory: [B, R, M].
        x: [B, R, input_size].
        first: [B, R] bool: whose memory is emptied before.

    Returns:
        (what the heads read, ``[m', e]``: [B, R, M + E]; the memory after: [B, R, M]).
    """
    encoded = encode(weights, x)
    memory = remember(weights, memory.masked_fill(first.unsqueeze(-1), 0), _linear(weights, "gru.input", encoded))
    return torch.cat([memory, encoded], -1), memory


def unroll(weights: Tensors, x: torch.Tensor, memory: torch.Tensor | None = None) -> torch.Tensor:
    """Whole trials from an empty memory, or what follows one, all that does not wait for the memory in one product.

    For training: it can be differentiated once, and its sigmoids round a row otherwise in other company (see
    :func:`_sigmoid`); who acts calls :func:`look`.

    Args:
        weights: [B, ...] each.
        x: [B, T, R, input_size], time first so that a step's rows lie together.
        memory: [B, R, M] before the first step; ``None``: empty.

    Returns:
        ``[m', e]`` of every step: [B, T, R, M + E].
    """
    lead = x.shape[:3]
    encoded = encode(weights, x.flatten(1, 2))
    gate_inputs = _linear(weights, "gru.input", encoded).reshape(*lead, -1)
    if memory is None:
        memory = x.new_zeros((lead[0], lead[2], gate_inputs.shape[-1] // 3))
    memories = unroll_gates(gate_inputs, weights["gru.hidden.weight"], weights["gru.hidden.bias"], memory)
    return torch.cat([memories, encoded.reshape(*lead, -1)], -1)


def policy(header: Header, weights: Tensors, y: torch.Tensor) -> Gaussian | Categorical:
    """What the rows would do, from ``y = [m', e]`` [B, R, M + E]."""
    out = _head(weights, "policy", y)
    if header.distribution == "categorical":
        return Categorical(out)
    return Gaussian(out, weights["log_std"].clamp(min=LOG_STD_FLOOR).unsqueeze(1))


def value(weights: Tensors, y: torch.Tensor, told: torch.Tensor | None = None) -> torch.Tensor:
    """[B, R] what is still to come, from ``y = [m', e]`` [B, R, M + E]; ``told`` [B, R, H] is added to what goes into
    the H units of the first layer.
    """
    return _head(weights, "value", y, told).squeeze(-1)


def with_task(x: torch.Tensor, trials: TrialRecord, task_size: int) -> torch.Tensor:
    """``x`` [T, R, I] and after it the P numbers that tell each trial's task: [T, R, I + P]; ``x`` where P is 0."""
    if not task_size:
        return x
    assert trials.task is not None  # the student has asked for it
    return torch.cat([x, trials.task.to(x.dtype).expand(len(x), -1, -1)], -1)


def told(weights: Tensors, task: torch.Tensor) -> torch.Tensor | None:
    """What :func:`value` is told, [1, T * R, H], of the numbers [T, R, P] that tell the tasks of whole trials; ``None``
    where P is 0. The weights have a leading dimension of one.
    """
    if not task.shape[-1]:
        return None
    # The task is the same at all steps of a trial: one product serves them.
    once = torch.bmm(task[:1], weights[TOLD])
    return once.unsqueeze(1).expand(1, len(task), *once.shape[1:]).flatten(1, 2)


def initial_weights(
    header: Header, rng: np.random.Generator, *, last_layer_scale: float, initial_log_std: float
) -> Tensors:
    """Fresh weights of policy and value, without a leading dimension, float32 on the CPU.

    Xavier-uniform kernels (Glorot and Bengio 2010); an orthogonal matrix for each gate's recurrence (Saxe et al. 2014,
    https://arxiv.org/abs/1312.6120), so that what is remembered neither fades nor grows at the start; zero biases.
    """
    last = f"policy.layers.{len(header.hidden_sizes)}.weight"
    weights: Tensors = {}
    for name, shape in (weight_shapes(header) | value_shapes(header)).items():
        if name == "log_std":
            weights[name] = torch.full(shape, initial_log_std)
        elif name.endswith("bias"):
            weights[name] = torch.zeros(shape)
        elif name == "gru.hidden.weight":
            gates = [orthogonal(rng, header.memory_size) for _ in range(3)]
            weights[name] = torch.from_numpy(np.concatenate(gates, 1).astype(np.float32))
        else:
            # The three gates are three kernels side by side.
            fan = shape[0] + (header.memory_size if name == "gru.input.weight" else shape[1])
            bound = math.sqrt(6 / fan) * (last_layer_scale if name == last else 1.0)
            weights[name] = torch.from_numpy(rng.uniform(-bound, bound, shape).astype(np.float32))
    return weights


def initial_told(header: Header, rng: np.random.Generator, task_size: int) -> Tensors:
    """A fresh kernel from the numbers that tell the task to the value's first layer, [P, H]; nothing where P is 0."""
    if not task_size:
        return {}
    width = (*header.hidden_sizes, 1)[0]
    bound = math.sqrt(6 / (task_size + width))
    return {TOLD: torch.from_numpy(rng.uniform(-bound, bound, (task_size, width)).astype(np.float32))}


def orthogonal(rng: np.random.Generator, n: int) -> np.ndarray:
    """A random orthogonal matrix, [n, n]."""
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    signed: np.ndarray = q * np.sign(np.diag(r))
    return signed


def _sigmoid(x: torch.Tensor) -> torch.Tensor:
    """By way of tanh: ``torch.sigmoid`` rounds the last few numbers of an array otherwise than the rest, so that a
    row's gates would depend on how many rows there are.
    """
    return 0.5 + 0.5 * torch.tanh(0.5 * x)


def _depth(weights: Tensors, name: str) -> int:
    return sum(key.startswith(f"{name}.layers.") and key.endswith(".weight") for key in weights)


def _head(weights: Tensors, name: str, x: torch.Tensor, told: torch.Tensor | None = None) -> torch.Tensor:
    depth = _depth(weights, name)
    for i in range(depth):
        x = _linear(weights, f"{name}.layers.{i}", x)
        if i == 0 and told is not None:
            x = x + told
        if i < depth - 1:
            x = torch.tanh(x)
    return x


def _linear(weights: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    return networks.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
