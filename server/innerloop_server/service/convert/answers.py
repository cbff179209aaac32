"""The right answers that a client sends to a supervised learner."""

from __future__ import annotations

import numpy as np

from innerloop.arrays import Array, Discrete
from innerloop.v1 import array_pb2
from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.service.convert.arrays import array_from_pb


def answers_from_pb(message: array_pb2.Array, field: str, spec: LearnerSpec, lead: tuple[int, ...]) -> Array:
    """Answers of a supervised learner: [*lead, F] float32, F = 1 for a label, else the target's dimensions.

    Args:
        message: an ``Array``.
        field: its path in the request.
        spec: of the learner.
        lead: leading dimensions, rows first.

    Raises:
        InvalidField: missing, of a wrong shape or dtype, a target that is not finite, or what the action space does not
            hold; says in which row.
    """
    space = spec.action_space
    answers = array_from_pb(
        message, field, dtype=np.float32, shape=(*lead, 1 if isinstance(space, Discrete) else space.size)
    )
    if isinstance(space, Discrete):
        wrong = (answers < 0) | (answers >= space.n) | (answers != np.floor(answers))
        if wrong.any():
            index = np.argwhere(wrong)[0]
            value = float(answers[tuple(index)])
            raise InvalidField(field, f"holds {value:g} in row {index[0]}; labels are 0 to {space.n - 1}")
        return answers
    low, high = space.low.ravel(), space.high.ravel()
    outside = (answers < low) | (answers > high)
    if outside.any():
        index = np.argwhere(outside)[0]
        value = float(answers[tuple(index)])
        raise InvalidField(
            field,
            f"holds {value:g} in row {index[0]}; no prediction lies outside {low[index[-1]]:g} to {high[index[-1]]:g}",
        )
    return answers


def refuse_answers(present: bool, field: str, spec: LearnerSpec) -> None:
    """A learner that learns from rewards takes none.

    Raises:
        InvalidField: some were sent.
    """
    if present:
        raise InvalidField(field, f"{spec.name} learns from rewards and takes no labels; leave it unset")
