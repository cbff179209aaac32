"""Garbage collection: what nobody can ask for any more."""

from __future__ import annotations

from sqlalchemy import delete, exists, func, or_, select

from innerloop_server.domain import SessionState
from innerloop_server.store.failures import translated
from innerloop_server.store.records import Collected
from innerloop_server.store.schema import ENDINGS, METADATA, POLICIES, REVISIONS, SESSIONS, STEPS
from innerloop_server.store.sessions import Sessions, drop_journal

GRACE_SECONDS = 3_600.0
"""A blob younger than this is kept though nothing refers to it: somebody may be about to."""
RETENTION_SECONDS = 7 * 86_400.0
"""How long the record of an ended session can be read after its lease."""


class Housekeeping(Sessions):
    """Removes, and counts."""

    def collect(
        self,
        now: float | None = None,
        *,
        grace_seconds: float = GRACE_SECONDS,
        retention_seconds: float = RETENTION_SECONDS,
    ) -> Collected:
        """Expire sessions; then remove the journals of sessions whose lease has ended, records of sessions that ended
        long ago, and blobs that no revision and no policy refers to.
        """
        now = self._clock() if now is None else now
        expired = self.expire(now)
        ended = (SESSIONS.c.state != SessionState.ACTIVE) & (SESSIONS.c.expires_at <= now)
        journaled = or_(*(exists().where(table.c.session_id == SESSIONS.c.id) for table in (STEPS, ENDINGS)))
        old = (SESSIONS.c.state != SessionState.ACTIVE) & (SESSIONS.c.expires_at <= now - retention_seconds)
        with self._database.write() as connection:
            ids = connection.execute(select(SESSIONS.c.id).where(ended, journaled)).scalars().all()
            drop_journal(connection, ids)
            sessions = connection.execute(delete(SESSIONS).where(old)).rowcount
        # A blob that is put after this look at the catalog is young, so what the look missed is safe.
        with self._database.read() as connection:
            referenced = {
                *connection.execute(select(REVISIONS.c.blob)).scalars(),
                *connection.execute(select(POLICIES.c.blob)).scalars(),
            }
        with translated():
            sizes = self._blobs.remove_unreferenced(referenced, now - grace_seconds)
        return Collected(expired, len(expired) + len(ids), sessions, len(sizes), sum(sizes))

    def counts(self) -> dict[str, int]:
        """Rows of each table by its name, and files as ``blobs``: for tests and metrics."""
        with self._database.read() as connection:
            rows = {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in METADATA.sorted_tables
            }
        return {**rows, "blobs": self._blobs.count()}
