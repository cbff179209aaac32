"""Learners and their revisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import AlreadyExists, NotFound, PreconditionFailed
from innerloop_server.store.codec import spec_from_json, spec_to_json
from innerloop_server.store.pages import FIRST_PAGE, Page, PageRequest, fetch
from innerloop_server.store.records import LearnerRecord, RevisionRecord
from innerloop_server.store.room import Room, readable
from innerloop_server.store.schema import LEARNERS, REVISIONS


class Catalog(Room):
    """Learners, revisions, and who is champion."""

    def put_learner(self, spec: LearnerSpec, owner: str = "") -> LearnerRecord:
        """Keep a learner under ``spec.name``; the same spec again gives the one that exists.

        Raises:
            AlreadyExists: the name is taken by another spec or owner.
        """
        with self._database.write() as connection:
            row = connection.execute(select(LEARNERS).where(LEARNERS.c.id == spec.name)).one_or_none()
            if row is not None:
                if row.owner != owner or row.spec != spec_to_json(spec):
                    raise AlreadyExists(f"learner {spec.name} exists and differs; choose another name")
                return _learner(row)
            values = {"id": spec.name, "owner": owner, "spec": spec_to_json(spec), "created_at": self._clock()}
            connection.execute(insert(LEARNERS).values(values))
            return _learner(_learner_row(connection, spec.name, None))

    def get_learner(self, learner_id: str, owner: str | None = None) -> LearnerRecord:
        """A learner of ``owner`` or of the server (``None``: of anybody).

        Raises:
            NotFound: there is none.
        """
        with self._database.read() as connection:
            return _learner(_learner_row(connection, learner_id, owner))

    def list_learners(self, owner: str | None = None, page: PageRequest = FIRST_PAGE) -> Page[LearnerRecord]:
        """The learners that ``owner`` may read, by id."""
        query = select(LEARNERS).where(readable(LEARNERS, owner))
        with self._database.read() as connection:
            return fetch(connection, query, LEARNERS.c.id, _learner, page, "learners", owner)

    def add_revision(self, learner_id: str, weights: bytes, manifest: Mapping[str, Any]) -> RevisionRecord:
        """Keep meta-parameters (safetensors bytes) as the learner's next revision.

        Raises:
            NotFound: no such learner.
            ValueError: ``weights`` is not safetensors.
        """
        blob = self._blobs.put(weights)
        with self._database.write() as connection:
            _learner_row(connection, learner_id, None)
            of_learner = REVISIONS.c.learner_id == learner_id
            last = connection.execute(select(func.max(REVISIONS.c.number)).where(of_learner)).scalar_one()
            number = (last or 0) + 1
            connection.execute(
                insert(REVISIONS).values(
                    learner_id=learner_id,
                    number=number,
                    blob=blob,
                    manifest=dict(manifest),
                    promoted=False,
                    created_at=self._clock(),
                )
            )
            return _revision(revision_row(connection, learner_id, number))

    def get_revision(self, learner_id: str, number: int) -> RevisionRecord:
        """One revision.

        Raises:
            NotFound: there is none.
        """
        with self._database.read() as connection:
            return _revision(revision_row(connection, learner_id, number))

    def list_revisions(self, learner_id: str, page: PageRequest = FIRST_PAGE) -> Page[RevisionRecord]:
        """A learner's revisions, the newest first.

        Raises:
            NotFound: no such learner.
        """
        query = select(REVISIONS).where(REVISIONS.c.learner_id == learner_id)
        with self._database.read() as connection:
            _learner_row(connection, learner_id, None)
            key = REVISIONS.c.number
            return fetch(connection, query, key, _revision, page, "revisions", learner_id, newest_first=True)

    def promote(self, learner_id: str, number: int) -> LearnerRecord:
        """Make a revision champion: new sessions take it. Promoting the champion changes nothing.

        Raises:
            NotFound: no such revision.
        """
        with self._database.write() as connection:
            revision_row(connection, learner_id, number)
            before = _learner_row(connection, learner_id, None)
            if before.champion != number:
                _crown(connection, learner_id, number, before.champion)
            return _learner(_learner_row(connection, learner_id, None))

    def roll_back(self, learner_id: str) -> LearnerRecord:
        """Make the champion before this one champion again. Only one step back is kept.

        Raises:
            NotFound: no such learner.
            PreconditionFailed: ``NO_PREVIOUS_CHAMPION``.
        """
        with self._database.write() as connection:
            before = _learner_row(connection, learner_id, None)
            if before.previous_champion is None:
                raise PreconditionFailed(
                    f"learner {learner_id} has no champion to go back to; promote a revision by number",
                    reason="NO_PREVIOUS_CHAMPION",
                    facts={"learner": learner_id},
                )
            _crown(connection, learner_id, before.previous_champion, None)
            return _learner(_learner_row(connection, learner_id, None))


def revision_row(connection: Connection, learner_id: str, number: int) -> Row[Any]:
    """The row of a revision.

    Raises:
        NotFound: there is none.
    """
    query = select(REVISIONS).where(REVISIONS.c.learner_id == learner_id, REVISIONS.c.number == number)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"learners/{learner_id}/revisions/{number}")
    return row


def _crown(connection: Connection, learner_id: str, champion: int, previous: int | None) -> None:
    is_champion = (REVISIONS.c.learner_id == learner_id) & (REVISIONS.c.number == champion)
    connection.execute(update(REVISIONS).where(is_champion).values(promoted=True))
    values = {"champion": champion, "previous_champion": previous}
    connection.execute(update(LEARNERS).where(LEARNERS.c.id == learner_id).values(values))


def _learner_row(connection: Connection, learner_id: str, owner: str | None) -> Row[Any]:
    query = select(LEARNERS).where(LEARNERS.c.id == learner_id, readable(LEARNERS, owner))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"learners/{learner_id}")
    return row


def _learner(row: Row[Any]) -> LearnerRecord:
    return LearnerRecord(
        id=row.id,
        owner=row.owner,
        spec=spec_from_json(row.spec),
        champion=row.champion,
        previous_champion=row.previous_champion,
        created_at=row.created_at,
    )


def _revision(row: Row[Any]) -> RevisionRecord:
    return RevisionRecord(
        learner_id=row.learner_id,
        number=row.number,
        blob=row.blob,
        manifest=row.manifest,
        promoted=row.promoted,
        created_at=row.created_at,
    )
