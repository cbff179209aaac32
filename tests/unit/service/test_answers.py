"""Labelled examples as they come over the wire: what is taken, and what is refused by field and row."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import array_pb2
from innerloop_server.adaptation.messages import Observe, Trajectories
from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.service.convert.arrays import array_to_pb
from innerloop_server.service.convert.sessions import client_message_from_pb
from innerloop_server.settings import Limits

sys.path.insert(0, str(Path(__file__).parents[2]))  # supervised_support
import supervised_support as toy

LABELS, LINE = toy.spec("toy-labels"), toy.spec("toy-line")


def array(value: Any, dtype: Any = np.float32) -> array_pb2.Array:
    return array_to_pb(np.asarray(value, dtype))


def read(message: pb.Experience | pb.Observe, spec: LearnerSpec) -> Trajectories | Observe:
    kind = "experience" if isinstance(message, pb.Experience) else "observe"
    request = pb.AdaptRequest(sequence=2, **{kind: message})
    taken = client_message_from_pb(request, spec, Limits(rows_per_message=3))
    assert isinstance(taken, Trajectories | Observe)
    return taken


def labelled(answers: Any, n: int = 3, **fields: Any) -> pb.Experience:
    examples = array(np.ones((n, 1, 2)))
    return pb.Experience(**{"observations": examples, "feedback": array(answers), **fields})


def test_examples_and_answers_are_all_that_is_read() -> None:
    nonsense = array(np.full((7, 9), 3.0))
    others = {"rewards": nonsense, "raw_actions": nonsense, "log_probs": nonsense, "lengths": nonsense}
    for fields in ({}, others):
        taken = read(labelled([[[0]], [[1]], [[1]]], **fields), LABELS)
        assert isinstance(taken, Trajectories)
        assert taken.feedback is not None
        assert taken.feedback.ravel().tolist() == [0, 1, 1]
        assert taken.observations.shape == (3, 1, 2)
        assert (taken.rewards.shape, taken.raw_actions.shape, taken.raw_actions.dtype) == ((3, 1), (3, 1), np.int64)
        assert taken.lengths.tolist() == [1, 1, 1]
        assert taken.log_probs is None


def test_labels_may_be_integers_and_targets_have_dimensions() -> None:
    taken = read(labelled(0, feedback=array([[[1]], [[0]], [[1]]], np.int64)), LABELS)
    assert taken.feedback is not None
    assert taken.feedback.dtype == np.float32
    line = pb.Experience(observations=array(np.ones((2, 1, 1))), feedback=array(np.ones((2, 1, 2))))
    taken = read(line, LINE)
    assert isinstance(taken, Trajectories)
    assert taken.raw_actions.shape == (2, 1, 2)


@pytest.mark.parametrize(
    ("message", "spec", "field", "advice"),
    [
        (labelled([[[0]], [[2]], [[1]]]), LABELS, "experience.feedback", "holds 2 in row 1; labels are 0 to 1"),
        (labelled([[[0]], [[1]], [[-1]]]), LABELS, "experience.feedback", "holds -1 in row 2"),
        (labelled([[[0.5]], [[1]], [[1]]]), LABELS, "experience.feedback", "holds 0.5 in row 0"),
        (labelled([[[0]], [[np.nan]], [[1]]]), LABELS, "experience.feedback", "not finite at [1, 0, 0]"),
        (labelled([[0], [1], [1]]), LABELS, "experience.feedback", "send [3, 1, 1]"),
        (labelled([[[0]], [[1]]]), LABELS, "experience.feedback", "has shape [2, 1, 1]"),
        (pb.Experience(observations=array(np.ones((3, 1, 2)))), LABELS, "experience.feedback", "is missing"),
        (labelled([[[0]] * 2] * 3, observations=array(np.ones((3, 2, 2)))), LABELS, "experience.observations", "[N, 1"),
        (labelled([0], observations=array(np.ones((3, 2)))), LABELS, "experience.observations", "[N, 1, ...]"),
        (labelled([[[0]]] * 4, n=4), LABELS, "experience.observations", "holds 4 examples; send at most 3"),
        (labelled([[[0]]] * 3, observations=array(np.ones((3, 1, 5)))), LABELS, "experience.observations", "[3, 1, 2]"),
        (
            pb.Experience(observations=array(np.ones((2, 1, 1))), feedback=array([[[0, 1]], [[np.inf, 1]]])),
            LINE,
            "experience.feedback",
            "not finite at [1, 0, 0]",
        ),
    ],
)
def test_examples_that_cannot_be(message: pb.Experience, spec: LearnerSpec, field: str, advice: str) -> None:
    with pytest.raises(InvalidField) as refused:
        read(message, spec)
    assert refused.value.field == field
    assert advice in refused.value.advice


def asking(**fields: Any) -> pb.Observe:
    return pb.Observe(**{"row_ids": [4, 7], "observations": array(np.ones((2, 2))), **fields})


def test_a_question_needs_no_answer_and_an_answer_is_one_of_a_row() -> None:
    asked = read(asking(), LABELS)
    assert isinstance(asked, Observe)
    assert asked.feedback is None
    told = read(asking(terminated=array([True, False], bool), feedback=array([[1], [0]])), LABELS)
    assert isinstance(told, Observe)
    assert told.feedback is not None
    assert (told.terminated.tolist(), told.feedback.tolist()) == ([True, False], [[1], [0]])


@pytest.mark.parametrize(
    ("message", "field", "advice"),
    [
        (asking(terminated=array([True, False], bool)), "observe.feedback", "is missing"),
        (asking(feedback=array([[1], [0]])), "observe.feedback", "set terminated"),
        (
            asking(terminated=array([True, True], bool), feedback=array([[0], [3]])),
            "observe.feedback",
            "holds 3 in row 1",
        ),
        (
            asking(truncated=array([True, False], bool), final_observations=array(np.ones((2, 2)))),
            "observe.truncated",
            "not cut short",
        ),
    ],
)
def test_answers_that_cannot_be(message: pb.Observe, field: str, advice: str) -> None:
    with pytest.raises(InvalidField) as refused:
        read(message, LABELS)
    assert refused.value.field == field
    assert advice in refused.value.advice
