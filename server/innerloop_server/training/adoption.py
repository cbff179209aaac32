"""From a candidate in a run's folder to a revision in the store, promoted if it has earned it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.store.pages import PageRequest
from innerloop_server.store.records import LearnerRecord, RevisionRecord, TrainingRecord
from innerloop_server.store.store import Store
from innerloop_server.training.candidates import Candidate
from innerloop_server.training.promotion import Validate, challenge


def revision_ref(store: Store, learner: LearnerRecord, number: int) -> RevisionRef:
    """A stored revision as the engine needs it.

    Raises:
        NotFound: no such revision.
    """
    revision = store.get_revision(learner.id, number)
    name = f"learners/{learner.id}/revisions/{number}"
    return RevisionRef(name, revision.blob, str(store.blob_path(revision.blob)), learner.spec)


async def adopt(store: Store, validate: Validate, training: TrainingRecord, candidate: Candidate) -> RevisionRecord:
    """Score a candidate, keep it as the learner's next revision, and promote it if it is no worse than the champion.

    May be called again for the same candidate, after a crash at any point: a revision is kept once, and one that
    was judged is not judged again.

    Args:
        store: where revisions are kept.
        validate: scores revisions.
        training: whose candidate it is.
        candidate: read from the run's folder.

    Raises:
        InnerloopError: it could not be scored (see ``evaluation.protocol.evaluate``); nothing was kept.
    """
    revision = await asyncio.to_thread(_find, store, training, candidate.update)
    if revision is None:
        weights = await asyncio.to_thread(candidate.path.read_bytes)
        manifest = {**candidate.manifest, **await _judge(store, validate, training, candidate)}
        revision = await asyncio.to_thread(store.add_revision, training.learner_id, weights, manifest)
    if revision.manifest["promotion"]["promote"] and not revision.promoted:
        await asyncio.to_thread(store.promote, training.learner_id, revision.number)
    return await asyncio.to_thread(store.get_revision, training.learner_id, revision.number)


async def _judge(store: Store, validate: Validate, training: TrainingRecord, candidate: Candidate) -> dict[str, Any]:
    """``validation`` and ``promotion`` for the manifest, against whoever is champion when the scoring ends."""
    while True:
        learner = await asyncio.to_thread(store.get_learner, training.learner_id)
        name = f"trainings/{training.id}/updates/{candidate.update}"
        challenger = RevisionRef(name, candidate.hash, str(candidate.path), learner.spec)
        champion = None
        if learner.champion is not None:
            champion = await asyncio.to_thread(revision_ref, store, learner, learner.champion)
        validation, verdict = await challenge(validate, challenger, champion, learner.champion)
        now = await asyncio.to_thread(store.get_learner, training.learner_id)
        if now.champion == learner.champion:  # else somebody promoted another one by hand meanwhile
            return {"validation": validation.to_json(), "promotion": asdict(verdict)}


def _find(store: Store, training: TrainingRecord, update: int) -> RevisionRecord | None:
    """The revision that was kept of an update of a training."""
    token = ""
    while True:
        page = store.list_revisions(training.learner_id, PageRequest(token=token))
        for revision in page.items:
            if (revision.manifest.get("training"), revision.manifest.get("update")) == (training.id, update):
                return revision
        if not page.next_token:
            return None
        token = page.next_token
