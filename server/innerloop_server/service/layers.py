"""What every rpc passes on its way in and out, one layer an idea.

Outermost first::

    request log > metrics > errors > version handshake > authentication > stream quota > the servicer

The errors layer stands outside those that refuse, because it turns their refusals into statuses, and inside those that
count, because they want to know the outcome.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import structlog

from innerloop_server.errors import Exhausted, Unauthenticated
from innerloop_server.service.handshake import VERSION_KEY, require_compatible
from innerloop_server.service.metrics import Metrics
from innerloop_server.service.principal import LOCAL, set_principal
from innerloop_server.service.status import failure_of

_OURS = "innerloop."
_HEALTH = "grpc.health."
_SERIOUS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)
_TRACED = {"x-request-id": "request_id", "traceparent": "traceparent"}

log = structlog.get_logger(__name__)


@dataclass
class Call:
    """One rpc under way. The errors layer settles ``code`` and ``reason``, authentication the principal."""

    rpc: str
    """``innerloop.v1.TaskService/GetTask``."""
    streaming: bool
    context: grpc.aio.ServicerContext[Any, Any]
    metadata: Mapping[str, str]
    """What the client sent beside the message; binary values left out."""
    principal: str = ""
    code: grpc.StatusCode = grpc.StatusCode.OK
    reason: str = ""

    @property
    def ours(self) -> bool:
        """It belongs to the contract, not to health or reflection."""
        return self.rpc.startswith(_OURS)


Layer = Callable[[Call], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def request_log(call: Call) -> AsyncIterator[None]:
    """One event at the end of each rpc. Health probes are told at debug level: they come every few seconds."""
    start = time.perf_counter()
    try:
        yield
    finally:
        level = "debug" if call.rpc.startswith(_HEALTH) else "error" if call.code in _SERIOUS else "info"
        facts = {"reason": call.reason} if call.reason else {}
        facts |= {name: call.metadata[key][:128] for key, name in _TRACED.items() if key in call.metadata}
        milliseconds = round((time.perf_counter() - start) * 1_000, 3)
        getattr(log, level)(
            "request", rpc=call.rpc, principal=call.principal, code=call.code.name, ms=milliseconds, **facts
        )


def measured(metrics: Metrics) -> Layer:
    """Counts rpcs by code, their seconds, and the streams that are open."""

    @asynccontextmanager
    async def layer(call: Call) -> AsyncIterator[None]:
        start = time.perf_counter()
        if call.streaming:
            metrics.streams.labels(call.rpc).inc()
        try:
            yield
        finally:
            if call.streaming:
                metrics.streams.labels(call.rpc).dec()
            metrics.seconds.labels(call.rpc).observe(time.perf_counter() - start)
            metrics.requests.labels(call.rpc, call.code.name).inc()

    return layer


def translated(version: str) -> Layer:
    """Turns what is raised below into a status. ``CancelledError`` passes: swallowing it leaks the call."""

    @asynccontextmanager
    async def layer(call: Call) -> AsyncIterator[None]:
        try:
            yield
        except grpc.aio.AbortError:
            call.code = _settled(call.context, grpc.StatusCode.UNKNOWN)
            raise
        except Exception as error:
            failure = failure_of(error)
            call.code, call.reason = failure.code, failure.reason
            if failure.incident:
                log.error("incident", incident=failure.incident, rpc=call.rpc, exc_info=error)
            ours = ((VERSION_KEY, version),) if call.ours else ()
            await call.context.abort(failure.code, failure.message, (*failure.trailing_metadata(), *ours))
        except BaseException as error:  # cancelled, or a generator that is closed because its stream was
            late = isinstance(error, asyncio.CancelledError) and call.context.time_remaining() == 0
            call.code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            raise
        else:
            call.code = _settled(call.context, grpc.StatusCode.OK)

    return layer


def shaken_hands(version: str) -> Layer:
    """Tells the client our version, at a stream's beginning or a call's end, and refuses versions that differ."""

    @asynccontextmanager
    async def layer(call: Call) -> AsyncIterator[None]:
        if call.ours:
            call.context.set_trailing_metadata(((VERSION_KEY, version),))
            require_compatible(call.metadata.get(VERSION_KEY, ""), version, f"metadata.{VERSION_KEY}")
            if call.streaming:
                await call.context.send_initial_metadata(((VERSION_KEY, version),))
        yield

    return layer


def authenticated(tokens: Mapping[str, str]) -> Layer:
    """Finds the principal of a bearer token. Health stays open to everybody; reflection needs a token like the rest.

    Args:
        tokens: token -> principal; empty: everybody is ``local``.
    """
    digests = [(_digest(token), name) for token, name in tokens.items()]

    @asynccontextmanager
    async def layer(call: Call) -> AsyncIterator[None]:
        if not digests:
            call.principal = LOCAL
        elif not call.rpc.startswith(_HEALTH):
            call.principal = _owner(call.metadata.get("authorization", ""), digests)
        set_principal(call.principal)
        yield

    return layer


class StreamQuota:
    """Bounds how many streams of the contract are open at once, all callers together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open = 0

    @property
    def open(self) -> int:
        """Streams open now."""
        return self._open

    @asynccontextmanager
    async def __call__(self, call: Call) -> AsyncIterator[None]:
        """The layer."""
        if not (call.ours and call.streaming):
            yield
            return
        if self._open >= self._most:
            raise Exhausted(
                f"{self._most} streams are open already; close one, or try again",
                reason="STREAMS_EXHAUSTED",
                facts={"limit": str(self._most)},
            )
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


def _owner(authorization: str, digests: list[tuple[bytes, str]]) -> str:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated(
            "this server wants a token; send metadata 'authorization: Bearer TOKEN'", reason="TOKEN_MISSING"
        )
    given = _digest(token.strip())
    # Every token is compared, each in constant time: how long this takes tells nothing about any of them.
    owners = [name for digest, name in digests if hmac.compare_digest(digest, given)]
    if not owners:
        raise Unauthenticated("nobody has this token", reason="TOKEN_UNKNOWN")
    return owners[0]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _settled(context: grpc.aio.ServicerContext[Any, Any], default: grpc.StatusCode) -> grpc.StatusCode:
    code: object = context.code()
    if isinstance(code, grpc.StatusCode):
        return code
    return next((known for known in grpc.StatusCode if known.value[0] == code), default)
