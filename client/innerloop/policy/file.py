"""One policy, ready to act, and its file."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import safetensors.numpy

from innerloop.arrays import Array, Arrays, Discrete
from innerloop.policy.header import Header, PolicyFormatError
from innerloop.policy.memory import LAST_TRIAL_END, Input, acted, begin, checked, start_of, told, told_by, where
from innerloop.policy.networks import forward, forward_with_memory, weight_shapes
from innerloop.policy.sampling import draw_noise, sample, to_environment


def weights_hash(weights: Arrays) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in order of name. The same everywhere for the same weights."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        shape = list(np.shape(weights[name]))  # contiguous, a single number has one dimension
        digest.update(f"{name}:{array.dtype.str}:{shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Action:
    """One decision, for one observation or a batch of them."""

    environment: Array
    """What to pass to ``env.step``: clipped and scaled as the learner was trained."""
    raw: Array
    """What the distribution gave. Send this one back as experience."""
    log_prob: Array
    """Its log-probability."""
    memory: Arrays = field(default_factory=dict)
    """What a policy that remembers goes on from: pass it to the next decision. Empty for others."""


class Policy:
    """A finished adaptation, run locally in numpy: no server, no torch.

    >>> policy = innerloop.load_policy("cartpole.safetensors")   # doctest: +SKIP
    >>> action = policy.act(observation)                         # doctest: +SKIP

    A policy that remembers (``header.remembers``) also takes what the step before brought, and its memory:

    >>> memory = policy.begin()                                                          # doctest: +SKIP
    >>> action = policy.act(Input(observation), memory=memory)                           # doctest: +SKIP
    >>> action = policy.act(Input(observation, reward=reward, truncated=ended), memory=memory)   # doctest: +SKIP
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

        self._start = start_of(self.weights)
        if self._start:
            try:
                checked(header, {name: array[None] for name, array in self._start.items()}, 1)
            except ValueError as error:
                raise PolicyFormatError(f"what the policy starts from does not fit: {error}") from error

    def refuses(self, trial_end: Array | None) -> str:
        """Why the policy begins no trial where one ends; empty where it may, or where none does.

        One that is frozen in the middle of its session's task would go back to that task.

        Args:
            trial_end: as in :class:`Input`.
        """
        if self.header.adapts or not self._start or self._start[LAST_TRIAL_END]:
            return ""
        if trial_end is None or not np.any(trial_end):
            return ""
        return (
            "this policy is frozen in the task of its session and begins no other trial; for another task take "
            "Policy(dataclasses.replace(policy.header, adapts=True), policy.weights), or a policy of a session there"
        )

    def begin(self, rows: int = 1) -> dict[str, Array]:
        """The memory to start from, for so many rows, each a trial of its own; empty where the policy keeps none.

        It is what the policy's session left, so it goes on with that session's task. For another task say
        ``trial_end=True`` with the first input, which a policy that is frozen there :meth:`refuses`.
        """
        if not self._start:
            return begin(self.header, rows)
        return {name: np.repeat(array[None], rows, 0) for name, array in self._start.items()}

    def act(
        self,
        observation: Array | Input,
        *,
        memory: dict[str, Array] | None = None,
        greedy: bool = False,
        rng: np.random.Generator | None = None,
    ) -> Array:
        """The action to take now, for one observation ``[*O]`` or a batch ``[N, *O]``.

        Args:
            observation: the observation, or a whole :class:`Input`.
            memory: of a policy that remembers: what :meth:`begin` gave. Brought up to date in place.
            greedy: take the mode instead of a sample.
            rng: where samples come from; a fresh unseeded generator when left out.
        """
        action = self.decide(observation, memory=memory, greedy=greedy, rng=rng)
        if memory is not None:
            memory.update(action.memory)
        return action.environment

    def decide(
        self,
        observation: Array | Input,
        *,
        memory: Arrays | None = None,
        greedy: bool = False,
        rng: np.random.Generator | None = None,
    ) -> Action:
        """As :meth:`act`, with the raw action, its log-probability (what ``experience`` on the wire wants) and the
        memory after it; the one that was passed stays as it is.

        Raises:
            ValueError: the observation does not fit the policy's observation space, or the memory the policy; a
                number of either or of the rewards is not finite; or a trial ends and the policy :meth:`refuses` that.
        """
        seen = observation if isinstance(observation, Input) else Input(observation)
        value = np.asarray(seen.observation)
        shape = self.header.observation_space.shape
        single = value.shape == shape
        if not single and value.shape[1:] != shape:
            raise ValueError(f"observation has shape {value.shape}; this policy takes {shape} or (N, *{shape})")
        batch = value[None] if single else value
        _check(self.header, batch, seen.reward)
        noise = None
        if not greedy:
            noise = draw_noise(self.header.action_space, rng or np.random.default_rng(), (len(batch),))
        hidden: Arrays = {}
        if self.header.remembers:
            if memory is None:
                raise ValueError(
                    "this policy remembers: pass memory=policy.begin(rows), the same one at every step; act keeps it "
                    "up to date, and decide gives the next one in .memory"
                )
            if why := self.refuses(seen.trial_end):
                raise ValueError(f"trial_end: {why}")
            parameters, hidden = self._recall(replace(seen, observation=batch), memory)
        else:
            parameters = forward(self.header, self.weights, batch)
        raw, logp = sample(parameters, noise)
        after = acted(hidden, raw) if hidden else {}
        env = to_environment(self.header, raw)
        return Action(env[0], raw[0], logp[0], after) if single else Action(env, raw, logp, after)

    def _recall(self, input: Input, memory: Arrays) -> tuple[Arrays, Arrays]:
        """(distribution parameters, the network's part of the memory after having looked)."""
        rows = len(input.observation)
        known = checked(self.header, memory, rows)
        seen = told(known, input)
        if not self.header.adapts:
            assert seen.terminated is not None
            assert seen.truncated is not None
            assert seen.trial_end is not None
            ended, start = seen.terminated | seen.truncated | seen.trial_end, self.begin(rows)
            known, seen = where(ended, start, known), told_by(start, ended, seen)
        return forward_with_memory(self.header, self.weights, known, seen)

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


def _check(header: Header, observation: Array, reward: Array | None) -> None:
    """Raise where an action would come of no number, or of one that is no observation."""
    space = header.observation_space
    if isinstance(space, Discrete):
        if np.any((observation < 0) | (observation >= space.n)):
            raise ValueError(f"observation holds integers outside {space}")
    elif not np.isfinite(observation).all():
        raise ValueError("observation is not finite")
    if reward is not None and not np.isfinite(reward).all():
        raise ValueError("reward is not finite")


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Read a policy file, offline.

    Raises:
        OSError: the file cannot be read.
        PolicyFormatError: it is not a policy file, or it is damaged.
    """
    return Policy.from_bytes(Path(path).read_bytes())
