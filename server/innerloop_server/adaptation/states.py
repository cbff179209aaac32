"""Adaptation states as values: stack, split, hash, and bytes. The engine never looks inside one."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import safetensors.numpy
import torch

from innerloop.arrays import Array
from innerloop.policy import weights_hash
from innerloop_server.adaptation.guard import Guard
from innerloop_server.errors import DataLoss
from innerloop_server.learners.learner import Tensors

_STATE = "state/"
_BEST = "best/"


def stack(states: Sequence[Tensors]) -> Tensors:
    """States of [b_i, ...] each as one of [sum b_i, ...]."""
    if len(states) == 1:
        return states[0]
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}


def split(state: Tensors, n: int) -> list[Tensors]:
    """Undo :func:`stack` for n states of one task each."""
    if n == 1:
        return [state]
    parts = {name: value.chunk(n) for name, value in state.items()}
    return [{name: part[i] for name, part in parts.items()} for i in range(n)]


def to_host(state: Tensors) -> dict[str, Array]:
    """The same arrays in numpy."""
    return {name: value.detach().cpu().numpy() for name, value in state.items()}


def state_hash(state: Tensors) -> str:
    """SHA-256 over names, dtypes, shapes and bytes (``innerloop.policy.weights_hash``)."""
    return weights_hash(to_host(state))


def is_finite(state: Tensors) -> bool:
    """No array holds a NaN or an infinity."""
    return all(bool(torch.isfinite(value).all()) for value in state.values() if value.is_floating_point())


def pack_snapshot(state: Tensors, best: Tensors, guard: Guard, phase: int) -> bytes:
    """All that a session needs to go on from here, as safetensors.

    Args:
        state: the present state.
        best: the guard's best one (not stored where it is the present one).
        guard: what the guard remembers.
        phase: which fresh sample of this step's state comes next.
    """
    arrays = {_STATE + name: value for name, value in to_host(state).items()}
    if not guard.at_best:
        arrays |= {_BEST + name: value for name, value in to_host(best).items()}
    metadata = {"guard": json.dumps(asdict(guard)), "phase": str(phase)}
    return safetensors.numpy.save(arrays, metadata=metadata)


def unpack_snapshot(data: bytes, device: torch.device) -> tuple[Tensors, Tensors, Guard, int]:
    """Undo :func:`pack_snapshot`.

    Raises:
        DataLoss: the bytes are not a snapshot.
    """
    try:
        (size,) = struct.unpack("<Q", data[:8])
        metadata: Mapping[str, str] = json.loads(data[8 : 8 + size])["__metadata__"]
        guard = Guard(**json.loads(metadata["guard"]))
        arrays = {name: torch.from_numpy(value).to(device) for name, value in safetensors.numpy.load(data).items()}
        state = {name[len(_STATE) :]: value for name, value in arrays.items() if name.startswith(_STATE)}
        best = {name[len(_BEST) :]: value for name, value in arrays.items() if name.startswith(_BEST)}
        return state, best or state, guard, int(metadata["phase"])
    except Exception as error:  # safetensors', json's, struct's and KeyError all mean the same here
        raise DataLoss("a session's snapshot is damaged") from error
