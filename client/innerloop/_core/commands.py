"""What a program may ask of its driver.

Every call of the client is a *program*: a generator that yields commands and is sent their results. The blocking
driver (``innerloop.client``) and the async one (``innerloop.aio``) differ in how they carry out a command, and in
nothing else, so paging, retries, sequence numbers and environments are written once.

A command that fails is thrown into the program as an :class:`innerloop.errors.InnerloopError`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message

T = TypeVar("T")


@dataclass(frozen=True)
class Rpc:
    """A method of the contract."""

    service: str
    method: str


@dataclass(frozen=True)
class Unary:
    """Make a unary call; the result is its response."""

    rpc: Rpc
    request: Message


@dataclass(frozen=True)
class Start:
    """Open a stream with its first (or only) request. The stream before, if any, is cancelled."""

    rpc: Rpc
    request: Message
    two_way: bool = True
    """False: the server alone streams, and ``request`` is all there is."""


@dataclass(frozen=True)
class Send:
    """Put a message on the open stream."""

    message: Message


@dataclass(frozen=True)
class Receive:
    """Wait for the next message of the open stream; the result is ``None`` at its end."""


@dataclass(frozen=True)
class Stop:
    """Cancel the open stream."""


@dataclass(frozen=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """Run a blocking function of the caller's (an environment); the result is its result, its errors pass through."""

    function: Callable[[], Any]


@dataclass(frozen=True)
class Emit:
    """Hand a value to the caller; the result is what the caller sends back, if anything."""

    value: Any


Command = Unary | Start | Send | Receive | Stop | Sleep | Work | Emit
Program = Generator[Command, Any, T]
