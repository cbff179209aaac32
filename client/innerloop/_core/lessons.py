"""Sessions of supervised learners: the caller brings labelled examples, asks for steps on them, and for predictions.

The program waits at each :class:`Idle` for what the caller wants next, and finishes the session when that is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from innerloop._core.codec import array_to_pb
from innerloop._core.commands import Emit, Program, Send
from innerloop._core.conversation import EXPERIENCE_BYTES, receive, reply, watch
from innerloop._core.protocol import Accepted, Actions, SessionProtocol
from innerloop.arrays import Array, Discrete, Space
from innerloop.errors import ProtocolError
from innerloop.types import Opened, Step
from innerloop.v1 import adaptation_pb2 as pb

MOST_EXAMPLES = 4_096
"""Of a message, as the server takes them."""


@dataclass(frozen=True)
class Idle:
    """Emitted when the session waits for the caller; answered with a :data:`Wish`."""


@dataclass(frozen=True)
class Predicted:
    """Emitted when a :class:`Ask` is answered."""

    predictions: Array
    """[N] labels, or [N, *A]."""


@dataclass(frozen=True)
class Teach:
    """Take so many adaptation steps, each on these examples."""

    examples: Array
    """[N, *O]."""
    answers: Array
    """[N, F] float32."""
    steps: int


@dataclass(frozen=True)
class Ask:
    """Say what these are."""

    examples: Array
    """[N, *O]."""


Wish = Teach | Ask | None
"""``None``: nothing more; the session finishes."""


def teach(opened: Opened, examples: Any, answers: Any, steps: int) -> Teach:
    """Labelled examples as the session takes them.

    Raises:
        ValueError: shapes that do not fit, labels that are none, numbers that are not finite, or no step.
    """
    asked = ask(opened, examples).examples
    space = opened.action_space
    right = np.asarray(answers, np.float32)
    if right.shape != (len(asked), *space.shape):
        raise ValueError(
            f"answers have shape {right.shape}; {len(asked)} examples of {space} need {_rows(asked, space)}"
        )
    _require_finite("answers", right)
    if isinstance(space, Discrete):
        wrong = (right < 0) | (right >= space.n) | (right != np.floor(right))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(f"answers: row {row} is {right[row]:g}; labels are 0 to {space.n - 1}")
    if steps < 1:
        raise ValueError(f"steps is {steps}; take at least one")
    return Teach(asked, right.reshape(len(asked), -1), steps)


def ask(opened: Opened, examples: Any) -> Ask:
    """Examples as the session takes them.

    Raises:
        ValueError: no examples, a shape that does not fit, or numbers that are not finite.
    """
    space = opened.observation_space
    shown = np.asarray(examples, np.int64 if isinstance(space, Discrete) else np.float32)
    if shown.shape[1:] != space.shape or not len(shown):
        raise ValueError(f"examples have shape {shown.shape}; this session takes {_rows('N', space)}")
    _require_finite("examples", shown)
    return Ask(shown)


def converse(protocol: SessionProtocol) -> Callable[[], Program[None]]:
    """What to say on each stream of a session whose caller brings the examples."""
    desk = _Desk()

    def talk() -> Program[None]:
        opened = protocol.opened
        if opened is None:
            raise ProtocolError("the session is not open")
        while protocol.last_step < opened.step and not protocol.ended:  # steps that a lost stream owes
            yield from receive(protocol)
        held = opened.episodes_pending
        while not protocol.ended:
            if protocol.spent:  # the end is on its way; do not wait for the caller meanwhile
                yield from watch(protocol)
                return
            if not desk.busy:
                desk.take((yield Emit(Idle())), protocol.last_step)
            if isinstance(desk.wish, Teach):
                yield from _step(protocol, desk, held)
                held = 0
            elif isinstance(desk.wish, Ask):
                predictions = yield from _predict(protocol, desk.wish)
                if predictions is not None:
                    desk.busy = False
                    yield Emit(Predicted(predictions))
            else:
                protocol.finish_wanted = True
                yield from watch(protocol)

    return talk


class _Desk:
    """What the caller wants, kept from one stream to the next until it is done."""

    def __init__(self) -> None:
        self.busy = False
        self.wish: Wish = None
        self.until = 0
        """The step after which a :class:`Teach` is done."""

    def take(self, wish: Wish, last_step: int) -> None:
        self.wish, self.busy = wish, True
        if isinstance(wish, Teach):
            self.until = last_step + wish.steps


def _step(protocol: SessionProtocol, desk: _Desk, held: int) -> Program[None]:
    """One step of a :class:`Teach`, unless all are taken; the server has the first ``held`` examples already."""
    assert isinstance(desk.wish, Teach)
    if protocol.last_step < desk.until:
        for rows in _chunks(desk.wish.examples, held):
            message = pb.Experience(
                step=protocol.last_step,
                observations=array_to_pb(desk.wish.examples[rows, None]),
                feedback=array_to_pb(desk.wish.answers[rows, None]),
            )
            yield Send(protocol.number(message))
            yield from reply(protocol, Accepted)
            if protocol.ended:
                return
        yield Send(protocol.number(pb.Advance()))
        yield from reply(protocol, Step)
    desk.busy = protocol.last_step < desk.until


def _predict(protocol: SessionProtocol, wish: Ask) -> Program[Array | None]:
    """The predictions; ``None`` when the session ended instead."""
    said: list[Array] = []
    for rows in _chunks(wish.examples, 0):
        shown = wish.examples[rows]
        message = pb.Observe(step=protocol.last_step, row_ids=range(len(shown)), observations=array_to_pb(shown))
        yield Send(protocol.number(message))
        actions = yield from reply(protocol, Actions)
        if actions is None:
            return None
        said.append(actions.actions)
    return np.concatenate(said)


def _chunks(examples: Array, start: int) -> Iterator[slice]:
    """Rows of messages, from ``start`` on."""
    size = max(1, min(MOST_EXAMPLES, EXPERIENCE_BYTES // max(1, examples[0].nbytes)))
    for first in range(start, len(examples), size):
        yield slice(first, first + size)


def _rows(rows: Array | str, space: Space) -> str:
    count = rows if isinstance(rows, str) else str(len(rows))
    return f"[{', '.join([count, *map(str, space.shape)])}]"


def _require_finite(what: str, values: Array) -> None:
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0][0])
        raise ValueError(f"{what}: row {row} is not finite")
