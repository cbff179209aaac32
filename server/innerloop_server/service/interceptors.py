"""The gate: one interceptor that takes every rpc, of whatever kind, through the layers.

One interceptor with many layers costs a stream one extra generator a message; an interceptor a layer would cost six.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from innerloop_server.errors import Exhausted, InnerloopError, InvalidField
from innerloop_server.service.layers import Call, Layer

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class _Refused:
    """Stands in for a message that was not read; raised where the layers can see it."""

    error: InnerloopError


class Gate(grpc.aio.ServerInterceptor):
    """Takes every rpc through ``layers``, outermost first, and refuses messages larger than ``most_bytes``."""

    def __init__(self, layers: Sequence[Layer], most_bytes: int) -> None:
        self._layers = tuple(layers)
        self._most_bytes = most_bytes
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of the called method behind the layers; methods that nobody serves stay UNIMPLEMENTED."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is not None and method not in self._wrapped:
            self._wrapped[method] = self._wrap(method.removeprefix("/"), handler)
        return self._wrapped.get(method, handler)

    def _wrap(self, rpc: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        # The stubs speak of the blocking server's handlers; on this one they are coroutines or asynchronous generators.
        served: Callable[[Any, Context], Any] = cast(
            Any, handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        )
        streaming = handler.request_streaming or handler.response_streaming
        opened = _messages if handler.request_streaming else _message
        behavior: Callable[[Any, Context], Any]

        if inspect.isasyncgenfunction(served):

            async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
                async with AsyncExitStack() as stack:
                    await self._enter(stack, rpc, streaming, context)
                    async with aclosing(served(opened(request), context)) as replies:
                        async for reply in replies:
                            yield reply

            behavior = generate
        else:

            async def answer(request: Any, context: Context) -> Any:
                async with AsyncExitStack() as stack:
                    await self._enter(stack, rpc, streaming, context)
                    return await served(opened(request), context)

            behavior = answer

        make: Callable[..., grpc.RpcMethodHandler[Any, Any]] = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[bool(handler.request_streaming), bool(handler.response_streaming)]
        return make(behavior, self._checked(handler.request_deserializer), handler.response_serializer)

    async def _enter(self, stack: AsyncExitStack, rpc: str, streaming: bool, context: Context) -> None:
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        call = Call(rpc, streaming, context, metadata)
        for layer in self._layers:
            await stack.enter_async_context(layer(call))

    def _checked(self, deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
        def check(data: bytes) -> Any:
            if len(data) > self._most_bytes:
                return _Refused(_too_large(len(data), self._most_bytes))
            try:
                return deserialize(data) if deserialize is not None else data
            except DecodeError:
                return _Refused(InvalidField("request", "is not a message of this rpc; see its .proto file"))

        return check


def _message(request: Any) -> Any:
    if isinstance(request, _Refused):
        raise request.error
    return request


async def _messages(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _message(request)
    # A cancelled stream looks like one that has ended; its CancelledError is on the way.
    await asyncio.sleep(0)


def _too_large(size: int, limit: int) -> Exhausted:
    return Exhausted(
        f"the message has {size} bytes, more than {limit}; send it in smaller parts",
        reason="MESSAGE_TOO_LARGE",
        retry_after_seconds=None,
        facts={"size": str(size), "limit": str(limit)},
    )
