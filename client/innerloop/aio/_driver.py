"""The async driver: carries out a program's commands with grpc.aio."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from innerloop._core.calls import patient
from innerloop._core.commands import Command, Emit, Program, Receive, Send, Sleep, Start, Stop, Unary, Work
from innerloop._core.options import ConnectOptions, channel_options
from innerloop._core.status import client_closed, error_from_rpc
from innerloop._core.stubs import Stubs
from innerloop._version import __version__
from innerloop.errors import ServerError, Unavailable

T = TypeVar("T")


class Transport:
    """One channel and how calls are made on it."""

    def __init__(self, options: ConnectOptions) -> None:
        self.options = options
        credentials = options.credentials()
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(options.address, options=channel_options())
        else:
            self.channel = grpc.aio.secure_channel(options.address, credentials, options=channel_options())
        self._stubs = Stubs(self.channel)
        self._metadata = options.metadata(__version__)
        self._closed = False

    async def unary(self, command: Unary) -> Any:
        """One unary call."""
        self._check_open()
        method = self._stubs[command.rpc]
        call = method(command.request, timeout=self.options.timeout, metadata=self._metadata)
        try:
            return await call
        except grpc.RpcError as failure:
            raise error_from_rpc(failure, self.options.address) from None
        finally:
            call.cancel()

    def stream(self, command: Start) -> Stream:
        """Open a stream."""
        self._check_open()
        return Stream(self._stubs[command.rpc], command, self._metadata, self.options.address)

    async def run(self, program: Program[T]) -> T:
        """Run a program that emits nothing, and give its result."""
        execution = Execution(self, program)
        try:
            while True:
                await execution.next()
        except StopAsyncIteration:
            result: T = execution.result
            return result
        finally:
            execution.close()

    async def close(self) -> None:
        """Close the channel; calls that are under way are cancelled."""
        self._closed = True
        await self.channel.close()

    def _check_open(self) -> None:
        if self._closed:
            raise client_closed()


class Stream:
    """One open stream. It is always cancelled when it is left, ended or not: calls that are merely dropped leak."""

    def __init__(self, method: Any, command: Start, metadata: tuple[tuple[str, str], ...], address: str) -> None:
        self._address = address
        self._broken = False
        self._first = command.request if command.two_way else None
        self._call: Any = method(metadata=metadata) if command.two_way else method(command.request, metadata=metadata)

    async def send(self, message: Message) -> None:
        """Put a message on the stream. A stream that is gone tells so when it is read."""
        if self._call.done():
            return
        try:
            await self._call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError):
            self._broken = True

    async def begin(self) -> None:
        """Send the first message of a two-way stream."""
        if self._first is not None:
            await self.send(self._first)

    async def receive(self) -> Any:
        """The next message; ``None`` at the end."""
        try:
            message = await self._call.read()
        except grpc.RpcError as failure:
            error = error_from_rpc(failure, self._address)
            if self._broken and isinstance(error, ServerError):
                # grpc.aio overwrites the status, and drops what was still to be read, when a write meets the end of
                # the stream; what the server had to say it says again after a resume
                raise Unavailable("the stream ended while a message was under way") from None
            raise error from None
        return None if message is grpc.aio.EOF else message

    def close(self) -> None:
        """Cancel the call."""
        with suppress(RuntimeError):  # the event loop is closed: its calls are gone with it
            self._call.cancel()


class Execution(Generic[T]):
    """A program under way, with the stream that it holds open."""

    result: Any = None
    """What the program returned, once it has ended."""

    def __init__(self, transport: Transport, program: Program[T]) -> None:
        self._transport = transport
        self._program = patient(program) if transport.options.wait else program
        self._stream: Stream | None = None
        self._command: Command | None = None
        self._done = False

    async def next(self, answer: Any = None) -> Any:
        """The next value that the program emits.

        Args:
            answer: what the ``Emit`` before is answered with.

        Raises:
            StopAsyncIteration: the program has ended; ``result`` is its result.
        """
        if self._done:
            raise StopAsyncIteration
        try:
            command = next(self._program) if self._command is None else self._program.send(answer)
            while not isinstance(command, Emit):
                try:
                    result = await self._perform(command)
                except Exception as error:
                    command = self._program.throw(error)
                else:
                    command = self._program.send(result)
        except StopIteration as end:
            self.result = end.value
            self.close()
            raise StopAsyncIteration from None
        except BaseException:  # CancelledError too: it goes on to whoever cancelled, after the call is cancelled
            self.close()
            raise
        self._command = command
        return command.value

    def close(self) -> None:
        """Cancel the stream and end the program. Closing again does nothing."""
        self._done = True
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        with suppress(ValueError):  # the program is running right now, in a frame below: it ends by its own error
            self._program.close()

    async def _perform(self, command: Command) -> Any:
        match command:
            case Unary():
                return await self._transport.unary(command)
            case Start():
                self._stop()
                self._stream = self._transport.stream(command)
                await self._stream.begin()
            case Send(message):
                await self._open().send(message)
            case Receive():
                return await self._open().receive()
            case Stop():
                self._stop()
            case Sleep(seconds):
                await asyncio.sleep(seconds)
            case Work(function):
                return await asyncio.to_thread(function)
        return None

    def _open(self) -> Stream:
        if self._stream is None:
            raise RuntimeError("the program has no open stream")
        return self._stream

    def _stop(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
