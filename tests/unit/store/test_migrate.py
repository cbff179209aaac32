"""``data/version1.sql`` is a catalog as schema version 1 wrote it, dumped. It is never written again."""

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from innerloop_server.domain import SessionState
from innerloop_server.errors import DataLoss, PreconditionFailed
from innerloop_server.store.schema import METADATA
from innerloop_server.store.store import Store

VERSION_1 = Path(__file__).parent / "data" / "version1.sql"
SESSION, FINISHED = "s00000000000000000002", "s00000000000000000003"


def catalog(directory: Path) -> sqlite3.Connection:
    directory.mkdir(parents=True, exist_ok=True)
    return sqlite3.connect(directory / "catalog.sqlite3")


def version(directory: Path) -> str:
    connection = catalog(directory)
    (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    connection.close()
    return found


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    connection = catalog(tmp_path)
    connection.executescript(VERSION_1.read_text())
    connection.close()
    return tmp_path


def test_migrations_end_at_the_schema_of_the_code(empty) -> None:
    with empty._database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, METADATA) == []


def test_a_file_of_version_1_is_brought_to_head(version_1, made, clock) -> None:
    assert version(version_1) == "0001"
    with Store.open(version_1, clock=clock) as store:
        assert store.get_learner(made.spec.name).champion == 1
        assert store.get_learner(made.spec.name).spec == made.spec
        session = store.get_session(SESSION, "ann")
        assert (session.state, session.step, session.last_sequence, session.request_id) == (
            SessionState.ACTIVE,
            2,
            6,
            "r1",
        )
        assert session.task.parameters["goal"].tolist() == made.task.parameters["goal"].tolist()
        assert store.reply_for_sequence(SESSION, 4) == b"reply 1"
        assert store.final_reply(FINISHED) == b"adapted"
        assert store.list_policies("bob").items[0].header == {"architecture": "mlp"}
        # both what was there and what is new can be used
        assert store.commit([made.step(SESSION, 3)]) == frozenset()
        store.create_evaluation({})
        store.create_training(made.spec.name, {}, 0, 1)
    assert version(version_1) == "0003"


def test_opening_again_migrates_nothing(empty, open_store, made) -> None:
    empty.put_learner(made.spec)
    empty.close()
    assert open_store().get_learner(made.spec.name).spec == made.spec


def test_a_failed_migration_leaves_the_old_version(version_1, monkeypatch) -> None:
    connection = catalog(version_1)
    connection.execute("CREATE TABLE trainings (x)")  # in the way of the last table of version 2
    connection.commit()
    with pytest.raises(Exception, match="trainings"):
        Store.open(version_1)
    assert version(version_1) == "0001"
    assert not connection.execute("SELECT * FROM sqlite_master WHERE name = 'evaluations'").fetchall()
    connection.execute("DROP TABLE trainings")
    connection.commit()
    connection.close()
    Store.open(version_1).close()
    assert version(version_1) == "0003"


def test_a_schema_newer_than_the_code_is_refused_untouched(version_1) -> None:
    Store.open(version_1).close()
    connection = catalog(version_1)
    connection.execute("UPDATE alembic_version SET version_num = '0099'")
    connection.commit()
    connection.close()
    with pytest.raises(PreconditionFailed, match="update innerloop") as caught:
        Store.open(version_1)
    assert caught.value.reason == "SCHEMA_TOO_NEW"
    assert caught.value.facts == {"found": "0099", "known": "0003"}
    assert version(version_1) == "0099"


def test_a_file_that_is_no_catalog_is_a_loss(tmp_path) -> None:
    (tmp_path / "catalog.sqlite3").write_bytes(b"not a database " * 1000)
    with pytest.raises(DataLoss) as caught:
        Store.open(tmp_path)
    assert caught.value.reason == "CATALOG_DAMAGED"
