"""Sessions from opening to end. The steps between are in ``journal``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Double, Row, bindparam, delete, func, insert, select, update

from innerloop_server.domain import SessionState
from innerloop_server.errors import Exhausted, NotFound, PreconditionFailed
from innerloop_server.store.catalog import revision_row
from innerloop_server.store.codec import budget_from_json, budget_to_json, task_from_json, task_to_json
from innerloop_server.store.ids import new_id
from innerloop_server.store.pages import FIRST_PAGE, Page, PageRequest, fetch
from innerloop_server.store.policies import insert_policy
from innerloop_server.store.records import NewSession, PolicyRecord, SessionRecord
from innerloop_server.store.room import Room, owned
from innerloop_server.store.schema import ENDINGS, JOURNAL, SESSIONS, STATES

_ACTIVE = SESSIONS.c.state == SessionState.ACTIVE


class Sessions(Room):
    """Leases on adaptation states."""

    def create_session(self, new: NewSession, active_limit: int | None = None) -> tuple[SessionRecord, bool]:
        """Open a session.

        Args:
            new: what it is opened with.
            active_limit: how many active sessions the owner may have, this one included; ``None``: any number.

        Returns:
            (session, True), or (the session that this owner opened with this ``request_id`` before, False).

        Raises:
            NotFound: no such revision.
            Exhausted: ``SESSION_QUOTA``.
        """
        with self._database.write() as connection:
            if new.request_id:
                same = (SESSIONS.c.owner == new.owner) & (SESSIONS.c.request_id == new.request_id)
                row = connection.execute(select(SESSIONS).where(same)).one_or_none()
                if row is not None:
                    return _session(row), False
            revision_row(connection, new.learner_id, new.revision)
            if active_limit is not None and _count_active(connection, new.owner) >= active_limit:
                raise Exhausted(
                    f"{active_limit} sessions are active; finish or cancel one, or let a lease end",
                    reason="SESSION_QUOTA",
                    retry_after_seconds=new.lease_seconds,
                    facts={"limit": str(active_limit)},
                )
            session_id = new_id("s")
            connection.execute(insert(SESSIONS).values(_opening(session_id, new, self._clock())))
            connection.execute(insert(STATES).values(session_id=session_id))
            return _session(session_row(connection, session_id)), True

    def get_session(self, session_id: str, owner: str | None = None) -> SessionRecord:
        """A session of ``owner`` (``None``: of anybody).

        Raises:
            NotFound: there is none, or it is somebody else's.
        """
        with self._database.read() as connection:
            return _session(session_row(connection, session_id, owner))

    def list_sessions(
        self, owner: str | None = None, page: PageRequest = FIRST_PAGE, state: SessionState | None = None
    ) -> Page[SessionRecord]:
        """The owner's sessions (``None``: everybody's), the newest first."""
        query = select(SESSIONS).where(owned(SESSIONS, owner))
        if state is not None:
            query = query.where(SESSIONS.c.state == state)
        with self._database.read() as connection:
            key = SESSIONS.c.row
            return fetch(connection, query, key, _session, page, "sessions", owner, state, newest_first=True)

    def count_active(self, owner: str) -> int:
        """How many active sessions an owner has."""
        with self._database.read() as connection:
            return _count_active(connection, owner)

    def touch(self, session_ids: Iterable[str], now: float | None = None) -> float:
        """Renew leases: each lasts its session's ``lease_seconds`` from ``now``. Sessions that ended are left alone,
        so a batch may hold some.

        Returns:
            ``now``, by the store's clock where none was given.
        """
        now = self._clock() if now is None else now
        renew = (
            update(SESSIONS)
            .where(SESSIONS.c.id == bindparam("session"), _ACTIVE)
            .values(expires_at=bindparam("now", type_=Double) + SESSIONS.c.lease_seconds)
        )
        batch = [{"session": session_id, "now": now} for session_id in session_ids]
        if batch:
            with self._database.write() as connection:
                connection.execute(renew, batch)
        return now

    def finish_session(
        self,
        session_id: str,
        *,
        policy_id: str,
        policy: bytes,
        header: Mapping[str, Any],
        reply: bytes,
        sequence: int | None = None,
        reason: str = "",
    ) -> tuple[SessionRecord, PolicyRecord]:
        """End a session with its policy. The state goes; steps and reply stay until the lease ends, for a client that
        lost its connection at the last moment.

        Args:
            session_id: an active session.
            policy_id: made by ``new_id("p")``, since ``reply`` names it.
            policy: the policy file (safetensors bytes).
            header: its header as JSON values.
            reply: opaque; what ``reply_for_sequence`` and ``final_reply`` answer.
            sequence: the client message that caused it; ``None``: the budget did.
            reason: for people.

        Raises:
            NotFound: no such session.
            PreconditionFailed: ``SESSION_ENDED``.
        """
        blob = self._blobs.put(policy)
        now = self._clock()
        with self._database.write() as connection:
            row = _active_row(connection, session_id)
            made = PolicyRecord(
                id=policy_id,
                owner=row.owner,
                session_id=session_id,
                learner_id=row.learner_id,
                revision=row.revision,
                family=row.family,
                blob=blob,
                size=len(policy),
                header=header,
                created_at=now,
            )
            insert_policy(connection, made)
            last_sequence = max(row.last_sequence, sequence or 0)
            extra = {"policy_id": policy_id, "last_sequence": last_sequence}
            _end(connection, SESSIONS.c.id == session_id, SessionState.FINISHED, reason, now, **extra)
            connection.execute(delete(STATES).where(STATES.c.session_id == session_id))
            connection.execute(insert(ENDINGS).values(session_id=session_id, sequence=sequence, reply=reply))
            return _session(session_row(connection, session_id)), made

    def cancel_session(self, session_id: str, owner: str | None = None, reason: str = "") -> SessionRecord:
        """End a session with nothing; its journal goes at once. Cancelling a cancelled session changes nothing.

        Raises:
            NotFound: there is none, or it is somebody else's.
            PreconditionFailed: ``SESSION_ENDED``; it finished or expired before.
        """
        with self._database.write() as connection:
            if session_row(connection, session_id, owner).state != SessionState.CANCELLED:
                _active_row(connection, session_id)
                _end(connection, SESSIONS.c.id == session_id, SessionState.CANCELLED, reason, self._clock())
                drop_journal(connection, [session_id])
            return _session(session_row(connection, session_id))

    def expire(self, now: float | None = None) -> tuple[str, ...]:
        """End the active sessions whose lease has ended, journals and all, and name them."""
        now = self._clock() if now is None else now
        over = _ACTIVE & (SESSIONS.c.expires_at <= now)
        with self._database.read() as connection:
            if connection.execute(select(SESSIONS.c.id).where(over).limit(1)).one_or_none() is None:
                return ()  # the usual case, and it keeps no writer waiting
        with self._database.write() as connection:
            ids = connection.execute(select(SESSIONS.c.id).where(over).order_by(SESSIONS.c.row)).scalars().all()
            _end(connection, over, SessionState.EXPIRED, "its lease ended", now)
            drop_journal(connection, ids)
            return tuple(ids)


def session_row(connection: Connection, session_id: str, owner: str | None = None) -> Row[Any]:
    """The row of a session of ``owner`` (``None``: of anybody).

    Raises:
        NotFound: there is none.
    """
    query = select(SESSIONS).where(SESSIONS.c.id == session_id, owned(SESSIONS, owner))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"sessions/{session_id}")
    return row


def drop_journal(connection: Connection, session_ids: Iterable[str]) -> None:
    """Remove steps, states and final replies of these sessions."""
    batch = [{"session": session_id} for session_id in session_ids]
    for table in JOURNAL if batch else ():
        connection.execute(delete(table).where(table.c.session_id == bindparam("session")), batch)


def _count_active(connection: Connection, owner: str) -> int:
    query = select(func.count()).select_from(SESSIONS).where(SESSIONS.c.owner == owner, _ACTIVE)
    return connection.execute(query).scalar_one()


def _active_row(connection: Connection, session_id: str) -> Row[Any]:
    row = session_row(connection, session_id)
    if row.state != SessionState.ACTIVE:
        raise PreconditionFailed(
            f"session {session_id} is {row.state}; open another",
            reason="SESSION_ENDED",
            facts={"session": session_id, "state": row.state},
        )
    return row


def _end(
    connection: Connection, which: ColumnElement[bool], state: SessionState, reason: str, now: float, **values: Any
) -> None:
    statement = update(SESSIONS).where(which).values(state=state, end_reason=reason, updated_at=now, **values)
    connection.execute(statement)


def _opening(session_id: str, new: NewSession, now: float) -> dict[str, Any]:
    return {
        "id": session_id,
        "owner": new.owner,
        "request_id": new.request_id or None,
        "state": SessionState.ACTIVE,
        "learner_id": new.learner_id,
        "revision": new.revision,
        "family": new.family,
        "simulated": new.simulated,
        "task": None if new.task is None else task_to_json(new.task),
        "options": dict(new.options),
        "budget": budget_to_json(new.budget),
        "seed": new.seed,
        "lease_seconds": new.lease_seconds,
        "expires_at": now + new.lease_seconds,
        "created_at": now,
        "updated_at": now,
        "step": 0,
        "episodes": 0,
        "seconds": 0.0,
        "last_sequence": 0,
        "end_reason": "",
    }


def _session(row: Row[Any]) -> SessionRecord:
    return SessionRecord(
        id=row.id,
        owner=row.owner,
        request_id=row.request_id or "",
        state=SessionState(row.state),
        learner_id=row.learner_id,
        revision=row.revision,
        family=row.family,
        simulated=row.simulated,
        task=None if row.task is None else task_from_json(row.task),
        options=row.options,
        budget=budget_from_json(row.budget),
        seed=row.seed,
        lease_seconds=row.lease_seconds,
        expires_at=row.expires_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        step=row.step,
        episodes=row.episodes,
        seconds=row.seconds,
        last_sequence=row.last_sequence,
        policy_id=row.policy_id,
        end_reason=row.end_reason,
    )
