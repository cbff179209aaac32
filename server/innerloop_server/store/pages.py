"""Keyset pagination: a page token names the last key that was seen, so inserts move nothing between pages."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Column, Connection, Row, Select

from innerloop_server.errors import InvalidField

T = TypeVar("T")

DEFAULT_SIZE = 50
LARGEST_SIZE = 1_000


@dataclass(frozen=True)
class Page(Generic[T]):
    """Part of a list."""

    items: tuple[T, ...]
    next_token: str
    """Opaque; empty on the last page."""


@dataclass(frozen=True)
class PageRequest:
    """Which part of a list is wanted."""

    size: int = 0
    """At most this many items; 0: 50; more than 1000 counts as 1000."""
    token: str = ""
    """``next_token`` of the page before; empty: the first page."""


FIRST_PAGE = PageRequest()


def fetch(
    connection: Connection,
    query: Select[Any],
    key: Column[Any],
    make: Callable[[Row[Any]], T],
    page: PageRequest,
    *scope: object,
    newest_first: bool = False,
) -> Page[T]:
    """One page of a query.

    Args:
        connection: an open transaction.
        query: what to list, unordered; ``key`` is among its columns.
        key: unique column that orders the list.
        make: turns a row into an item.
        page: which page.
        scope: the list's name and filters; a token is good for the scope that it came from.
        newest_first: descending order of ``key``.

    Raises:
        InvalidField: ``page_size`` is negative, or ``page_token`` is no token of this list.
    """
    if page.size < 0:
        raise InvalidField("page_size", f"is {page.size}; give 0 for the default of {DEFAULT_SIZE}, or more")
    size = min(page.size or DEFAULT_SIZE, LARGEST_SIZE)
    if page.token:
        last = _decode(page.token, scope, key.type.python_type)
        query = query.where(key < last if newest_first else key > last)
    rows = connection.execute(query.order_by(key.desc() if newest_first else key.asc()).limit(size + 1)).all()
    more = len(rows) > size
    rows = rows[:size]
    token = _encode(getattr(rows[-1], key.name), scope) if more else ""
    return Page(tuple(make(row) for row in rows), token)


def _encode(last: object, scope: tuple[object, ...]) -> str:
    return base64.urlsafe_b64encode(json.dumps([_fingerprint(scope), last]).encode()).decode("ascii").rstrip("=")


def _decode(token: str, scope: tuple[object, ...], kind: type) -> Any:
    try:
        fingerprint, last = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True))
        if fingerprint != _fingerprint(scope) or type(last) is not kind or not _storable(last):
            raise ValueError(token)
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise InvalidField(
            "page_token",
            "is not a token of this list; send next_page_token of the page before, with the same filters, or nothing",
        ) from error
    return last


def _storable(last: object) -> bool:
    """No database driver chokes on it: integers of 64 bits, text without NUL or lone surrogates."""
    if isinstance(last, int):
        return -(2**63) <= last < 2**63
    return isinstance(last, str) and "\0" not in last and not any("\ud800" <= c <= "\udfff" for c in last)


def _fingerprint(scope: tuple[object, ...]) -> str:
    return hashlib.sha256(repr(scope).encode()).hexdigest()[:12]
