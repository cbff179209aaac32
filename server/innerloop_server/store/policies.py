"""Portable policies: who owns them, where their bytes are."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from innerloop_server.errors import NotFound
from innerloop_server.store.pages import FIRST_PAGE, Page, PageRequest, fetch
from innerloop_server.store.records import PolicyRecord
from innerloop_server.store.room import Room, owned
from innerloop_server.store.schema import POLICIES, SESSIONS


class Policies(Room):
    """Policies, each seen by its owner alone."""

    def put_policy(self, record: PolicyRecord, policy: bytes) -> PolicyRecord:
        """Keep a policy that did not come from ``finish_session``. ``blob``, ``size`` and ``created_at`` of the record
        are filled in; its id is made by ``new_id("p")``.

        Raises:
            ValueError: ``policy`` is not safetensors.
        """
        filled = {"blob": self._blobs.put(policy), "size": len(policy), "created_at": self._clock()}
        made = PolicyRecord(**{**vars(record), **filled})
        with self._database.write() as connection:
            insert_policy(connection, made)
        return made

    def get_policy(self, policy_id: str, owner: str | None = None) -> PolicyRecord:
        """A policy of ``owner`` (``None``: of anybody).

        Raises:
            NotFound: there is none, or it is somebody else's.
        """
        with self._database.read() as connection:
            return _policy(_policy_row(connection, policy_id, owner))

    def list_policies(self, owner: str | None = None, page: PageRequest = FIRST_PAGE) -> Page[PolicyRecord]:
        """The owner's policies (``None``: everybody's), the newest first."""
        query = select(POLICIES).where(owned(POLICIES, owner))
        with self._database.read() as connection:
            return fetch(connection, query, POLICIES.c.row, _policy, page, "policies", owner, newest_first=True)

    def delete_policy(self, policy_id: str, owner: str | None = None) -> None:
        """Forget a policy. Its bytes are collected later, unless another record has the same.

        Raises:
            NotFound: there is none, or it is somebody else's.
        """
        with self._database.write() as connection:
            row = _policy_row(connection, policy_id, owner)
            connection.execute(update(SESSIONS).where(SESSIONS.c.id == row.session_id).values(policy_id=None))
            connection.execute(delete(POLICIES).where(POLICIES.c.id == policy_id))


def insert_policy(connection: Connection, record: PolicyRecord) -> None:
    """Write a policy's row, within a transaction that may write more."""
    connection.execute(insert(POLICIES).values({**vars(record), "header": dict(record.header)}))


def _policy_row(connection: Connection, policy_id: str, owner: str | None) -> Row[Any]:
    query = select(POLICIES).where(POLICIES.c.id == policy_id, owned(POLICIES, owner))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"policies/{policy_id}")
    return row


def _policy(row: Row[Any]) -> PolicyRecord:
    return PolicyRecord(
        id=row.id,
        owner=row.owner,
        session_id=row.session_id,
        learner_id=row.learner_id,
        revision=row.revision,
        family=row.family,
        blob=row.blob,
        size=row.size,
        header=row.header,
        created_at=row.created_at,
    )
