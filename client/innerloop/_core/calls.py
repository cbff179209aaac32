"""Building blocks of programs: one call, all pages of a list, waiting where a full server says for how long."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from uuid import uuid4

from google.protobuf.message import Message

from innerloop._core.commands import Program, Rpc, Sleep, Unary
from innerloop.errors import Exhausted

T = TypeVar("T")
PAGE = 1000


def call(rpc: Rpc, request: Message, read: Callable[[Any], T]) -> Program[T]:
    """One unary call, its response read."""
    return read((yield Unary(rpc, request)))


def pages(rpc: Rpc, request: Callable[[str], Message], items: Callable[[Any], Iterable[T]]) -> Program[list[T]]:
    """All pages of a list.

    Args:
        rpc: the List method.
        request: makes the request for a page token.
        items: reads the items of one response.
    """
    found: list[T] = []
    token = ""
    while True:
        response = yield Unary(rpc, request(token))
        found.extend(items(response))
        token = response.next_page_token
        if not token:
            return found


def patient(program: Program[T]) -> Program[T]:
    """The same program, except that a unary call which a full server refuses is made again when the server says."""
    try:
        command = next(program)
        while True:
            try:
                result = yield command
            except Exhausted as error:
                if isinstance(command, Unary) and error.retry_after_seconds is not None:
                    yield Sleep(error.retry_after_seconds)
                else:
                    command = program.throw(error)
            except Exception as error:
                command = program.throw(error)
            else:
                command = program.send(result)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        program.close()


def fresh_request_id() -> str:
    """An id that makes a repeated request harmless."""
    return uuid4().hex
