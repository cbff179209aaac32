"""Policies, what they see and what they do, between messages and values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from innerloop.arrays import Array, Discrete, Space
from innerloop.policy import Header, Input, Policy, fault
from innerloop.v1 import array_pb2, policy_pb2
from innerloop_server.errors import InvalidField
from innerloop_server.service.convert.arrays import array_from_pb, array_to_pb, optional_array_from_pb
from innerloop_server.service.convert.names import FAMILY, POLICY, SESSION, format_revision
from innerloop_server.service.convert.spaces import space_to_pb
from innerloop_server.service.convert.values import timestamp
from innerloop_server.store.records import PolicyRecord


def header_of(header: Mapping[str, Any]) -> Header:
    """The policy header that a record keeps as JSON values."""
    return Header.from_json(json.dumps(dict(header)))


def policy_to_pb(record: PolicyRecord) -> policy_pb2.Policy:
    """A policy's metadata as a message."""
    header = header_of(record.header)
    return policy_pb2.Policy(
        name=POLICY.format(record.id),
        family=FAMILY.format(record.family),
        revision=format_revision(record.learner_id, record.revision),
        session=SESSION.format(record.session_id or ""),
        steps=header.steps,
        hash=header.hash,
        size_bytes=record.size,
        observation_space=space_to_pb(header.observation_space),
        action_space=space_to_pb(header.action_space),
        adapts=header.adapts,
        create_time=timestamp(record.created_at),
    )


def observations_from_pb(
    message: Any, space: Space, field: str, rows: int | None = None, *, steps: int | None = None
) -> Array:
    """Observations of R rows: [R, *observation_shape], float32, or int64 where the space is Discrete.

    Args:
        message: an ``Array``.
        space: the observation space.
        field: its path in the request.
        rows: how many there must be; ``None``: any number.
        steps: T, where they are of whole episodes: [R, T, *observation_shape].

    Raises:
        InvalidField: missing, of a wrong shape or dtype, not finite, or an integer outside the space.
    """
    kind = np.int64 if isinstance(space, Discrete) else np.float32
    lead = (rows,) if steps is None else (rows, steps)
    array = array_from_pb(message, field, dtype=kind, shape=(*lead, *space.shape))
    if isinstance(space, Discrete) and np.any((array < 0) | (array >= space.n)):
        raise InvalidField(field, f"holds integers outside {space}; send 0 to {space.n - 1}")
    return array


def raw_actions_from_pb(message: Any, space: Space, field: str, lead: tuple[int | None, ...]) -> Array:
    """Raw actions: [*lead, A] float32, or [*lead] int64 where the action space is Discrete.

    Raises:
        InvalidField: missing, of a wrong shape or dtype, not finite, or an integer outside the space.
    """
    if not isinstance(space, Discrete):
        return array_from_pb(message, field, dtype=np.float32, shape=(*lead, space.size))
    array = array_from_pb(message, field, dtype=np.int64, shape=lead)
    if np.any((array < 0) | (array >= space.n)):
        raise InvalidField(field, f"holds integers outside {space}; send 0 to {space.n - 1}")
    return array


def input_from_pb(message: policy_pb2.PolicyInput, header: Header, field: str, most_rows: int) -> Input:
    """What a policy may look at, for R rows.

    Raises:
        InvalidField: no rows or too many, or any array missing, misshapen, of a wrong dtype or not finite.
    """
    observation = observations_from_pb(message.observations, header.observation_space, f"{field}.observations")
    rows = len(observation)
    if not 1 <= rows <= most_rows:
        raise InvalidField(f"{field}.observations", f"has {rows} rows; send 1 to {most_rows}")
    flags = {
        name: optional_array_from_pb(
            getattr(message, name), f"{field}.{name}", present=message.HasField(name), dtype=np.bool_, shape=(rows,)
        )
        for name in ("terminated", "truncated", "trial_end")
    }
    previous = None
    if message.HasField("previous_raw_actions"):
        previous = raw_actions_from_pb(
            message.previous_raw_actions, header.action_space, f"{field}.previous_raw_actions", (rows,)
        )
    reward = optional_array_from_pb(
        message.rewards, f"{field}.rewards", present=message.HasField("rewards"), dtype=np.float32, shape=(rows,)
    )
    return Input(observation, previous, reward, flags["terminated"], flags["truncated"], flags["trial_end"])


def memory_from_pb(state: Mapping[str, Any], policy: Policy, rows: int) -> dict[str, Array]:
    """What a policy remembers for R rows; where none was sent, what it starts from.

    Raises:
        InvalidField: it came for a policy that keeps none; or an array is missing, unknown, misshapen, of a wrong dtype
            or holding what no step leaves.
    """
    start = policy.begin(rows)
    if not state:
        return start
    if not start:
        raise InvalidField("state", "came for a policy that keeps no memory; leave it empty")
    if set(state) != set(start):
        raise InvalidField("state", f"holds {', '.join(sorted(state))}; this policy keeps {', '.join(sorted(start))}")
    memory = {}
    for name, like in start.items():
        memory[name] = array_from_pb(state[name], f"state.{name}", dtype=like.dtype, shape=like.shape)
        if wrong := fault(policy.header, name, memory[name]):
            raise InvalidField(f"state.{name}", f"{wrong}; send what Act answered")
    return memory


def output_to_pb(actions: Array, raw: Array, log_prob: Array) -> policy_pb2.PolicyOutput:
    """What a policy did, for R rows.

    Args:
        actions: [R, *action_shape] as an environment takes them.
        raw: [R, A] or [R], before clip and scale.
        log_prob: [R].
    """
    return policy_pb2.PolicyOutput(
        actions=array_to_pb(actions), raw_actions=array_to_pb(raw), log_probs=array_to_pb(log_prob)
    )


def arrays_to_pb(arrays: Mapping[str, Array]) -> dict[str, array_pb2.Array]:
    """A memory as a message's map."""
    return {name: array_to_pb(array) for name, array in arrays.items()}
