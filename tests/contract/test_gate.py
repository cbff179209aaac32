"""What every rpc passes: versions, tokens, quotas, sizes, errors, the log and the metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog.testing
from contract_support import a_policy, bearer, call, dialled, keep, serving, told, with_tokens
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from innerloop.v1 import policy_pb2, policy_pb2_grpc, task_pb2, task_pb2_grpc
from innerloop_server.errors import Exhausted, SequenceGap
from innerloop_server.service.handshake import VERSION_KEY
from innerloop_server.service.principal import principal
from innerloop_server.service.server import Server
from innerloop_server.settings import Limits, Settings
from innerloop_server.store.store import Store

TASKS = "innerloop.v1.TaskService"
POLICIES = "innerloop.v1.PolicyService"
FAMILY = task_pb2.GetFamilyRequest(name="families/navigation-2d")


class Acting(policy_pb2_grpc.PolicyServiceServicer):
    """A servicer whose rpcs do what a test wants."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act
        self.cancelled = asyncio.Event()

    async def Act(self, request: policy_pb2.ActRequest, context: Any) -> policy_pb2.ActResponse:  # noqa: N802
        await self._run()
        return policy_pb2.ActResponse()

    async def ActStream(  # noqa: N802
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[policy_pb2.ActStreamResponse]:
        async for _ in request_iterator:
            yield policy_pb2.ActStreamResponse()
            await self._run()

    async def _run(self) -> Any:
        try:
            return await self._act()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def refused(channel: grpc.aio.Channel, rpc: str, request: Any, **options: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, rpc, request, **options)
    return told(caught.value)


def requests(events: list[Any]) -> list[Any]:
    return [event for event in events if event["event"] == "request"]


async def nothing() -> None:
    return None


async def for_ever() -> None:
    await asyncio.Event().wait()


# ------------------------------------------------------------------------------------------------------- versions


@pytest.mark.parametrize("sent", ["0.1.0", "0.1.99", "0.1.0rc1"])
async def test_version_of_the_same_contract_passes_and_is_answered(channel: grpc.aio.Channel, sent: str) -> None:
    ours = task_pb2_grpc.TaskServiceStub(channel).GetFamily(FAMILY, metadata=((VERSION_KEY, sent),))
    await ours
    assert dict(await ours.trailing_metadata())[VERSION_KEY] == "0.1.0"


async def test_version_is_told_when_a_stream_opens(channel: grpc.aio.Channel) -> None:
    stream = policy_pb2_grpc.PolicyServiceStub(channel).ActStream(metadata=((VERSION_KEY, "0.1.0"),))
    assert dict(await stream.initial_metadata())[VERSION_KEY] == "0.1.0"
    stream.cancel()


@pytest.mark.parametrize("sent", ["0.2.0", "1.1.0", "99.0"])
async def test_version_skew(channel: grpc.aio.Channel, sent: str) -> None:
    answer = await refused(channel, f"{TASKS}/GetFamily", FAMILY, metadata=((VERSION_KEY, sent),))
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_SKEW")
    assert answer.facts == {"client": sent, "server": "0.1.0"}


async def test_version_that_is_none(channel: grpc.aio.Channel) -> None:
    answer = await refused(channel, f"{TASKS}/GetFamily", FAMILY, metadata=((VERSION_KEY, "new"),))
    assert (answer.code, answer.field) == (grpc.StatusCode.INVALID_ARGUMENT, f"metadata.{VERSION_KEY}")


async def test_refusals_carry_the_servers_version(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, f"{TASKS}/GetFamily", task_pb2.GetFamilyRequest())
    assert dict(caught.value.trailing_metadata())[VERSION_KEY] == "0.1.0"


# --------------------------------------------------------------------------------------------------------- tokens


@pytest.mark.parametrize("sent", [(), (("authorization", "Basic ann"),), bearer("bo"), bearer("ANN"), bearer("ann2")])
async def test_without_a_known_token(settings: Settings, servicers: Any, sent: Any) -> None:
    async with serving(with_tokens(settings, ann="Ann"), servicers) as server, dialled(server) as channel:
        answer = await refused(channel, f"{TASKS}/GetFamily", FAMILY, metadata=sent)
        assert answer.code is grpc.StatusCode.UNAUTHENTICATED
        assert await call(channel, f"{TASKS}/GetFamily", FAMILY, metadata=bearer("ann"))


async def test_one_principal_sees_nothing_of_another(settings: Settings, servicers: Any, store: Store) -> None:
    hers = f"policies/{keep(store, 'Ann', a_policy()).id}"
    asked = [
        ("GetPolicy", policy_pb2.GetPolicyRequest(name=hers)),
        ("DownloadPolicy", policy_pb2.DownloadPolicyRequest(name=hers)),
        ("Act", policy_pb2.ActRequest(policy=hers)),
        ("ActStream", policy_pb2.ActStreamRequest(policy=hers)),
        ("DeletePolicy", policy_pb2.DeletePolicyRequest(name=hers)),
    ]
    async with serving(with_tokens(settings, ann="Ann", bob="Bob"), servicers) as server, dialled(server) as channel:
        for rpc, request in asked:
            his = await refused(channel, f"{POLICIES}/{rpc}", request, metadata=bearer("bob"))
            none = type(request).FromString(
                request.SerializeToString().replace(hers.encode(), b"policies/" + b"0" * 21)
            )
            assert his.code is grpc.StatusCode.NOT_FOUND
            unknown = await refused(channel, f"{POLICIES}/{rpc}", none, metadata=bearer("bob"))
            assert his.message.replace(hers, "") == unknown.message.replace("policies/" + "0" * 21, "")
        stub = policy_pb2_grpc.PolicyServiceStub(channel)
        empty = await stub.ListPolicies(policy_pb2.ListPoliciesRequest(), metadata=bearer("bob"))
        assert not empty.policies
        full = await stub.ListPolicies(policy_pb2.ListPoliciesRequest(), metadata=bearer("ann"))
        assert [policy.name for policy in full.policies] == [hers]


async def test_health_is_open_and_reflection_is_not(settings: Settings, servicers: Any) -> None:
    async def reflect(channel: grpc.aio.Channel, **options: Any) -> list[str]:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        replies = [reply async for reply in stub.ServerReflectionInfo(iter([request]), **options)]
        return [service.name for service in replies[0].list_services_response.service]

    async with serving(with_tokens(settings, ann="Ann"), servicers) as server, dialled(server) as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=TASKS))
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reflect(channel)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert TASKS in await reflect(channel, metadata=bearer("ann"))


async def test_principal_inside_a_stream(settings: Settings) -> None:
    seen = []

    async def act() -> None:
        await asyncio.sleep(0)
        seen.append(principal())

    settings = with_tokens(settings, ann="Ann", bob="Bob")
    async with serving(settings, [Acting(act)]) as server, dialled(server) as channel:
        request = policy_pb2.ActStreamRequest()
        await asyncio.gather(
            *(
                call(channel, f"{POLICIES}/ActStream", request, metadata=bearer(token))
                for token in ("ann", "bob", "ann")
            )
        )
    assert sorted(seen) == ["Ann", "Ann", "Bob"]


# ------------------------------------------------------------------------------------------------- sizes and quotas


async def test_oversized_message_gets_a_typed_error(settings: Settings, servicers: Any) -> None:
    settings = replace(settings, limits=Limits(message_bytes=10_000))
    async with serving(settings, servicers) as server, dialled(server) as channel:
        fits = task_pb2.GetFamilyRequest(name="x" * 9_990)
        assert (await refused(channel, f"{TASKS}/GetFamily", fits)).field == "name"
        for rpc in (f"{TASKS}/GetFamily", f"{POLICIES}/ActStream"):
            answer = await refused(channel, rpc, task_pb2.GetFamilyRequest(name="x" * 10_000))
            assert (answer.code, answer.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
            assert answer.facts == {"size": "10003", "limit": "10000"}
            assert answer.retry_seconds is None
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, f"{TASKS}/GetFamily", task_pb2.GetFamilyRequest(name="x" * 100_000))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await call(channel, f"{TASKS}/GetFamily", FAMILY)


async def test_stream_quota_counts_open_streams_alone(settings: Settings) -> None:
    settings = replace(settings, limits=Limits(streams=2))
    async with serving(settings, [Acting(nothing)]) as server, dialled(server) as channel:
        stub = policy_pb2_grpc.PolicyServiceStub(channel)
        first, second = stub.ActStream(), stub.ActStream()
        for stream in (first, second):
            await stream.write(policy_pb2.ActStreamRequest())
            await stream.read()
        answer = await refused(channel, f"{POLICIES}/ActStream", policy_pb2.ActStreamRequest())
        assert (answer.code, answer.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STREAMS_EXHAUSTED")
        assert answer.retry_seconds == 1.0
        assert answer.facts == {"limit": "2"}
        assert await call(channel, f"{POLICIES}/Act", policy_pb2.ActRequest()) == b""
        await first.done_writing()
        assert await first.read() is grpc.aio.EOF
        second.cancel()
        await _until(lambda: _gauge(server, "innerloop_streams_open", rpc=f"{POLICIES}/ActStream") == 0)
        assert await call(channel, f"{POLICIES}/ActStream", policy_pb2.ActStreamRequest()) == b""


# ------------------------------------------------------------------------------------------- errors, log and metrics


async def test_an_unforeseen_exception_tells_the_caller_only_its_incident(settings: Settings) -> None:
    async def fail() -> None:
        raise KeyError("/secret/path")

    async with serving(settings, [Acting(fail)]) as server, dialled(server) as channel:
        for rpc in ("Act", "ActStream"):
            with structlog.testing.capture_logs() as events:
                answer = await refused(channel, f"{POLICIES}/{rpc}", b"")
                await _until(lambda events=events: bool(requests(events)))
            assert (answer.code, answer.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
            assert "secret" not in answer.message
            (incident,) = [event for event in events if event["event"] == "incident"]
            assert incident["incident"] == answer.facts["incident"]
            assert answer.facts["incident"] in answer.message
            assert isinstance(incident["exc_info"], KeyError)
            assert [event["log_level"] for event in requests(events)] == ["error"]


@pytest.mark.parametrize(
    ("error", "code", "reason", "retry"),
    [
        (SequenceGap(7, 3), grpc.StatusCode.FAILED_PRECONDITION, "SEQUENCE_GAP", None),
        (Exhausted("full", retry_after_seconds=2.5), grpc.StatusCode.RESOURCE_EXHAUSTED, "EXHAUSTED", 2.5),
        (
            Exhausted("disk", reason="DISK_FULL", retry_after_seconds=None),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "DISK_FULL",
            None,
        ),
    ],
)
async def test_typed_errors_keep_their_facts(
    settings: Settings, error: Any, code: Any, reason: str, retry: Any
) -> None:
    async def fail() -> None:
        raise error

    async with serving(settings, [Acting(fail)]) as server, dialled(server) as channel:
        answer = await refused(channel, f"{POLICIES}/ActStream", b"")
    assert (answer.code, answer.reason, answer.retry_seconds) == (code, reason, retry)
    assert answer.facts == error.facts
    assert answer.message == error.message


async def test_cancelled_error_reaches_the_servicer_and_leaves_it(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    acting = Acting(for_ever)
    async with serving(settings, [acting]) as server, dialled(server) as channel:
        stub = policy_pb2_grpc.PolicyServiceStub(channel)
        with structlog.testing.capture_logs() as events, caplog.at_level(logging.DEBUG, "grpc"):
            stream = stub.ActStream()
            await stream.write(policy_pb2.ActStreamRequest())
            await stream.read()
            stream.cancel()
            await asyncio.wait_for(acting.cancelled.wait(), 10)
            await _until(lambda: bool(requests(events)))
        assert requests(events)[0]["code"] == "CANCELLED"
        assert not [event for event in events if event["event"] == "incident"]
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_missed_deadline_is_cancelled_and_logged_as_such(settings: Settings) -> None:
    acting = Acting(for_ever)
    async with serving(settings, [acting]) as server, dialled(server) as channel:
        with structlog.testing.capture_logs() as events:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(channel, f"{POLICIES}/Act", b"", timeout=0.2)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await asyncio.wait_for(acting.cancelled.wait(), 10)
            await _until(lambda: bool(requests(events)))
    assert requests(events)[0]["code"] == "DEADLINE_EXCEEDED"


async def test_one_log_event_for_each_request(settings: Settings, servicers: Any) -> None:
    traced = (("x-request-id", "abc"), ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
    async with serving(with_tokens(settings, ann="Ann"), servicers) as server, dialled(server) as channel:
        with structlog.testing.capture_logs() as events:
            await call(channel, f"{TASKS}/GetFamily", FAMILY, metadata=(*bearer("ann"), *traced))
            await refused(channel, f"{TASKS}/GetFamily", task_pb2.GetFamilyRequest(), metadata=bearer("ann"))
            await refused(channel, f"{TASKS}/GetFamily", FAMILY)
            await _until(lambda: len(requests(events)) == 3)
    good, bad, nobody = requests(events)
    assert 0 < good.pop("ms") < 10_000
    assert good == {
        "event": "request",
        "log_level": "info",
        "rpc": f"{TASKS}/GetFamily",
        "principal": "Ann",
        "code": "OK",
        "request_id": "abc",
        "traceparent": traced[1][1],
    }
    assert (bad["code"], bad["reason"], bad["log_level"]) == ("INVALID_ARGUMENT", "INVALID_FIELD", "info")
    assert (nobody["code"], nobody["reason"], nobody["principal"]) == ("UNAUTHENTICATED", "TOKEN_MISSING", "")


async def test_metrics_count_by_code(server: Server, channel: grpc.aio.Channel) -> None:
    rpc = f"{TASKS}/GetFamily"
    await call(channel, rpc, FAMILY)
    await call(channel, rpc, FAMILY)
    await refused(channel, rpc, task_pb2.GetFamilyRequest())
    await _until(lambda: _gauge(server, "innerloop_requests_total", rpc=rpc, code="INVALID_ARGUMENT") == 1)
    assert _gauge(server, "innerloop_requests_total", rpc=rpc, code="OK") == 2
    assert _gauge(server, "innerloop_request_seconds_count", rpc=rpc) == 3


async def test_a_method_that_nobody_serves(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, f"{TASKS}/Invent", b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def _gauge(server: Server, name: str, **labels: str) -> float | None:
    return server.metrics.registry.get_sample_value(name, labels)


async def _until(true: Callable[[], bool]) -> None:
    """The server's side of a call ends a moment after the client's; nothing tells the client when."""
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)
