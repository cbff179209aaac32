"""Learners, revisions and trainings as messages."""

from __future__ import annotations

from innerloop.v1 import learner_pb2
from innerloop_server.domain import Simulator
from innerloop_server.learners.registry import remembers, settings_of
from innerloop_server.service.convert.enums import TRAINING_STATES, simulator_to_pb
from innerloop_server.service.convert.names import FAMILY, LEARNER, TRAINING, format_revision
from innerloop_server.service.convert.spaces import space_to_pb
from innerloop_server.service.convert.values import struct_to_pb, timestamp
from innerloop_server.store.records import LearnerRecord, RevisionRecord, TrainingRecord
from innerloop_server.training.generators import UNIFORM
from innerloop_server.training.metrics import UpdateMetrics


def learner_to_pb(record: LearnerRecord, newest: int) -> learner_pb2.Learner:
    """A learner.

    Args:
        record: as it is kept.
        newest: number of its newest revision; 0: none.
    """
    settings = settings_of(record.spec)
    return learner_pb2.Learner(
        name=LEARNER.format(record.id),
        method=record.spec.method,
        family=FAMILY.format(record.spec.family),
        observation_space=space_to_pb(record.spec.observation_space),
        action_space=space_to_pb(record.spec.action_space),
        inner_steps=settings.inner_steps,
        episodes_per_step=settings.episodes_per_step,
        settings=struct_to_pb(settings.to_json()),
        champion="" if record.champion is None else format_revision(record.id, record.champion),
        revisions=newest,
        owner=record.owner,
        create_time=timestamp(record.created_at),
        remembers=remembers(record.spec),
    )


def revision_to_pb(record: RevisionRecord, champion: int | None) -> learner_pb2.Revision:
    """A revision.

    Args:
        record: as it is kept.
        champion: number of its learner's champion.
    """
    return learner_pb2.Revision(
        name=format_revision(record.learner_id, record.number),
        hash=record.blob,
        manifest=struct_to_pb(record.manifest),
        champion=record.number == champion,
        create_time=timestamp(record.created_at),
    )


def training_to_pb(record: TrainingRecord) -> learner_pb2.Training:
    """A training."""
    return learner_pb2.Training(
        name=TRAINING.format(record.id),
        learner=LEARNER.format(record.learner_id),
        state=TRAINING_STATES[record.state],
        update=record.update,
        updates=record.updates,
        seed=record.seed,
        simulator=simulator_to_pb(Simulator(record.settings["run"]["simulator"])),
        error=record.error,
        create_time=timestamp(record.created_at),
        generator=record.settings["run"].get("generator", UNIFORM),
    )


def metrics_to_pb(metrics: UpdateMetrics) -> learner_pb2.TrainingMetrics:
    """One update's metrics."""
    return learner_pb2.TrainingMetrics(update=metrics.update, values=metrics.values)
