"""Bringing a database to the schema of this code, when the store is opened."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from innerloop_server.errors import PreconditionFailed

_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(connection: Connection) -> None:
    """Run the migrations that are missing, in the transaction of ``connection``: all of them or none.

    Raises:
        PreconditionFailed: ``SCHEMA_TOO_NEW``; a later version of this software wrote the database. It is not touched.
    """
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    head = script.get_current_head() or ""
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in known:
        raise PreconditionFailed(
            f"the catalog has schema {found}, and this innerloop knows schemas up to {head}; "
            "update innerloop, or restore the backup made before the later version ran",
            reason="SCHEMA_TOO_NEW",
            facts={"found": found, "known": head},
        )
    if found != head:
        command.upgrade(config, "head")
