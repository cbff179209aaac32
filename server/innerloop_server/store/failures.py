"""The one place where the errors of disks and databases become ours."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from innerloop_server.errors import DataLoss, Exhausted, InnerloopError, Unavailable

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SQLSTATE_DISK_FULL = "53100"
_UNAVAILABLE = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
)


@contextmanager
def translated() -> Iterator[None]:
    """Run a block that touches the disk or the database.

    Raises:
        Exhausted: ``DISK_FULL``; what was being written is undone, what was there stays.
        DataLoss: ``CATALOG_DAMAGED``; the database file is no longer one.
        Unavailable: ``CATALOG_UNAVAILABLE``; the database is locked or unreadable, or the connection is gone.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full() from error
        raise
    except DBAPIError as error:
        ours = _from_database(error)
        if ours is None:
            raise
        raise ours from error


def disk_full() -> Exhausted:
    """The error of a full disk: trying again helps only once somebody has made room."""
    return Exhausted(
        "the disk that holds the data directory is full; nothing was lost, free some space and try again",
        reason="DISK_FULL",
        retry_after_seconds=None,
    )


def _from_database(error: DBAPIError) -> InnerloopError | None:
    # sqlite3 carries SQLite's extended code (its low byte is the primary one), psycopg a SQLSTATE.
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    if code == sqlite3.SQLITE_FULL or state == _SQLSTATE_DISK_FULL:
        return disk_full()
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DataLoss("the catalog's file is damaged; restore it from a backup", reason="CATALOG_DAMAGED")
    if code in _UNAVAILABLE or error.connection_invalidated:
        return Unavailable("the catalog's database does not answer", reason="CATALOG_UNAVAILABLE")
    return None
