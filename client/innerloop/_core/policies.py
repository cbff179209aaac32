"""Programs for PolicyService."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from innerloop._core import reading
from innerloop._core.calls import PAGE, call, pages
from innerloop._core.codec import array_to_pb
from innerloop._core.commands import Emit, Program, Receive, Rpc, Send, Start, Stop
from innerloop._core.names import resource
from innerloop.arrays import Array
from innerloop.errors import ProtocolError
from innerloop.policy import Input, Policy
from innerloop.types import Acted, PolicyInfo
from innerloop.v1 import policy_pb2 as pb

GET = Rpc("PolicyService", "GetPolicy")
LIST = Rpc("PolicyService", "ListPolicies")
DOWNLOAD = Rpc("PolicyService", "DownloadPolicy")
DELETE = Rpc("PolicyService", "DeletePolicy")
ACT = Rpc("PolicyService", "Act")
ACT_STREAM = Rpc("PolicyService", "ActStream")

Seen = Array | Input
"""A batch of observations [R, *O], or all that a memory policy may look at."""


def policy_info(name: str) -> Program[PolicyInfo]:
    """A policy's metadata."""
    request = pb.GetPolicyRequest(name=resource("policies", name))
    return call(GET, request, lambda response: reading.policy_info(response.policy))


def policies() -> Program[list[PolicyInfo]]:
    """The caller's policies, newest first."""
    return pages(
        LIST,
        lambda token: pb.ListPoliciesRequest(page_size=PAGE, page_token=token),
        lambda response: map(reading.policy_info, response.policies),
    )


def delete_policy(name: str) -> Program[None]:
    """Delete a policy."""
    return call(DELETE, pb.DeletePolicyRequest(name=resource("policies", name)), lambda _: None)


def download(policy: str | PolicyInfo) -> Program[Policy]:
    """A policy with its weights, checked against their hash."""
    name = policy.name if isinstance(policy, PolicyInfo) else policy
    chunks: list[bytes] = []
    size = 0
    yield Start(DOWNLOAD, pb.DownloadPolicyRequest(name=resource("policies", name)), two_way=False)
    while (response := (yield Receive())) is not None:
        chunks.append(response.chunk)
        size = response.size_bytes
    yield Stop()
    data = b"".join(chunks)
    if len(data) != size:
        raise ProtocolError(f"the policy file has {size} bytes, but {len(data)} came")
    return reading.policy(data)


def act(
    policy: str, seen: Seen, *, greedy: bool, seed: int | None, state: Mapping[str, Array] | None
) -> Program[Acted]:
    """Act once, on the server."""
    request = pb.ActRequest(
        policy=resource("policies", policy),
        input=input_to_pb(seen),
        greedy=greedy,
        seed=seed,
        state={name: array_to_pb(value) for name, value in (state or {}).items()},
    )
    return call(ACT, request, reading.acted)


def act_stream(policy: str, *, greedy: bool, seed: int | None) -> Program[None]:
    """Act on the server for as long as the caller sends what it sees. Emits ``None`` first, then one
    :class:`Acted` for each :data:`Seen` that was sent back.
    """
    name = resource("policies", policy)
    seen = yield Emit(None)
    yield Start(ACT_STREAM, pb.ActStreamRequest(policy=name, input=input_to_pb(seen), greedy=greedy, seed=seed))
    while True:
        response = yield Receive()
        if response is None:
            raise ProtocolError("the server ended the stream of actions without a reason")
        seen = yield Emit(reading.acted(response))
        yield Send(pb.ActStreamRequest(input=input_to_pb(seen), greedy=greedy))


def input_to_pb(seen: Seen) -> pb.PolicyInput:
    """What a policy looks at, as a message."""
    value = seen if isinstance(seen, Input) else Input(np.asarray(seen))
    return pb.PolicyInput(
        observations=array_to_pb(_single(value.observation)),
        previous_raw_actions=_optional(value.previous_action),
        rewards=_optional(value.reward),
        terminated=_optional(value.terminated),
        truncated=_optional(value.truncated),
        trial_end=_optional(value.trial_end),
    )


def _optional(value: Any) -> Any:
    return None if value is None else array_to_pb(_single(np.asarray(value)))


def _single(value: Any) -> Array:
    """Floats in single precision, which is what policies compute in; everything else as it is."""
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.kind == "f" else array
