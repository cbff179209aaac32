"""Pages: what a List request asks for, and pages of lists that are already in memory."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from innerloop_server.errors import InvalidField
from innerloop_server.store.pages import Page, PageRequest

T = TypeVar("T")

DEFAULT_SIZE = 100
LARGEST_SIZE = 1_000
_LONGEST_TOKEN = 1_024


class _Paged(Protocol):
    @property
    def page_size(self) -> int: ...
    @property
    def page_token(self) -> str: ...


def page_request(message: _Paged) -> PageRequest:
    """What a List request asks for, the contract's default filled in.

    Raises:
        InvalidField: ``page_size`` is negative, or ``page_token`` is longer than any of ours.
    """
    if message.page_size < 0:
        raise InvalidField("page_size", f"is {message.page_size}; give 0 for the default of {DEFAULT_SIZE}, or more")
    if len(message.page_token) > _LONGEST_TOKEN:
        raise InvalidField("page_token", "is too long; send next_page_token of the page before, or nothing")
    return PageRequest(min(message.page_size or DEFAULT_SIZE, LARGEST_SIZE), message.page_token)


def page_of(items: Iterable[T], key: Callable[[T], str], page: PageRequest, scope: str) -> Page[T]:
    """One page of a list in memory, in ascending order of ``key``. Insertions between pages move nothing.

    Args:
        items: the whole list, in any order.
        key: what orders it; unique.
        page: what :func:`page_request` gave.
        scope: name of the list and its filters; a token is good for the scope it came from.

    Raises:
        InvalidField: ``page_token`` is no token of this list.
    """
    after = _decode(page.token, scope) if page.token else ""
    rest = sorted((item for item in items if key(item) > after), key=key)
    shown = tuple(rest[: page.size])
    more = len(rest) > len(shown)
    return Page(shown, _encode(key(shown[-1]), scope) if more else "")


def _encode(last: str, scope: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([scope, last]).encode()).decode("ascii").rstrip("=")


def _decode(token: str, scope: str) -> str:
    try:
        came, last = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True))
        if came != scope or not isinstance(last, str):
            raise ValueError(token)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidField(
            "page_token",
            "is not a token of this list; send next_page_token of the page before, with the same filters, or nothing",
        ) from error
    return last
