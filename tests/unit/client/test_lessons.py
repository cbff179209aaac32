"""Labelled examples as a caller gives them: what is taken, and what is refused before anything is sent."""

from __future__ import annotations

import numpy as np
import pytest

from innerloop._core import lessons
from innerloop._core.codec import space_to_pb
from innerloop._core.commands import Emit, Receive
from innerloop._core.protocol import SessionProtocol
from innerloop.arrays import Box, Discrete
from innerloop.types import Opened
from innerloop.v1 import adaptation_pb2 as pb


def opened(observation=Box.of(-1, 1, (2,)), action=Discrete(3)) -> Opened:  # noqa: B008 - values
    return Opened("sessions/s", "r", observation, action, None, 0, "", 0, False, 0, 2, 0, None, "")


def test_labels_and_targets_as_the_session_takes_them() -> None:
    taught = lessons.teach(opened(), [[0, 1], [1, 0]], [2, 0], 3)
    assert (taught.examples.dtype, taught.answers.dtype) == (np.float32, np.float32)
    assert (taught.answers.tolist(), taught.steps) == ([[2], [0]], 3)
    image = lessons.teach(opened(Discrete(5), Box.of(-1, 1, (2, 2))), [4, 0], np.ones((2, 2, 2)), 1)
    assert (image.examples.dtype, image.answers.shape) == (np.int64, (2, 4))


@pytest.mark.parametrize(
    ("examples", "answers", "steps", "words"),
    [
        ([[0, 1], [1, 0]], [1, 3], 1, "row 1 is 3; labels are 0 to 2"),
        ([[0, 1], [1, 0]], [-1, 0], 1, "row 0 is -1"),
        ([[0, 1], [1, 0]], [0, 0.5], 1, "row 1 is 0.5"),
        ([[0, 1], [1, 0]], [0], 1, r"shape \(1,\); .* need \[2\]"),
        ([[0, 1], [1, 0]], [[0], [1]], 1, r"shape \(2, 1\)"),
        ([[0, 1], [np.inf, 0]], [0, 1], 1, "examples: row 1 is not finite"),
        ([[0, 1], [1, 0]], [0, np.nan], 1, "answers: row 1 is not finite"),
        ([0, 1], [0], 1, r"takes \[N, 2\]"),
        (np.zeros((0, 2)), [], 1, "examples have shape"),
        ([[0, 1]], [0], 0, "at least one"),
    ],
)
def test_what_cannot_be_is_told_by_row(examples, answers, steps, words) -> None:
    with pytest.raises(ValueError, match=words):
        lessons.teach(opened(), examples, answers, steps)


def test_messages_stay_small() -> None:
    wide = np.zeros((10, 2_000_000), np.float32)  # 8 MB each
    assert [(rows.start, rows.stop) for rows in lessons._chunks(wide, 8)] == [(8, 9), (9, 10)]
    narrow = np.zeros((9_000, 2), np.float32)
    assert [rows.stop - rows.start for rows in lessons._chunks(narrow, 0)] == [4_096] * 3


def test_a_step_that_a_lost_stream_owes_is_heard_before_anything_is_said() -> None:
    spaces = {"observation_space": space_to_pb(Box.of(-1, 1, (2,))), "action_space": space_to_pb(Discrete(3))}
    protocol = SessionProtocol(session="sessions/s", last_step=0)
    protocol.first()
    protocol.receive(pb.AdaptResponse(opened=pb.Opened(session="sessions/s", step=1, next_sequence=4, **spaces)))
    talk = lessons.converse(protocol)()
    assert next(talk) == Receive()
    told = talk.send(pb.AdaptResponse(step=pb.Step(number=1, state_hash="x")))
    assert isinstance(told, Emit)
    assert (told.value.number, protocol.last_step) == (1, 1)
    assert talk.send(None) == Emit(lessons.Idle())
