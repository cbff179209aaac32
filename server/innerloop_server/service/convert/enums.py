"""Enums between messages and domain words. An open enum may carry any number: unknown ones are refused by field."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from innerloop.v1 import adaptation_pb2, evaluation_pb2, learner_pb2, task_pb2
from innerloop_server.domain import SessionState, Simulator, Split
from innerloop_server.errors import InvalidField
from innerloop_server.store.records import EvaluationState, TrainingState

E = TypeVar("E", bound=StrEnum)

SPLITS: Mapping[Split, task_pb2.Split.ValueType] = {
    Split.TRAIN: task_pb2.SPLIT_TRAIN,
    Split.VALIDATION: task_pb2.SPLIT_VALIDATION,
    Split.TEST: task_pb2.SPLIT_TEST,
}
SIMULATORS: Mapping[Simulator, task_pb2.Simulator.ValueType] = {
    Simulator.BATCH: task_pb2.SIMULATOR_BATCH,
    Simulator.ACTORS: task_pb2.SIMULATOR_ACTORS,
}
SESSION_STATES: Mapping[SessionState, adaptation_pb2.SessionState.ValueType] = {
    SessionState.ACTIVE: adaptation_pb2.SESSION_STATE_ACTIVE,
    SessionState.FINISHED: adaptation_pb2.SESSION_STATE_FINISHED,
    SessionState.CANCELLED: adaptation_pb2.SESSION_STATE_CANCELLED,
    SessionState.EXPIRED: adaptation_pb2.SESSION_STATE_EXPIRED,
}
EVALUATION_STATES: Mapping[EvaluationState, evaluation_pb2.EvaluationState.ValueType] = {
    EvaluationState.QUEUED: evaluation_pb2.EVALUATION_STATE_RUNNING,
    EvaluationState.RUNNING: evaluation_pb2.EVALUATION_STATE_RUNNING,
    EvaluationState.DONE: evaluation_pb2.EVALUATION_STATE_DONE,
    EvaluationState.FAILED: evaluation_pb2.EVALUATION_STATE_FAILED,
    EvaluationState.CANCELLED: evaluation_pb2.EVALUATION_STATE_CANCELLED,
}
TRAINING_STATES: Mapping[TrainingState, learner_pb2.TrainingState.ValueType] = {
    TrainingState.RUNNING: learner_pb2.TRAINING_STATE_RUNNING,
    TrainingState.PAUSED: learner_pb2.TRAINING_STATE_PAUSED,
    TrainingState.DONE: learner_pb2.TRAINING_STATE_DONE,
    TrainingState.FAILED: learner_pb2.TRAINING_STATE_FAILED,
}


def split_to_pb(split: Split | None) -> task_pb2.Split.ValueType:
    """Unspecified for ``None``."""
    return task_pb2.SPLIT_UNSPECIFIED if split is None else SPLITS[split]


def simulator_to_pb(simulator: Simulator | None) -> task_pb2.Simulator.ValueType:
    """Unspecified for ``None``."""
    return task_pb2.SIMULATOR_UNSPECIFIED if simulator is None else SIMULATORS[simulator]


def split_from_pb(value: int, field: str) -> Split:
    """The split a request names; it must name one.

    Raises:
        InvalidField: unspecified or unknown.
    """
    split = _word(value, SPLITS, field)
    if split is None:
        raise InvalidField(field, f"is missing; give one of {', '.join(Split)}")
    return split


def simulator_from_pb(value: int, field: str) -> Simulator | None:
    """The simulator a request names; ``None`` where it leaves the choice.

    Raises:
        InvalidField: unknown.
    """
    return _word(value, SIMULATORS, field)


def _word(value: int, words: Mapping[E, int], field: str) -> E | None:
    if value == 0:
        return None
    for word, number in words.items():
        if number == value:
            return word
    raise InvalidField(field, f"{value} is unknown; give one of {', '.join(words)}")
