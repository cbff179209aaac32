"""The portable policy: one small file that runs anywhere numpy does.

A policy file is safetensors; its metadata entry ``innerloop`` is the JSON header (:class:`Header`).
The client runs it, the server's environment actors run the very same code on stacked weights, and the
torch networks of the learners must agree with it to 1e-5 in distribution parameters.

One of the two client modules that the server's lower floors may import: numpy and safetensors, no grpc.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import safetensors.numpy

from innerloop.arrays import Array, Arrays, Box, Discrete, Space, space_from_json, space_to_json

FORMAT = "innerloop-policy/1"
LOG_STD_FLOOR = math.log(1e-6)
"""Log standard deviations are never below this (a standard deviation of 1e-6)."""


class PolicyFormatError(ValueError):
    """A file that is not a policy of a format this version reads."""


@dataclass(frozen=True)
class Input:
    """What a policy may look at to choose the next action. Leading dimensions are free, shared by all fields.

    A memoryless policy reads ``observation`` alone. Memory methods need the rest; a field left ``None`` means
    "nothing yet": the first step of a trial.
    """

    observation: Array
    """[..., *observation_shape]."""
    previous_action: Array | None = None
    """[..., *action_shape] the raw action before this observation."""
    reward: Array | None = None
    """[...] the reward that came with this observation."""
    terminated: Array | None = None
    """[...] the previous step ended its episode in a terminal state."""
    truncated: Array | None = None
    """[...] the previous step ended its episode by a time limit."""
    trial_end: Array | None = None
    """[...] the task's lifetime ended: memory is reset."""


@dataclass(frozen=True)
class Header:
    """All that is needed, beside the weights, to run a policy."""

    observation_space: Space
    action_space: Space
    hidden_sizes: tuple[int, ...]
    """Widths of the hidden tanh layers."""
    observation_shift: tuple[float, ...]
    """The network sees ``(observation - shift) / scale``, elementwise over the flattened observation."""
    observation_scale: tuple[float, ...]
    action_shift: tuple[float, ...] = ()
    """A Box action is ``clip(shift + scale * raw, low, high)``; empty for Discrete."""
    action_scale: tuple[float, ...] = ()
    architecture: str = "mlp"
    adapts: bool = False
    """False: the policy is frozen. True: it goes on adapting as it runs (memory methods may)."""
    family: str = ""
    learner: str = ""
    revision: str = ""
    """Resource name of the revision that the policy adapted from."""
    steps: int = 0
    """Adaptation steps behind this policy."""
    hash: str = ""
    """SHA-256 over the weights (see :func:`weights_hash`); filled in when the policy is written."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Free text for people: task, score. Never needed to run."""

    @property
    def distribution(self) -> str:
        """``categorical`` (raw action: an integer) or ``gaussian`` (raw action: floats before clip and scale)."""
        return "categorical" if isinstance(self.action_space, Discrete) else "gaussian"

    @property
    def action_size(self) -> int:
        """Width of the network's output: actions to choose from, or dimensions of the mean."""
        return self.action_space.n if isinstance(self.action_space, Discrete) else self.action_space.size

    @property
    def observation_size(self) -> int:
        """Width of the network's input."""
        return self.observation_space.n if isinstance(self.observation_space, Discrete) else self.observation_space.size

    def to_json(self) -> str:
        """The header as JSON, keys sorted."""
        value = {
            "format": FORMAT,
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
            "hidden_sizes": list(self.hidden_sizes),
            "observation_shift": list(self.observation_shift),
            "observation_scale": list(self.observation_scale),
            "action_shift": list(self.action_shift),
            "action_scale": list(self.action_scale),
            "architecture": self.architecture,
            "adapts": self.adapts,
            "family": self.family,
            "learner": self.learner,
            "revision": self.revision,
            "steps": self.steps,
            "hash": self.hash,
            "extra": dict(self.extra),
        }
        return json.dumps(value, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Header:
        """Read a header.

        Raises:
            PolicyFormatError: not JSON, another format, or a field missing.
        """
        try:
            value = json.loads(text)
            if value.get("format") != FORMAT:
                raise PolicyFormatError(f"policy format {value.get('format')!r} is not {FORMAT}; update innerloop")
            return Header(
                observation_space=space_from_json(value["observation_space"]),
                action_space=space_from_json(value["action_space"]),
                hidden_sizes=tuple(int(n) for n in value["hidden_sizes"]),
                observation_shift=tuple(float(x) for x in value["observation_shift"]),
                observation_scale=tuple(float(x) for x in value["observation_scale"]),
                action_shift=tuple(float(x) for x in value["action_shift"]),
                action_scale=tuple(float(x) for x in value["action_scale"]),
                architecture=str(value["architecture"]),
                adapts=bool(value["adapts"]),
                family=str(value["family"]),
                learner=str(value["learner"]),
                revision=str(value["revision"]),
                steps=int(value["steps"]),
                hash=str(value["hash"]),
                extra={str(k): str(v) for k, v in value.get("extra", {}).items()},
            )
        except PolicyFormatError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PolicyFormatError(f"the policy header is damaged: {error!r}") from error


# ---------------------------------------------------------------------------------------------------------------
# The maths, on arrays with free leading dimensions. Weights: "layers.0.weight" [..., in, out], "layers.0.bias"
# [..., out], ..., and "log_std" [..., action_size] for a gaussian policy.


def forward(header: Header, weights: Arrays, observation: Array) -> dict[str, Array]:
    """Distribution parameters for a batch of observations.

    Args:
        header: the architecture.
        weights: one set (no leading dimension) with ``observation`` [N, *O]; or stacked sets, leading dimension B,
            with ``observation`` [B, N, *O].
        observation: float array, or integers where the space is Discrete (then one-hot).

    Returns:
        ``{"logits": [..., n]}`` or ``{"mean": [..., d], "log_std": [..., d]}``, float32, leading dimensions as in
        ``observation``.
    """
    if isinstance(header.observation_space, Discrete):
        x: Array = np.eye(header.observation_space.n, dtype=np.float32)[observation]
    else:
        lead = observation.shape[: observation.ndim - len(header.observation_space.shape)]
        x = observation.reshape(*lead, header.observation_size).astype(np.float32)
        x = (x - np.asarray(header.observation_shift, np.float32)) / np.asarray(header.observation_scale, np.float32)
    last = len(header.hidden_sizes)
    for i in range(last + 1):
        x = x @ weights[f"layers.{i}.weight"] + weights[f"layers.{i}.bias"][..., None, :]
        if i < last:
            x = np.tanh(x)
    if header.distribution == "categorical":
        return {"logits": x}
    log_std = np.maximum(weights["log_std"], np.float32(LOG_STD_FLOOR))[..., None, :]
    return {"mean": x, "log_std": np.broadcast_to(log_std, x.shape)}


def draw_noise(space: Space, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """The randomness that :func:`sample` turns into actions: ``[*shape, d]`` standard normals for a Box of d
    numbers, ``[*shape, 1]`` uniforms in [0, 1) for Discrete; float32.
    """
    if isinstance(space, Discrete):
        return rng.random((*shape, 1), dtype=np.float32)
    return rng.standard_normal((*shape, space.size), dtype=np.float32)


def sample(parameters: Arrays, noise: Array | None) -> tuple[Array, Array]:
    """Raw actions and their log-probabilities.

    Args:
        parameters: what :func:`forward` gave.
        noise: what :func:`draw_noise` gave, with the same leading dimensions; ``None`` for the greedy action.

    Returns:
        (raw action, log-probability): float32 ``[..., d]`` or int64 ``[...]``; float32 ``[...]``.
    """
    if "logits" in parameters:
        logits = parameters["logits"]
        log_p = logits - logits.max(-1, keepdims=True)
        log_p = log_p - np.log(np.exp(log_p).sum(-1, keepdims=True))
        if noise is None:
            raw = logits.argmax(-1)
        else:
            below = np.exp(log_p).cumsum(-1) <= noise
            raw = np.minimum(below.sum(-1), logits.shape[-1] - 1)
        return raw.astype(np.int64), np.take_along_axis(log_p, raw[..., None], -1)[..., 0]
    mean, log_std = parameters["mean"], parameters["log_std"]
    raw = mean if noise is None else mean + np.exp(log_std) * noise
    return raw.astype(np.float32), log_prob(parameters, raw)


def log_prob(parameters: Arrays, raw: Array) -> Array:
    """Log-probability of raw actions, summed over action dimensions: float32 ``[...]``."""
    if "logits" in parameters:
        logits = parameters["logits"]
        log_p = logits - logits.max(-1, keepdims=True)
        log_p = log_p - np.log(np.exp(log_p).sum(-1, keepdims=True))
        chosen: Array = np.take_along_axis(log_p, raw[..., None], -1)[..., 0]
        return chosen
    mean, log_std = parameters["mean"], parameters["log_std"]
    z = (raw - mean) * np.exp(-log_std)
    total: Array = (-0.5 * z * z - log_std - np.float32(0.5 * math.log(2 * math.pi))).sum(-1)
    return total.astype(np.float32)


def to_environment(header: Header, raw: Array) -> Array:
    """The action an environment takes: a Box action is ``clip(shift + scale * raw, low, high)`` in the space's
    shape; a Discrete one is the integer itself.
    """
    space = header.action_space
    if isinstance(space, Discrete):
        return raw
    scaled = np.asarray(header.action_shift, np.float32) + np.asarray(header.action_scale, np.float32) * raw
    shaped = scaled.reshape(*raw.shape[:-1], *space.shape)
    clipped: Array = np.clip(shaped, space.low, space.high)
    return clipped


def weights_hash(weights: Arrays) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in order of name. The same everywhere for the same weights."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        digest.update(f"{name}:{array.dtype.str}:{list(array.shape)};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------------------
# One policy, ready to act.


@dataclass(frozen=True)
class Action:
    """One decision, for one observation or a batch of them."""

    environment: Array
    """What to pass to ``env.step``: clipped and scaled as the learner was trained."""
    raw: Array
    """What the distribution gave. Send this one back as experience."""
    log_prob: Array
    """Its log-probability."""


class Policy:
    """A finished adaptation, run locally in numpy: no server, no torch.

    >>> policy = innerloop.load_policy("cartpole.safetensors")   # doctest: +SKIP
    >>> action = policy.act(observation)                         # doctest: +SKIP
    """

    def __init__(self, header: Header, weights: Arrays) -> None:
        """Args:
            header: the architecture.
            weights: one set, as :func:`forward` takes it.

        Raises:
            PolicyFormatError: a weight is missing or has a shape other than the header says.
        """
        self.header = header
        self.weights = {name: np.asarray(array) for name, array in weights.items()}
        for name, shape in weight_shapes(header).items():
            if name not in self.weights:
                raise PolicyFormatError(f"the policy lacks the weight {name}")
            if self.weights[name].shape != shape:
                raise PolicyFormatError(f"{name} has shape {self.weights[name].shape}, the header says {shape}")

    def act(self, observation: Array | Input, *, greedy: bool = False, rng: np.random.Generator | None = None) -> Array:
        """The action to take now, for one observation ``[*O]`` or a batch ``[N, *O]``.

        Args:
            observation: the observation, or a whole :class:`Input`.
            greedy: take the mode instead of a sample.
            rng: where samples come from; a fresh unseeded generator when left out.
        """
        return self.decide(observation, greedy=greedy, rng=rng).environment

    def decide(
        self, observation: Array | Input, *, greedy: bool = False, rng: np.random.Generator | None = None
    ) -> Action:
        """As :meth:`act`, with the raw action and its log-probability (what ``experience`` on the wire wants).

        Raises:
            ValueError: the observation does not fit the policy's observation space.
        """
        value = np.asarray(observation.observation if isinstance(observation, Input) else observation)
        shape = self.header.observation_space.shape
        single = value.shape == shape
        if not single and value.shape[1:] != shape:
            raise ValueError(f"observation has shape {value.shape}; this policy takes {shape} or (N, *{shape})")
        batch = value[None] if single else value
        parameters = forward(self.header, self.weights, batch)
        noise = None
        if not greedy:
            noise = draw_noise(self.header.action_space, rng or np.random.default_rng(), (len(batch),))
        raw, logp = sample(parameters, noise)
        env = to_environment(self.header, raw)
        return Action(env[0], raw[0], logp[0]) if single else Action(env, raw, logp)

    def to_bytes(self) -> bytes:
        """The policy file: safetensors with the header as metadata, its hash filled in."""
        header = replace(self.header, hash=weights_hash(self.weights))
        return safetensors.numpy.save(dict(self.weights), metadata={"innerloop": header.to_json()})

    @staticmethod
    def from_bytes(data: bytes) -> Policy:
        """Read a policy file.

        Raises:
            PolicyFormatError: not a policy file, damaged, or the weights do not match their hash.
        """
        try:
            (size,) = struct.unpack("<Q", data[:8])
            metadata = json.loads(data[8 : 8 + size])["__metadata__"]
            header = Header.from_json(metadata["innerloop"])
            weights = safetensors.numpy.load(data)
        except PolicyFormatError:
            raise
        except Exception as error:  # safetensors raises its own and struct's, json's and KeyError all mean the same
            raise PolicyFormatError("these bytes are not an innerloop policy file") from error
        if header.hash != weights_hash(weights):
            raise PolicyFormatError("the weights do not match the hash in their header: the file is damaged")
        return Policy(header, weights)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the policy file and return where it went."""
        target = Path(path)
        target.write_bytes(self.to_bytes())
        return target

    def __repr__(self) -> str:
        return (
            f"Policy({self.header.family or 'any family'}, {self.header.observation_space} -> "
            f"{self.header.action_space}, {self.header.steps} adaptation steps)"
        )


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Read a policy file, offline.

    Raises:
        OSError: the file cannot be read.
        PolicyFormatError: it is not a policy file, or it is damaged.
    """
    return Policy.from_bytes(Path(path).read_bytes())


def weight_shapes(header: Header) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight the header calls for, without leading dimensions."""
    sizes = (header.observation_size, *header.hidden_sizes, header.action_size)
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        shapes[f"layers.{i}.weight"] = (n_in, n_out)
        shapes[f"layers.{i}.bias"] = (n_out,)
    if isinstance(header.action_space, Box):
        shapes["log_std"] = (header.action_size,)
    return shapes
