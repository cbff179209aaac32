"""What every part of the store stands on."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import ColumnElement, Table, or_, true

from innerloop_server.store.blobs import Blobs
from innerloop_server.store.database import Database


class Room:
    """A part of the store: some tables, and the methods that alone touch them. ``Store`` is all rooms under one name.

    Methods may be called from any thread. Each is one transaction, and raises what ``failures.translated`` names
    beside its own errors.
    """

    def __init__(self, database: Database, blobs: Blobs, clock: Callable[[], float]) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock


def owned(table: Table, owner: str | None) -> ColumnElement[bool]:
    """Rows of ``owner`` alone; ``None``: of anybody."""
    return true() if owner is None else table.c.owner == owner


def readable(table: Table, owner: str | None) -> ColumnElement[bool]:
    """Rows that ``owner`` may read: its own and the server's; ``None``: all."""
    return true() if owner is None else or_(table.c.owner == owner, table.c.owner == "")
