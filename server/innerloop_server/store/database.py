"""The database: an engine, how transactions begin, and nothing that knows a table.

Writers of this process take turns behind one lock; readers see the last committed state without waiting. With
SQLite a commit is on disk when it returns (WAL, ``synchronous=FULL``).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

from innerloop_server.store.failures import translated

_WRITES = "innerloop_writes"
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000")


class Database:
    """A pool of connections shared by the threads of one process."""

    def __init__(self, url: str | URL) -> None:
        # NaN is refused rather than written: it is not JSON, and PostgreSQL would not take it.
        dumps = partial(json.dumps, allow_nan=False, separators=(",", ":"))
        self.engine: Engine = create_engine(url, json_serializer=dumps, pool_size=8, max_overflow=32)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _set_up_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self._writer = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads. Raises what :func:`translated` names."""
        with translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write: all of the block or nothing. Not reentrant. Raises what :func:`translated`
        names.
        """
        with self._writer, translated(), self.engine.connect() as connection:
            connection.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Close every connection; idempotent."""
        self.engine.dispose()


def _set_up_sqlite(connection: Any, _record: object) -> None:
    # The driver would begin transactions on its own terms (late, and never around DDL); we say BEGIN ourselves.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE takes the write lock now; a deferred one could fail in the middle when it upgrades.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
