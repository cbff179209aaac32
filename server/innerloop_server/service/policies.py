"""PolicyService: a caller's finished policies, their weights, and acting with them here."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import grpc.aio
import numpy as np

from innerloop.arrays import Arrays, Discrete
from innerloop.policy import Action, Input, Policy, PolicyFormatError
from innerloop.v1 import policy_pb2, policy_pb2_grpc
from innerloop_server.errors import DataLoss, InvalidField
from innerloop_server.service.convert.names import POLICY
from innerloop_server.service.convert.paging import page_request
from innerloop_server.service.convert.policies import (
    arrays_to_pb,
    input_from_pb,
    memory_from_pb,
    output_to_pb,
    policy_to_pb,
)
from innerloop_server.service.policy_cache import PolicyCache
from innerloop_server.service.principal import principal
from innerloop_server.settings import Limits
from innerloop_server.store.pages import Page, PageRequest
from innerloop_server.store.records import PolicyRecord
from innerloop_server.streams import Purpose, stream

Context = grpc.aio.ServicerContext[Any, Any]

_INLINE_MULTIPLICATIONS = 1_000_000
"""A batch of more than this (about a millisecond) is acted for on a thread, so that the event loop goes on."""
_NUMBER_BYTES = 16
"""At most, of what is answered for a number of a row's action, as an environment takes it and raw."""
_ANSWER_BYTES = 64 * 1024
"""More than an answer's names, shapes and metadata take."""


class Policies(Protocol):
    """What this service needs of the store. Every method blocks on the disk."""

    def get_policy(self, policy_id: str, owner: str | None = None) -> PolicyRecord: ...  # noqa: D102
    def list_policies(self, owner: str | None = None, page: PageRequest = ...) -> Page[PolicyRecord]: ...  # noqa: D102
    def delete_policy(self, policy_id: str, owner: str | None = None) -> None: ...  # noqa: D102
    def read_blob(self, digest: str) -> bytes: ...  # noqa: D102


class PolicyServicer(policy_pb2_grpc.PolicyServiceServicer):
    """Serves the policies of a store, each to its owner alone."""

    def __init__(self, store: Policies, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._cache = PolicyCache()

    async def GetPolicy(self, request: policy_pb2.GetPolicyRequest, context: Context) -> policy_pb2.GetPolicyResponse:
        """A policy's metadata."""
        return policy_pb2.GetPolicyResponse(policy=policy_to_pb(await self._find(request.name, "name")))

    async def ListPolicies(
        self, request: policy_pb2.ListPoliciesRequest, context: Context
    ) -> policy_pb2.ListPoliciesResponse:
        """The caller's policies, newest first."""
        page = await asyncio.to_thread(self._store.list_policies, principal(), page_request(request))
        return policy_pb2.ListPoliciesResponse(
            policies=[policy_to_pb(record) for record in page.items], next_page_token=page.next_token
        )

    async def DownloadPolicy(
        self, request: policy_pb2.DownloadPolicyRequest, context: Context
    ) -> AsyncIterator[policy_pb2.DownloadPolicyResponse]:
        """The policy file in chunks."""
        record = await self._find(request.name, "name")
        data = await asyncio.to_thread(self._store.read_blob, record.blob)
        step = self._limits.chunk_bytes
        for start in range(0, len(data), step):
            yield policy_pb2.DownloadPolicyResponse(chunk=data[start : start + step], size_bytes=len(data))

    async def DeletePolicy(
        self, request: policy_pb2.DeletePolicyRequest, context: Context
    ) -> policy_pb2.DeletePolicyResponse:
        """Forget a policy. Streams that act with it go on."""
        await asyncio.to_thread(self._store.delete_policy, POLICY.parse(request.name, "name"), principal())
        return policy_pb2.DeletePolicyResponse()

    async def Act(self, request: policy_pb2.ActRequest, context: Context) -> policy_pb2.ActResponse:
        """Act for one batch."""
        policy = await self._load(request.policy)
        seen = self._seen(policy, request.input)
        self._check_answer(policy, len(seen.observation))
        memory = memory_from_pb(request.state, policy, len(seen.observation))
        rng = _random(request.seed if request.HasField("seed") else None)
        action = await _act(policy, seen, memory, request.greedy, rng)
        return policy_pb2.ActResponse(output=_output(action), state=arrays_to_pb(action.memory))

    async def ActStream(
        self, request_iterator: AsyncIterator[policy_pb2.ActStreamRequest], context: Context
    ) -> AsyncIterator[policy_pb2.ActStreamResponse]:
        """Act for every batch of a stream, with the policy and the seed of the first. The stream keeps the memory of a
        policy that remembers, so its rows stay the same ones.
        """
        policy: Policy | None = None
        rng: np.random.Generator | None = None
        memory: Arrays = {}
        rows = 0
        async for request in request_iterator:
            if policy is None or rng is None:
                policy = await self._load(request.policy)
                rng = _random(request.seed if request.HasField("seed") else None)
            seen = self._seen(policy, request.input)
            if not rows:
                rows = len(seen.observation)
                memory = policy.begin(rows)
            elif memory and len(seen.observation) != rows:
                raise InvalidField(
                    "input.observations",
                    f"has {len(seen.observation)} rows; this policy remembers for the {rows} of the first request",
                )
            action = await _act(policy, seen, memory, request.greedy, rng)
            memory = action.memory
            yield policy_pb2.ActStreamResponse(output=_output(action))

    async def _find(self, name: str, field: str) -> PolicyRecord:
        return await asyncio.to_thread(self._store.get_policy, POLICY.parse(name, field), principal())

    async def _load(self, name: str) -> Policy:
        record = await self._find(name, "policy")
        policy = self._cache.get(record.blob)
        if policy is None:
            policy = await asyncio.to_thread(self._read, record)
            self._cache.put(record.blob, policy)
        return policy

    def _read(self, record: PolicyRecord) -> Policy:
        try:
            return Policy.from_bytes(self._store.read_blob(record.blob))
        except PolicyFormatError as error:
            raise DataLoss(
                f"policies/{record.id} cannot be read: {error}", reason="POLICY_DAMAGED", facts={"policy": record.id}
            ) from error

    def _check_answer(self, policy: Policy, rows: int) -> None:
        """Raise before anything is computed where the answer of ``Act``, state included, would be no message."""
        space = policy.header.action_space
        numbers = 1 if isinstance(space, Discrete) else space.size
        size = sum(array.nbytes for array in policy.begin().values()) + _NUMBER_BYTES * (numbers + 1)
        most = max(1, (self._limits.message_bytes - _ANSWER_BYTES) // size)
        if rows > most:
            raise InvalidField(
                "input.observations",
                f"has {rows} rows, and an answer holds the state of {most} of this policy; send at most {most}, or use "
                "ActStream, which keeps the state here",
            )

    def _seen(self, policy: Policy, message: policy_pb2.PolicyInput) -> Input:
        seen = input_from_pb(message, policy.header, "input", self._limits.rows_per_message)
        if why := policy.refuses(seen.trial_end):
            raise InvalidField("input.trial_end", why)
        return seen


async def _act(policy: Policy, seen: Input, memory: Arrays, greedy: bool, rng: np.random.Generator) -> Action:
    def act() -> Action:
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at
            return policy.decide(seen, memory=memory, greedy=greedy, rng=rng)

    long = _work(policy.weights, seen) > _INLINE_MULTIPLICATIONS
    action = await asyncio.to_thread(act) if long else act()
    if not np.isfinite(action.log_prob).all():
        raise InvalidField("input", "gives actions that are not finite; send smaller observations, rewards or state")
    return action


def _output(action: Action) -> policy_pb2.PolicyOutput:
    return output_to_pb(action.environment, action.raw, action.log_prob)


def _work(weights: Mapping[str, np.ndarray], seen: Input) -> int:
    return len(seen.observation) * sum(array.size for array in weights.values())


def _random(seed: int | None) -> np.random.Generator:
    return stream(secrets.randbits(63) if seed is None else seed, Purpose.OBSERVE)
