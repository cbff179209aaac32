import errno
import os

import pytest
from sqlalchemy import event

from innerloop_server.domain import SessionState
from innerloop_server.errors import Exhausted
from innerloop_server.store.records import CommitStep, StepRecord


@pytest.fixture
def full_disk(monkeypatch):
    """Every flush of a file fails as it does on a full disk, until ``undo`` is called."""

    def no_space(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    return monkeypatch


def files(store) -> list[str]:
    return [path.name for path in store._blobs.path("00").parent.parent.rglob("*") if path.is_file()]


def test_a_blob_that_does_not_fit_leaves_nothing(empty, made, full_disk) -> None:
    with pytest.raises(Exhausted) as caught:
        empty.put_blob(made.weights(5))
    assert (caught.value.reason, caught.value.retry_after_seconds) == ("DISK_FULL", None)
    assert files(empty) == []
    full_disk.undo()
    assert empty.read_blob(empty.put_blob(made.weights(5))) == made.weights(5)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_session_whose_policy_does_not_fit_stays_active(store, made, session, monkeypatch, code) -> None:
    store.commit([made.step(session.id, 1)])
    before = store.counts()

    def no_space(_path, _target):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("pathlib.Path.replace", no_space)
    arguments = {"policy_id": "p1", "policy": made.weights(5), "header": {}, "reply": b"adapted"}
    with pytest.raises(Exhausted, match="full"):
        store.finish_session(session.id, **arguments)
    assert store.counts() == before
    assert store.get_session(session.id).state is SessionState.ACTIVE
    assert store.state_of(session.id) is not None
    monkeypatch.undo()
    assert store.finish_session(session.id, **arguments)[0].state is SessionState.FINISHED


def test_other_errors_of_the_disk_are_not_called_full(empty, made, monkeypatch) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="broken"):
        empty.put_blob(made.weights(5))
    assert files(empty) == []


def test_a_catalog_that_cannot_grow_loses_nothing(sqlite_only, store, made, session) -> None:
    """SQLite's own "database or disk is full", by a limit on the size of its file."""
    store.commit([made.step(session.id, 1, sequence=1)])
    engine = store._database.engine

    def limit(pages):
        def set_limit(connection, *_):
            connection.execute(f"PRAGMA max_page_count = {pages}")

        return set_limit

    with engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    squeeze = limit(pages)
    event.listen(engine, "checkout", squeeze)
    big = CommitStep(StepRecord(session.id, 2, b"reply 2", 2), os.urandom(500_000), 40, 1.0)
    with pytest.raises(Exhausted) as caught:
        store.commit([big])
    assert caught.value.reason == "DISK_FULL"
    assert store.get_session(session.id).step == 1
    assert store.state_of(session.id) == f"state 1 of {session.id}".encode()
    event.remove(engine, "checkout", squeeze)
    event.listen(engine, "checkout", limit(2**30))
    assert store.commit([big]) == frozenset()
    assert store.state_of(session.id) == big.state
