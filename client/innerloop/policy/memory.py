"""What a policy looks at, and the memory that one which remembers carries from step to step.

A memory is a value: a flat dict of arrays with a leading dimension for the rows. ``memory`` is what the network keeps,
``belief.*`` what it believes, where it does (see ``belief``); ``last.*`` is what the step before brought, so that
nobody who goes on later has to know it. Every step takes one and gives a new one. On the first step of a trial
``last.trial_end`` is set and everything else is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from innerloop.arrays import Array, Arrays, Discrete
from innerloop.policy.attention import KEPT_STEPS, empty_attention
from innerloop.policy.belief import BELIEF_LOG_VARIANCE, BELIEF_MEAN
from innerloop.policy.header import Header
from innerloop.policy.tallies import COUNT, STATE, empty_tallies

HIDDEN = "memory"
"""[R, memory_size] float32."""
LAST_ACTION = "last.action"
"""[R, A] float32 or [R] int64: raw."""
LAST_REWARD = "last.reward"
"""[R] float32."""
LAST_TERMINATED = "last.terminated"
LAST_TRUNCATED = "last.truncated"
LAST_TRIAL_END = "last.trial_end"
"""[R] bool each."""
PREVIOUS = "previous.observation"
"""[R, O] float32 of a policy that reads transitions: the normalised observation that the last action was taken on."""
START = "start."
"""Weights of this prefix are the memory (of one row) that a policy starts from; without them it is an empty one."""


@dataclass(frozen=True)
class Input:
    """What a policy may look at to choose the next action. Leading dimensions are free, shared by all fields.

    A memoryless policy reads ``observation`` alone. Memory methods need the rest; a field left ``None`` is what the
    memory knows of the step before: its action, no reward and no end; nothing at all on the first step of a trial.
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


def begin(header: Header, rows: int) -> dict[str, Array]:
    """An empty memory on the first step of a trial; nothing where the policy does not remember."""
    if not header.remembers:
        return {}
    shape = () if isinstance(header.action_space, Discrete) else (header.action_size,)
    kind = np.int64 if isinstance(header.action_space, Discrete) else np.float32
    return _hidden(header, rows) | {
        LAST_ACTION: np.zeros((rows, *shape), kind),
        LAST_REWARD: np.zeros(rows, np.float32),
        LAST_TERMINATED: np.zeros(rows, np.bool_),
        LAST_TRUNCATED: np.zeros(rows, np.bool_),
        LAST_TRIAL_END: np.ones(rows, np.bool_),
    }


def _hidden(header: Header, rows: int) -> dict[str, Array]:
    """What the network keeps before a trial's first step."""
    read = empty_tallies(header, rows) if header.tallies else {}
    if header.transitions:
        read |= {PREVIOUS: np.zeros((rows, header.observation_size), np.float32)}
    if header.architecture == "transformer":
        return empty_attention(header, rows) | read
    sizes = {HIDDEN: header.memory_size}
    if header.architecture == "belief":
        sizes |= dict.fromkeys((BELIEF_MEAN, BELIEF_LOG_VARIANCE), header.latent_size)
    return {name: np.zeros((rows, size), np.float32) for name, size in sizes.items()} | read


def checked(header: Header, memory: Arrays, rows: int) -> dict[str, Array]:
    """The memory as it must be for this policy and so many rows.

    Raises:
        ValueError: an array is missing, unknown, has another shape or dtype, or holds what no step leaves.
    """
    wanted = begin(header, rows)
    if set(memory) != set(wanted):
        raise ValueError(f"the memory holds {sorted(memory) or 'nothing'}; this policy keeps {sorted(wanted)}")
    for name, like in wanted.items():
        array = np.asarray(memory[name])
        if array.shape != like.shape or array.dtype != like.dtype:
            raise ValueError(
                f"{name} of the memory is {array.dtype}{list(array.shape)}, not {like.dtype}{list(like.shape)}"
            )
        if wrong := fault(header, name, array):
            raise ValueError(f"{name} of the memory {wrong}")
    return {name: np.asarray(memory[name]) for name in wanted}


def fault(header: Header, name: str, array: Array) -> str:
    """What is wrong with the numbers of a memory's array; empty where nothing is.

    Args:
        header: of the policy.
        name: of the array.
        array: of the right shape and dtype.
    """
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return "is not finite"
    spaces = {LAST_ACTION: header.action_space, STATE: header.observation_space}
    space = spaces.get(name)
    if isinstance(space, Discrete) and np.any((array < 0) | (array >= space.n)):
        return f"holds integers outside {space}"
    if name in (COUNT, KEPT_STEPS) and np.any(array < 0):
        return "holds negative counts"
    return ""


def told(memory: Arrays, input: Input) -> Input:
    """The input with what it leaves out filled in from the memory. A trial that has just begun stays so.

    Args:
        memory: of the rows.
        input: of the rows; fields besides the observation are broadcast to them.
    """
    return Input(
        input.observation,
        _given(input.previous_action, memory[LAST_ACTION]),
        _given(input.reward, memory[LAST_REWARD]),
        _given(input.terminated, memory[LAST_TERMINATED]),
        _given(input.truncated, memory[LAST_TRUNCATED]),
        _given(input.trial_end, memory[LAST_TRIAL_END]) | memory[LAST_TRIAL_END],
    )


def told_by(memory: Arrays, rows: Array, seen: Input) -> Input:
    """What is seen, but in the rows [R] that say so only the observation: the rest is what the memory knows.

    Args:
        memory: of all rows.
        rows: bool.
        seen: of all rows, every field given.
    """
    known = told(memory, Input(seen.observation))
    return Input(**where(rows, vars(known), vars(seen)))


def acted(hidden: Arrays, raw: Array) -> dict[str, Array]:
    """The memory after an action: nothing is known yet of what it brought.

    Args:
        hidden: what the network keeps, [..., R, *] each.
        raw: the actions that were taken, [..., R] int64 or [..., R, A] float32.
    """
    lead = raw.shape if raw.dtype.kind == "i" else raw.shape[:-1]
    none = np.zeros(lead, np.bool_)
    return dict(hidden) | {
        LAST_ACTION: raw,
        LAST_REWARD: np.zeros(lead, np.float32),
        LAST_TERMINATED: none,
        LAST_TRUNCATED: none,
        LAST_TRIAL_END: none,
    }


def where(rows: Array, yes: Arrays, no: Arrays) -> dict[str, Array]:
    """``yes`` in the rows that say so, else ``no``; both broadcast to the rows."""
    return {
        name: np.where(rows.reshape(*rows.shape, *(1,) * (array.ndim - rows.ndim)), yes[name], array)
        for name, array in no.items()
    }


def start_of(weights: Mapping[str, Array]) -> dict[str, Array]:
    """The memory of one row, [...] each, that a policy's weights hold; empty where they hold none."""
    return {name[len(START) :]: array for name, array in weights.items() if name.startswith(START)}


def _given(value: Array | None, known: Array) -> Array:
    if value is None:
        return known
    array = np.asarray(value, known.dtype)
    full = np.reshape(array, known.shape) if array.size == known.size else np.broadcast_to(array, known.shape)
    result: Array = full
    return result
