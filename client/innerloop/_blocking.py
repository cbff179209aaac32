"""The blocking driver: carries out a program's commands with grpc's own synchronous stack."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from innerloop._core.calls import patient
from innerloop._core.commands import Command, Emit, Program, Receive, Send, Sleep, Start, Stop, Unary, Work
from innerloop._core.options import ConnectOptions, channel_options
from innerloop._core.status import client_closed, error_from_rpc
from innerloop._core.stubs import Stubs
from innerloop._version import __version__

T = TypeVar("T")


class Transport:
    """One channel and how calls are made on it."""

    def __init__(self, options: ConnectOptions) -> None:
        self.options = options
        credentials = options.credentials()
        if credentials is None:
            self.channel = grpc.insecure_channel(options.address, options=channel_options())
        else:
            self.channel = grpc.secure_channel(options.address, credentials, options=channel_options())
        self._stubs = Stubs(self.channel)
        self._metadata = options.metadata(__version__)
        self._closed = False

    def unary(self, command: Unary) -> Any:
        """One unary call."""
        self._check_open()
        try:
            return self._stubs[command.rpc](command.request, timeout=self.options.timeout, metadata=self._metadata)
        except grpc.RpcError as failure:
            raise error_from_rpc(failure, self.options.address) from None

    def stream(self, command: Start) -> Stream:
        """Open a stream."""
        self._check_open()
        return Stream(self._stubs[command.rpc], command, self._metadata, self.options.address)

    def run(self, program: Program[T]) -> T:
        """Run a program that emits nothing, and give its result."""
        execution = Execution(self, program)
        try:
            while True:
                execution.next()
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            execution.close()

    def close(self) -> None:
        """Close the channel; calls that are under way are cancelled."""
        self._closed = True
        self.channel.close()

    def _check_open(self) -> None:
        if self._closed:
            raise client_closed()


class Stream:
    """One open stream. It is always cancelled when it is left, ended or not: calls that are merely dropped leak."""

    def __init__(self, method: Any, command: Start, metadata: tuple[tuple[str, str], ...], address: str) -> None:
        self._address = address
        self._outbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        if command.two_way:
            self._outbox.put(command.request)
            self._call: Any = method(iter(self._outbox.get, None), metadata=metadata)
        else:
            self._call = method(command.request, metadata=metadata)

    def send(self, message: Message) -> None:
        """Put a message on the stream. A stream that is gone tells so when it is read."""
        self._outbox.put(message)

    def receive(self) -> Any:
        """The next message; ``None`` at the end."""
        try:
            return next(self._call, None)
        except grpc.RpcError as failure:
            raise error_from_rpc(failure, self._address) from None

    def close(self) -> None:
        """Cancel the call and let the thread that sends end."""
        self._call.cancel()
        self._outbox.put(None)  # after the cancel, or the server would see a half-close first


class Execution(Generic[T]):
    """A program under way, with the stream that it holds open."""

    def __init__(self, transport: Transport, program: Program[T]) -> None:
        self._transport = transport
        self._program = patient(program) if transport.options.wait else program
        self._stream: Stream | None = None
        self._command: Command | None = None
        self._done = False

    def next(self, answer: Any = None) -> Any:
        """The next value that the program emits.

        Args:
            answer: what the ``Emit`` before is answered with.

        Raises:
            StopIteration: the program has ended; its value is the program's result.
        """
        if self._done:
            raise StopIteration
        try:
            command = next(self._program) if self._command is None else self._program.send(answer)
            while not isinstance(command, Emit):
                try:
                    result = self._perform(command)
                except Exception as error:
                    command = self._program.throw(error)
                else:
                    command = self._program.send(result)
        except BaseException:
            self.close()
            raise
        self._command = command
        return command.value

    def __iter__(self) -> Iterator[Any]:
        """All values that the program emits."""
        while True:
            try:
                value = self.next()
            except StopIteration:
                return
            yield value

    def close(self) -> None:
        """Cancel the stream and end the program. Closing again does nothing."""
        self._done = True
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        with suppress(ValueError):  # the program is running right now, in a frame below: it ends by its own error
            self._program.close()

    def _perform(self, command: Command) -> Any:
        match command:
            case Unary():
                return self._transport.unary(command)
            case Start():
                self._stop()
                self._stream = self._transport.stream(command)
            case Send(message):
                self._open().send(message)
            case Receive():
                return self._open().receive()
            case Stop():
                self._stop()
            case Sleep(seconds):
                time.sleep(seconds)
            case Work(function):
                return function()
        return None

    def _open(self) -> Stream:
        if self._stream is None:
            raise RuntimeError("the program has no open stream")
        return self._stream

    def _stop(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
