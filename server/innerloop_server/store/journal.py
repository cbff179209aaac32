"""The journal: durable adaptation steps, and the latest state of each session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from innerloop_server.domain import SessionState
from innerloop_server.errors import PreconditionFailed
from innerloop_server.store.records import CommitStep, StepRecord
from innerloop_server.store.room import Room
from innerloop_server.store.schema import ENDINGS, SESSIONS, STATES, STEPS


class Journal(Room):
    """What makes a step durable before it is acknowledged."""

    def commit(self, steps: Sequence[CommitStep]) -> frozenset[str]:
        """Make one tick of many sessions durable: one transaction, one flush of the disk, all or nothing.

        Args:
            steps: at most one a session, each the one after the session's last.

        Returns:
            Ids of sessions that are no longer active (cancelled or expired meanwhile): their steps were left out.

        Raises:
            PreconditionFailed: ``STEP_OUT_OF_ORDER``; nothing of the tick was applied.
        """
        if not steps:
            return frozenset()
        now = self._clock()
        ids = [each.step.session_id for each in steps]
        with self._database.write() as connection:
            columns = (SESSIONS.c.id, SESSIONS.c.step, SESSIONS.c.last_sequence)
            active = (SESSIONS.c.id.in_(ids)) & (SESSIONS.c.state == SessionState.ACTIVE)
            before = {
                row.id: (row.step, row.last_sequence) for row in connection.execute(select(*columns).where(active))
            }
            live = [each for each in steps if each.step.session_id in before]
            if live:
                updates = [_update(each, *before[each.step.session_id], now) for each in live]
                connection.execute(_ADVANCE, updates)
                connection.execute(insert(STEPS), [vars(each.step) for each in live])
                connection.execute(_KEEP_STATE, [{"session": e.step.session_id, "latest": e.state} for e in live])
        return frozenset(ids) - before.keys()

    def steps_after(self, session_id: str, number: int) -> list[StepRecord]:
        """A session's steps past ``number``, in order; none once the journal is gone."""
        query = select(STEPS).where(STEPS.c.session_id == session_id, STEPS.c.number > number)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(STEPS.c.number)).all()
        return [StepRecord(row.session_id, row.number, row.reply, row.sequence) for row in rows]

    def reply_for_sequence(self, session_id: str, sequence: int) -> bytes | None:
        """What was answered to a client message that ended the session or caused a step (the last step, where it
        caused several); ``None`` where it did neither, or the journal is gone.
        """
        ending = select(ENDINGS.c.reply).where(ENDINGS.c.session_id == session_id, ENDINGS.c.sequence == sequence)
        step = select(STEPS.c.reply).where(STEPS.c.session_id == session_id, STEPS.c.sequence == sequence)
        with self._database.read() as connection:
            found = connection.execute(ending).scalar_one_or_none()
            if found is None:
                last = step.order_by(STEPS.c.number.desc()).limit(1)
                found = connection.execute(last).scalar_one_or_none()
        return found

    def final_reply(self, session_id: str) -> bytes | None:
        """What a finished session answered last; ``None`` before its end, and once the journal is gone."""
        query = select(ENDINGS.c.reply).where(ENDINGS.c.session_id == session_id)
        with self._database.read() as connection:
            return connection.execute(query).scalar_one_or_none()

    def state_of(self, session_id: str) -> bytes | None:
        """The adaptation state as of the session's ``step``; ``None`` before the first step and after the end."""
        query = select(STATES.c.state).where(STATES.c.session_id == session_id)
        with self._database.read() as connection:
            return connection.execute(query).scalar_one_or_none()


_ADVANCE = (
    update(SESSIONS)
    .where(SESSIONS.c.id == bindparam("session"))
    .values(
        step=bindparam("step"),
        episodes=bindparam("episodes"),
        seconds=bindparam("seconds"),
        last_sequence=bindparam("last_sequence"),
        updated_at=bindparam("updated_at"),
    )
)
_KEEP_STATE = update(STATES).where(STATES.c.session_id == bindparam("session")).values(state=bindparam("latest"))


def _update(each: CommitStep, last_step: int, last_sequence: int, now: float) -> dict[str, Any]:
    session_id, number, sequence = each.step.session_id, each.step.number, each.step.sequence
    if number != last_step + 1:
        raise PreconditionFailed(
            f"step {number} of session {session_id} cannot follow step {last_step}",
            reason="STEP_OUT_OF_ORDER",
            facts={"session": session_id, "step": str(number), "last": str(last_step)},
        )
    effective = sequence if each.last_sequence is None else each.last_sequence
    return {
        "session": session_id,
        "step": number,
        "episodes": each.episodes,
        "seconds": each.seconds,
        "last_sequence": max(last_sequence, effective or 0),
        "updated_at": now,
    }
