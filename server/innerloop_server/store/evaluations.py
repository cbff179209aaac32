"""Evaluations and the scores they leave."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from innerloop_server.domain import Score, Simulator, Split
from innerloop_server.errors import Exhausted, NotFound, PreconditionFailed
from innerloop_server.store.codec import reference_from_json, reference_to_json
from innerloop_server.store.ids import new_id
from innerloop_server.store.pages import FIRST_PAGE, Page, PageRequest, fetch
from innerloop_server.store.records import EvaluationRecord, EvaluationState, ScoreRecord
from innerloop_server.store.room import Room, owned, readable
from innerloop_server.store.schema import EVALUATIONS, SCORES

_UNFINISHED = (EvaluationState.QUEUED, EvaluationState.RUNNING)
_NUMBERS = ("mean", "interquartile_mean", "low", "high", "standard_error")


class Evaluations(Room):
    """Evaluations belong to who asked for them; what the server itself measured can be read by all."""

    def create_evaluation(
        self,
        request: Mapping[str, Any],
        owner: str = "",
        total: int = 0,
        unfinished_limit: int | None = None,
        request_id: str = "",
    ) -> EvaluationRecord:
        """Queue an evaluation, or give the one that this owner queued with this ``request_id`` before.

        Args:
            request: JSON values; opaque.
            owner: who asked.
            total: units of work in all; 0 where that is not known yet.
            unfinished_limit: how many unfinished ones the owner may have, this one included; ``None``: any number.
            request_id: chosen by the caller; empty: always a new one.

        Raises:
            Exhausted: ``EVALUATION_QUOTA``.
        """
        evaluation_id = new_id("e")
        with self._database.write() as connection:
            if request_id:
                same = (EVALUATIONS.c.owner == owner) & (EVALUATIONS.c.request_id == request_id)
                row = connection.execute(select(EVALUATIONS).where(same)).one_or_none()
                if row is not None:
                    return _evaluation(row)
            unfinished = (EVALUATIONS.c.owner == owner) & EVALUATIONS.c.state.in_(_UNFINISHED)
            count = select(func.count()).select_from(EVALUATIONS).where(unfinished)
            if unfinished_limit is not None and connection.execute(count).scalar_one() >= unfinished_limit:
                raise Exhausted(
                    f"{unfinished_limit} evaluations are unfinished; wait for one or cancel it",
                    reason="EVALUATION_QUOTA",
                    retry_after_seconds=10.0,
                    facts={"limit": str(unfinished_limit)},
                )
            connection.execute(
                insert(EVALUATIONS).values(
                    id=evaluation_id,
                    owner=owner,
                    request_id=request_id or None,
                    request=dict(request),
                    state=EvaluationState.QUEUED,
                    done=0,
                    total=total,
                    error="",
                    created_at=self._clock(),
                )
            )
            return _evaluation(_evaluation_row(connection, evaluation_id))

    def get_evaluation(self, evaluation_id: str, owner: str | None = None) -> EvaluationRecord:
        """An evaluation of ``owner`` or of the server (``None``: of anybody).

        Raises:
            NotFound: there is none, or it is somebody else's.
        """
        with self._database.read() as connection:
            query = select(EVALUATIONS).where(EVALUATIONS.c.id == evaluation_id, readable(EVALUATIONS, owner))
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(f"evaluations/{evaluation_id}")
        return _evaluation(row)

    def list_evaluations(
        self, owner: str | None = None, page: PageRequest = FIRST_PAGE, state: EvaluationState | None = None
    ) -> Page[EvaluationRecord]:
        """The evaluations that ``owner`` may read, the newest first."""
        query = select(EVALUATIONS).where(readable(EVALUATIONS, owner))
        if state is not None:
            query = query.where(EVALUATIONS.c.state == state)
        with self._database.read() as connection:
            key = EVALUATIONS.c.row
            return fetch(connection, query, key, _evaluation, page, "evaluations", owner, state, newest_first=True)

    def progress_evaluation(self, evaluation_id: str, done: int, total: int) -> EvaluationRecord:
        """Say how far it is; a queued evaluation is running from then on.

        Raises:
            NotFound: there is none.
            PreconditionFailed: ``EVALUATION_ENDED``, cancelled for instance.
        """
        return self._change(evaluation_id, state=EvaluationState.RUNNING, done=done, total=total)

    def finish_evaluation(self, evaluation_id: str, scores: Sequence[ScoreRecord]) -> EvaluationRecord:
        """End an evaluation with its scores, all or none of them.

        Raises:
            NotFound: there is none.
            PreconditionFailed: ``EVALUATION_ENDED``.
        """
        return self._change(evaluation_id, scores, state=EvaluationState.DONE, finished_at=self._clock())

    def fail_evaluation(self, evaluation_id: str, error: str) -> EvaluationRecord:
        """End an evaluation without scores.

        Raises:
            NotFound: there is none.
            PreconditionFailed: ``EVALUATION_ENDED``.
        """
        return self._change(evaluation_id, state=EvaluationState.FAILED, error=error, finished_at=self._clock())

    def cancel_evaluation(self, evaluation_id: str, owner: str | None = None) -> EvaluationRecord:
        """End an evaluation of ``owner`` (``None``: of anybody) without scores.

        Raises:
            NotFound: there is none, or it is somebody else's.
            PreconditionFailed: ``EVALUATION_ENDED``.
        """
        return self._change(evaluation_id, owner=owner, state=EvaluationState.CANCELLED, finished_at=self._clock())

    def query_scores(
        self,
        *,
        family: str | None = None,
        learner_id: str | None = None,
        revision: int | None = None,
        k: int | None = None,
        evaluation_id: str | None = None,
        owner: str | None = None,
        page: PageRequest = FIRST_PAGE,
        newest_first: bool = False,
    ) -> Page[ScoreRecord]:
        """Scores that ``owner`` may read, in the order they were stored or the other way round; a filter that is
        ``None`` lets all pass.
        """
        wanted = {
            "family": family,
            "learner_id": learner_id,
            "revision": revision,
            "k": k,
            "evaluation_id": evaluation_id,
        }
        query = select(SCORES).join(EVALUATIONS).where(readable(EVALUATIONS, owner))
        for name, value in wanted.items():
            if value is not None:
                query = query.where(SCORES.c[name] == value)
        with self._database.read() as connection:
            scope = ("scores", owner, newest_first, *wanted.values())
            return fetch(connection, query, SCORES.c.row, _score, page, *scope, newest_first=newest_first)

    def _change(
        self, evaluation_id: str, scores: Sequence[ScoreRecord] = (), owner: str | None = None, **values: Any
    ) -> EvaluationRecord:
        with self._database.write() as connection:
            before = _evaluation(_evaluation_row(connection, evaluation_id, owner))
            if before.state not in _UNFINISHED:
                raise PreconditionFailed(
                    f"evaluation {evaluation_id} is {before.state}",
                    reason="EVALUATION_ENDED",
                    facts={"evaluation": evaluation_id, "state": before.state},
                )
            connection.execute(update(EVALUATIONS).where(EVALUATIONS.c.id == evaluation_id).values(values))
            if scores:
                now = self._clock()
                connection.execute(insert(SCORES), [_score_values(evaluation_id, score, now) for score in scores])
            return _evaluation(_evaluation_row(connection, evaluation_id))


def _evaluation_row(connection: Connection, evaluation_id: str, owner: str | None = None) -> Row[Any]:
    query = select(EVALUATIONS).where(EVALUATIONS.c.id == evaluation_id, owned(EVALUATIONS, owner))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"evaluations/{evaluation_id}")
    return row


def _evaluation(row: Row[Any]) -> EvaluationRecord:
    return EvaluationRecord(
        id=row.id,
        owner=row.owner,
        request=row.request,
        state=EvaluationState(row.state),
        done=row.done,
        total=row.total,
        error=row.error,
        created_at=row.created_at,
        finished_at=row.finished_at,
        request_id=row.request_id or "",
    )


def _score_values(evaluation_id: str, record: ScoreRecord, now: float) -> dict[str, Any]:
    numbers = dataclasses.asdict(record.score)
    metrics = numbers.pop("metrics")
    return {
        "evaluation_id": evaluation_id,
        "family": record.family,
        "learner_id": record.learner_id,
        "revision": record.revision,
        "split": record.split,
        "guard": record.guard,
        "greedy": record.greedy,
        "simulator": record.simulator,
        **{name: None if math.isnan(value) else value for name, value in numbers.items()},
        "metrics": {name: value for name, value in metrics.items() if math.isfinite(value)},
        "references": [reference_to_json(reference) for reference in record.references],
        "created_at": now,
    }


def _score(row: Row[Any]) -> ScoreRecord:
    numbers = {name: math.nan if getattr(row, name) is None else getattr(row, name) for name in _NUMBERS}
    return ScoreRecord(
        evaluation_id=row.evaluation_id,
        family=row.family,
        learner_id=row.learner_id,
        revision=row.revision,
        split=Split(row.split),
        guard=row.guard,
        greedy=row.greedy,
        simulator=Simulator(row.simulator),
        score=Score(k=row.k, tasks=row.tasks, episodes=row.episodes, **numbers, metrics=row.metrics),
        references=tuple(reference_from_json(reference) for reference in row.references),
        created_at=row.created_at,
    )
