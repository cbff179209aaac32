"""The store: everything that outlives the server's process, behind one class.

The gateway process owns it. Its methods block on the disk, so the event loop calls them by ``asyncio.to_thread``;
any thread may call any method. ``docs/data-directory.md`` shows what lies where.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from sqlalchemy import URL

from innerloop_server.store.blobs import Blobs
from innerloop_server.store.catalog import Catalog
from innerloop_server.store.database import Database
from innerloop_server.store.evaluations import Evaluations
from innerloop_server.store.failures import translated
from innerloop_server.store.housekeeping import Housekeeping
from innerloop_server.store.journal import Journal
from innerloop_server.store.lock import DirectoryLock
from innerloop_server.store.migrate import upgrade
from innerloop_server.store.policies import Policies
from innerloop_server.store.trainings import Forgotten, Trainings
from innerloop_server.store.weights import Weights


class Store(Catalog, Weights, Journal, Policies, Evaluations, Trainings, Housekeeping):
    """All rooms of the store under one name (sessions come with ``Housekeeping``). Make one with :meth:`open`."""

    def __init__(
        self, data_dir: Path, database: Database, blobs: Blobs, lock: DirectoryLock, clock: Callable[[], float]
    ) -> None:
        super().__init__(database, blobs, clock)
        self._data_dir = data_dir
        self._lock = lock

    @classmethod
    def open(cls, data_dir: Path, database_url: str = "", clock: Callable[[], float] = time.time) -> Store:
        """Open a data directory, made if it is not there, and bring its schema up to date.

        Args:
            data_dir: where everything lies.
            database_url: SQLAlchemy URL of the catalog; empty: ``catalog.sqlite3`` in ``data_dir``.
            clock: gives Unix seconds.

        Raises:
            PreconditionFailed: ``DATA_DIR_IN_USE`` (another server), or ``SCHEMA_TOO_NEW`` (a later version wrote it).
            Exhausted: ``DISK_FULL``.
            DataLoss: ``CATALOG_DAMAGED``.
        """
        with ExitStack() as undo, translated():
            data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = DirectoryLock(data_dir)
            undo.callback(lock.release)
            local = URL.create("sqlite", database=str(data_dir / "catalog.sqlite3"))
            database = Database(database_url or local)
            undo.callback(database.close)
            with database.write() as connection:
                upgrade(connection)
            store = cls(data_dir, database, Blobs(data_dir / "blobs", clock), lock, clock)
            undo.pop_all()
            return store

    def training_dir(self, training_id: str) -> Path:
        """The directory, made if it is not there, where the trainer keeps a training's checkpoints and metric log."""
        directory = self._data_dir / "trainings" / training_id
        with translated():
            directory.mkdir(parents=True, exist_ok=True)
        return directory

    def forget_learners(self, learner_ids: Collection[str]) -> Forgotten:
        """As :meth:`.Trainings.forget_learners`; what their trainers wrote goes too."""
        forgotten = super().forget_learners(learner_ids)
        for training_id in forgotten.trainings:
            shutil.rmtree(self._data_dir / "trainings" / training_id, ignore_errors=True)
        return forgotten

    def close(self) -> None:
        """Close the database and let the next server in; idempotent. No other call may follow or be under way."""
        self._database.close()
        self._lock.release()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
