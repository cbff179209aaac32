"""Trainings: which run, and how far they are. Their checkpoints and metric logs are files of the trainer's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from innerloop_server.errors import NotFound
from innerloop_server.store.ids import new_id
from innerloop_server.store.pages import FIRST_PAGE, Page, PageRequest, fetch
from innerloop_server.store.records import TrainingRecord, TrainingState
from innerloop_server.store.room import Room, readable
from innerloop_server.store.schema import LEARNERS, REVISIONS, TRAININGS


@dataclass(frozen=True)
class Forgotten:
    """What came of forgetting learners."""

    in_use: tuple[str, ...]
    """Ids of learners that have a revision or a training that runs; where there are any, everything stayed."""
    trainings: tuple[str, ...]
    """Ids of the trainings that are gone."""


class Trainings(Room):
    """Trainings belong to who started them; the server's own can be read by all."""

    def create_training(
        self, learner_id: str, settings: Mapping[str, Any], seed: int, updates: int, owner: str = ""
    ) -> TrainingRecord:
        """Note a training that is about to run.

        Args:
            learner_id: an existing learner.
            settings: JSON values; opaque.
            seed: non-negative, below 2^63.
            updates: meta-updates asked for.
            owner: who started it.

        Raises:
            NotFound: no such learner.
        """
        now = self._clock()
        training_id = new_id("t")
        with self._database.write() as connection:
            if connection.execute(select(LEARNERS.c.id).where(LEARNERS.c.id == learner_id)).one_or_none() is None:
                raise NotFound(f"learners/{learner_id}")
            connection.execute(
                insert(TRAININGS).values(
                    id=training_id,
                    owner=owner,
                    learner_id=learner_id,
                    settings=dict(settings),
                    state=TrainingState.RUNNING,
                    seed=seed,
                    update=0,
                    updates=updates,
                    error="",
                    created_at=now,
                    updated_at=now,
                )
            )
            return _training(_training_row(connection, training_id, None))

    def update_training(
        self,
        training_id: str,
        *,
        state: TrainingState | None = None,
        update_number: int | None = None,
        updates: int | None = None,
        error: str | None = None,
    ) -> TrainingRecord:
        """Change what is given, keep what is ``None``.

        Raises:
            NotFound: there is none.
        """
        given = {"state": state, "update": update_number, "updates": updates, "error": error}
        values = {name: value for name, value in given.items() if value is not None}
        with self._database.write() as connection:
            _training_row(connection, training_id, None)
            change = update(TRAININGS).where(TRAININGS.c.id == training_id)
            connection.execute(change.values({**values, "updated_at": self._clock()}))
            return _training(_training_row(connection, training_id, None))

    def get_training(self, training_id: str, owner: str | None = None) -> TrainingRecord:
        """A training of ``owner`` or of the server (``None``: of anybody).

        Raises:
            NotFound: there is none, or it is somebody else's.
        """
        with self._database.read() as connection:
            return _training(_training_row(connection, training_id, owner))

    def list_trainings(
        self,
        owner: str | None = None,
        page: PageRequest = FIRST_PAGE,
        learner_id: str | None = None,
        state: TrainingState | None = None,
    ) -> Page[TrainingRecord]:
        """The trainings that ``owner`` may read, the newest first."""
        query = select(TRAININGS).where(readable(TRAININGS, owner))
        if learner_id is not None:
            query = query.where(TRAININGS.c.learner_id == learner_id)
        if state is not None:
            query = query.where(TRAININGS.c.state == state)
        scope = ("trainings", owner, learner_id, state)
        with self._database.read() as connection:
            return fetch(connection, query, TRAININGS.c.row, _training, page, *scope, newest_first=True)

    def forget_learners(self, learner_ids: Collection[str]) -> Forgotten:
        """Forget learners that nothing rests on, and their trainings: all of them or, where one is in use, none.

        Args:
            learner_ids: ids; one that does not exist is forgotten already.
        """
        with self._database.write() as connection:
            revised = select(REVISIONS.c.learner_id).where(REVISIONS.c.learner_id.in_(learner_ids))
            of_learners = TRAININGS.c.learner_id.in_(learner_ids)
            running = select(TRAININGS.c.learner_id).where(of_learners, TRAININGS.c.state == TrainingState.RUNNING)
            in_use = sorted({*connection.execute(revised).scalars(), *connection.execute(running).scalars()})
            if in_use:
                return Forgotten(tuple(in_use), ())
            trainings = tuple(connection.execute(select(TRAININGS.c.id).where(of_learners)).scalars())
            connection.execute(delete(TRAININGS).where(of_learners))
            connection.execute(delete(LEARNERS).where(LEARNERS.c.id.in_(learner_ids)))
            return Forgotten((), trainings)


def _training_row(connection: Connection, training_id: str, owner: str | None) -> Row[Any]:
    query = select(TRAININGS).where(TRAININGS.c.id == training_id, readable(TRAININGS, owner))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"trainings/{training_id}")
    return row


def _training(row: Row[Any]) -> TrainingRecord:
    return TrainingRecord(
        id=row.id,
        owner=row.owner,
        learner_id=row.learner_id,
        settings=row.settings,
        state=TrainingState(row.state),
        seed=row.seed,
        update=row.update,
        updates=row.updates,
        error=row.error,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
