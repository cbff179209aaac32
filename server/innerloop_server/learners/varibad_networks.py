"""The networks of VariBAD, as pure functions.

The belief is read from the memory of a gated recurrent unit, in the notation of :mod:`.recurrent`::

    m'                   as there, from x and m
    mean, log_variance = m' @ belief.weight + belief.bias                two blocks of columns
    seen               = ([mean, log_variance] - belief.shift) / belief.scale
    y                  = [o, seen], then policy.layers.<i> on it, tanh between the layers and none after the last

``value.layers.<i>`` on y gives the value; ``decoder.<i>`` explains trials from a latent; both are for training alone.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from innerloop.arrays import Discrete
from innerloop.policy import Header, input_size
from innerloop_server.errors import InvalidField
from innerloop_server.learners import networks, perceptron, recurrent
from innerloop_server.learners.evidence_bound import Belief
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.trial_record import TrialRecord
from innerloop_server.learners.varibad_settings import VaribadSettings, grid, states

DECODER, VALUE = "decoder.", "value."
SHIFT, SCALE = "belief.shift", "belief.scale"
"""Running statistics [2 L] by which the policy sees beliefs."""
TARGET_SCALE = "target.scale"
"""Running root mean squares [1 + O]: of rewards, and of how each normalised observation changes in a step."""
LEAST_SCALE = 0.1
"""Of what is a belief's: dimensions that no task moves are not blown up."""


def initial(header: Header, settings: VaribadSettings, rng: np.random.Generator) -> Tensors:
    """Fresh weights of everything, float32 on the CPU: as ``recurrent.initial_weights``."""
    s, size = settings, header.memory_size
    encoder = (input_size(header), *s.encoder_sizes)
    seen = header.observation_size + 2 * s.latent
    chains = {
        "encoder.layers.": perceptron.initial(encoder, rng),
        "policy.layers.": perceptron.initial(
            (seen, *s.hidden_sizes, header.action_size), rng, last_layer_scale=s.last_layer_scale
        ),
        VALUE + "layers.": perceptron.initial((seen, *s.hidden_sizes, 1), rng),
        DECODER: perceptron.initial(decoder_widths(header, s), rng),
    }
    arrays = {prefix + name: array for prefix, chain in chains.items() for name, array in chain.items()}
    # The three gates are three kernels side by side.
    bound = math.sqrt(6 / (encoder[-1] + size))
    arrays |= {
        "gru.input.weight": rng.uniform(-bound, bound, (encoder[-1], 3 * size)),
        "gru.input.bias": np.zeros(3 * size),
        "gru.hidden.weight": np.concatenate([recurrent.orthogonal(rng, size) for _ in range(3)], 1),
        "gru.hidden.bias": np.zeros(3 * size),
        SHIFT: np.zeros(2 * s.latent),
        SCALE: np.ones(2 * s.latent),
    }
    arrays |= {"belief." + name[2:]: array for name, array in perceptron.initial((size, 2 * s.latent), rng).items()}
    if header.distribution == "gaussian":
        arrays["log_std"] = np.full(header.action_size, s.initial_log_std)
    if s.decoder == "transitions":
        arrays[TARGET_SCALE] = np.ones(decoder_widths(header, s)[-1])
    return {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}


def decoder_widths(header: Header, settings: VaribadSettings) -> tuple[int, ...]:
    """Of a decoder's input, hidden layers and output."""
    if settings.decoder != "transitions":
        return (settings.latent, *settings.decoder_sizes, states(header.observation_space))
    inputs = header.observation_size + header.action_size + settings.latent
    return (inputs, *settings.decoder_sizes, 1 + header.observation_size * settings.dynamics)


def belief_of(weights: Tensors, memory: torch.Tensor) -> Belief:
    """What a memory [B, n, M] believes, for weights [B, ...]."""
    mean, log_variance = networks.linear(memory, weights["belief.weight"], weights["belief.bias"]).chunk(2, -1)
    return Belief(mean, log_variance)


def unroll(weights: Tensors, x: torch.Tensor) -> Belief:
    """The beliefs of whole trials, [B, T, R, L], from ``x`` [B, T, R, I]; weights [B, ...]."""
    size = weights["gru.hidden.weight"].shape[1]
    memory = recurrent.unroll(weights, x)[..., :size]
    flat = belief_of(weights, memory.flatten(1, 2))
    lead = x.shape[:3]
    return Belief(flat.mean.reshape(*lead, -1), flat.log_variance.reshape(*lead, -1))


def situation(weights: Tensors, observation: torch.Tensor, belief: Belief) -> torch.Tensor:
    """``y`` [B, n, O + 2 L]: what policy and value see, of normalised observations [B, n, O]; weights [B, ...]."""
    seen = torch.cat([belief.mean, belief.log_variance], -1)
    seen = (seen - weights[SHIFT].unsqueeze(1)) / weights[SCALE].unsqueeze(1)
    return torch.cat([observation, seen], -1)


def state_index(header: Header, observation: torch.Tensor) -> torch.Tensor:
    """Which state an observation shows, [..., *O] -> [...] int64."""
    space = header.observation_space
    if isinstance(space, Discrete):
        return observation.long()
    x = networks.flatten(header, observation, torch.float64)
    low = networks.constant(tuple(np.ravel(space.low).tolist()), torch.float64, x.device)
    sides = grid(space)
    strides = [math.prod(sides[i + 1 :]) for i in range(len(sides))]
    return ((x - low).round().long() * torch.tensor(strides, device=x.device)).sum(-1)


def check_states(header: Header, observation: torch.Tensor) -> None:
    """Check that observations show states at all: bounds that are whole numbers do not say that what lies between is.

    Raises:
        InvalidField: one is no whole number; names ``settings.decoder``.
    """
    if observation.is_floating_point() and not torch.equal(observation, observation.round()):
        name = header.family or "the family"
        raise InvalidField("settings.decoder", f"{name} shows more than whole numbers, so no states; use transitions")


def normalised(header: Header, observation: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[..., *O] -> [..., observation_size]."""
    x = networks.flatten(header, observation, dtype)
    if isinstance(header.observation_space, Discrete):
        return x
    shift, scale = (networks.constant(v, dtype, x.device) for v in (header.observation_shift, header.observation_scale))
    return (x - shift) / scale


def told(header: Header, trials: TrialRecord, dtype: torch.dtype) -> torch.Tensor:
    """What a decoder of transitions is told besides the latent: observation and action, [T, R, O + A]."""
    if isinstance(header.action_space, Discrete):
        action = F.one_hot(trials.actions.long(), header.action_space.n).to(dtype)
    else:
        action = trials.actions.to(dtype)
    return torch.cat([normalised(header, trials.observations, dtype), action], -1)


def targets(header: Header, trials: TrialRecord, dtype: torch.dtype, *, dynamics: bool) -> torch.Tensor:
    """What it has to tell: the reward, and how the normalised observation changed; [T, R, 1 (+ O)]."""
    reward = trials.rewards.to(dtype).unsqueeze(-1)
    if not dynamics:
        return reward
    before, after = (normalised(header, o, dtype) for o in (trials.observations, trials.outcomes))
    return torch.cat([reward, after - before], -1)


def decode(weights: Tensors, x: torch.Tensor) -> torch.Tensor:
    """The decoder's output on [..., inputs]; weights without leading dimension, under :data:`DECODER`."""
    part = {name.removeprefix(DECODER): value for name, value in weights.items() if name.startswith(DECODER)}
    return torch.as_tensor(perceptron.forward(part, x, torch.relu))
