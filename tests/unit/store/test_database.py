import sqlite3
import threading

import pytest
from sqlalchemy import select

from innerloop_server.store.schema import LEARNERS, STATES
from innerloop_server.store.store import Store


def test_sqlite_is_told_to_be_safe(sqlite_only, empty) -> None:
    with empty._database.read() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}  # 2: FULL


def test_foreign_keys_hold(empty) -> None:
    with pytest.raises(Exception, match=r"(?i)foreign key"), empty._database.write() as connection:
        connection.execute(STATES.insert().values(session_id="s0"))


def test_readers_do_not_wait_for_a_writer_and_see_what_is_committed(empty, made) -> None:
    with empty._database.write() as writing:
        writing.execute(LEARNERS.insert().values(id="l", owner="", spec={}, created_at=0.0))
        seen = []

        def read() -> None:
            with empty._database.read() as reading:
                seen.append(reading.execute(select(LEARNERS.c.id)).all())

        reader = threading.Thread(target=read)
        reader.start()
        reader.join(30)
    assert seen == [[]]
    with empty._database.read() as reading:
        assert reading.execute(select(LEARNERS.c.id)).scalars().all() == ["l"]


def test_nan_is_not_written_as_json(store, made) -> None:
    with pytest.raises(Exception, match="JSON compliant"):
        store.add_revision(made.spec.name, made.weights(2), {"score": float("nan")})
    assert store.counts()["revisions"] == 1


def test_a_backup_taken_from_a_living_server_opens(sqlite_only, store, made, session, tmp_path) -> None:
    """The recipe of docs/data-directory.md."""
    store.commit([made.step(session.id, 1)])
    (tmp_path / "backup").mkdir()
    source = sqlite3.connect(tmp_path / "data" / "catalog.sqlite3")
    target = sqlite3.connect(tmp_path / "backup" / "catalog.sqlite3")
    source.backup(target)
    source.close()
    target.close()
    store.commit([made.step(session.id, 2)])
    with Store.open(tmp_path / "backup") as restored:
        assert restored.get_session(session.id).step == 1
        assert restored.state_of(session.id) == f"state 1 of {session.id}".encode()
