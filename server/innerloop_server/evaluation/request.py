"""What is kept of an evaluation so that it can be run again, and what it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.domain import Reference, Score
from innerloop_server.evaluation.plan import Plan
from innerloop_server.store.records import ScoreRecord
from innerloop_server.store.store import Store


@dataclass(frozen=True)
class EvaluationRequest:
    """A revision and how it is to be scored: ``EvaluationRecord.request``."""

    family: str
    learner_id: str
    revision: int
    plan: Plan

    def to_json(self) -> dict[str, Any]:
        """The request as JSON values."""
        return {
            "family": self.family,
            "learner_id": self.learner_id,
            "revision": self.revision,
            "plan": self.plan.to_json(),
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> EvaluationRequest:
        """Undo :meth:`to_json`."""
        return EvaluationRequest(
            values["family"], values["learner_id"], int(values["revision"]), Plan.from_json(values["plan"])
        )

    def ref(self, store: Store) -> RevisionRef:
        """The revision as the engine needs it.

        Raises:
            NotFound: it is gone.
        """
        learner = store.get_learner(self.learner_id)
        revision = store.get_revision(self.learner_id, self.revision)
        name = f"learners/{self.learner_id}/revisions/{self.revision}"
        return RevisionRef(name, revision.blob, str(store.blob_path(revision.blob)), learner.spec)

    def record(self, evaluation_id: str, score: Score, references: tuple[Reference, ...]) -> ScoreRecord:
        """A score as the store keeps it."""
        return ScoreRecord(
            evaluation_id=evaluation_id,
            family=self.family,
            learner_id=self.learner_id,
            revision=self.revision,
            split=self.plan.split,
            guard=self.plan.guard,
            simulator=self.plan.simulator,
            score=score,
            greedy=self.plan.greedy,
            references=references,
        )
