"""A real server in this process, and what its errors say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import safetensors.torch
import torch
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from innerloop.arrays import Box
from innerloop.policy import Header, Policy, weight_shapes
from innerloop.v1 import array_pb2
from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.hub import SessionHub
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.learners.registry import build
from innerloop_server.service.adaptation import AdaptationServicer
from innerloop_server.service.convert.arrays import array_to_pb
from innerloop_server.service.definitions import FamilyDefiner
from innerloop_server.service.permissions import Permissions
from innerloop_server.service.server import Server
from innerloop_server.service.tasks import TaskServicer
from innerloop_server.settings import Settings
from innerloop_server.store.ids import new_id
from innerloop_server.store.records import PolicyRecord
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import Registry
from innerloop_server.training.proposals import TrainingProposals
from innerloop_server.training.specs import spec_for


@asynccontextmanager
async def adapting(settings: Settings, store: Store, registry: Registry) -> AsyncIterator[AdaptationServicer]:
    """Sessions on an engine in this process."""
    hub = SessionHub(LocalEngine(EngineCore(registry, torch.device("cpu"), device_rows=8)), store, registry, settings)
    try:
        yield AdaptationServicer(hub, store, registry, settings, version("innerloop"))
    finally:
        await hub.close()


def teach(store: Store, registry: Registry, family: str, name: str, *, promoted: bool = True) -> None:
    """Put a small untrained learner in the store."""
    spec = spec_for(registry.get(family), name=name, settings={"hidden_sizes": [4], "episodes_per_step": 2})
    store.put_learner(spec)
    store.add_revision(name, safetensors.torch.save(build(spec).initial_meta(0)), {})
    if promoted:
        store.promote(name, 1)


def task_servicer(registry: Registry, store: Store, settings: Settings) -> TaskServicer:
    """TaskService as a server has it."""
    definer = FamilyDefiner(registry, store, Permissions.of(settings), settings.limits)
    return TaskServicer(registry, settings.limits, definer, TrainingProposals(store))


@asynccontextmanager
async def serving(settings: Settings, servicers: Sequence[object]) -> AsyncIterator[Server]:
    server = Server(settings, servicers)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


@asynccontextmanager
async def dialled(server: Server, *, unlimited: bool = False) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.max_send_message_length", -1)] if unlimited else []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
        yield channel


@dataclass(frozen=True)
class Told:
    """What a failed call tells its caller."""

    code: grpc.StatusCode
    message: str
    reason: str
    facts: dict[str, str]
    field: str
    advice: str
    retry_seconds: float | None


def told(error: grpc.aio.AioRpcError) -> Told:
    """Decode an error as a client does; fails where the details are missing or contradict the status."""
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    unpacked = [detail.Unpack(known) for detail in status.details for known in (info, bad, retry)]
    assert sum(unpacked) == len(status.details)
    assert info.domain == "innerloop"
    violation = bad.field_violations[0] if bad.field_violations else error_details_pb2.BadRequest.FieldViolation()
    return Told(
        error.code(),
        status.message,
        info.reason,
        dict(info.metadata),
        violation.field,
        violation.description,
        retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
    )


async def refused(call: Awaitable[Any]) -> Told:
    """What a call that must fail tells."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return told(caught.value)


async def call(channel: grpc.aio.Channel, rpc: str, request: Message | bytes, **options: Any) -> bytes:
    """Call ``package.Service/Method`` with raw bytes; of streams, the last response."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    method = rpc.rpartition("/")[2]
    if method in ("DownloadPolicy", "FollowEvaluation", "FollowTraining"):
        replies: Any = channel.unary_stream(f"/{rpc}")(data, **options)
    elif method in ("ActStream", "Adapt"):
        replies = channel.stream_stream(f"/{rpc}")(iter([data]), **options)
    else:
        return bytes(await channel.unary_unary(f"/{rpc}")(data, **options))
    last = b""
    async for reply in replies:
        last = reply
    return last


def a_policy(seed: int = 0, hidden: tuple[int, ...] = (8,)) -> Policy:
    """Two numbers in, one in [-1, 1] out."""
    header = Header(
        observation_space=Box.of(-np.inf, np.inf, (2,)),
        action_space=Box.of(-1.0, 1.0, (1,)),
        hidden_sizes=hidden,
        observation_shift=(0.0, 0.0),
        observation_scale=(1.0, 1.0),
        action_shift=(0.0,),
        action_scale=(1.0,),
        family="navigation-2d",
        revision="learners/navigation-2d-maml/revisions/1",
        steps=3,
    )
    rng = np.random.default_rng(seed)
    shapes = weight_shapes(header).items()
    return Policy(header, {name: rng.standard_normal(shape, np.float32) for name, shape in shapes})


def keep(store: Store, owner: str, policy: Policy) -> PolicyRecord:
    """Put a policy in the store as a finished session would."""
    data = policy.to_bytes()
    header = Policy.from_bytes(data).header
    record = PolicyRecord(
        id=new_id("p"),
        owner=owner,
        session_id=None,
        learner_id="navigation-2d-maml",
        revision=1,
        family="navigation-2d",
        blob="",
        size=0,
        header=_json(header),
        created_at=0.0,
    )
    return store.put_policy(record, data)


def array(values: Any, dtype: Any = np.float32) -> array_pb2.Array:
    return array_to_pb(np.asarray(values, dtype))


def with_tokens(settings: Settings, **tokens: str) -> Settings:
    """``token=principal`` pairs."""
    return replace(settings, tokens=tokens)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def _json(header: Header) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(header.to_json())
    return value
