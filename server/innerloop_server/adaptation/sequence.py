"""Sequence numbers: which client message comes next, and what the ones before were answered."""

from __future__ import annotations

from collections.abc import Sequence

from innerloop_server.adaptation.messages import Reply
from innerloop_server.errors import PreconditionFailed, SequenceGap


class ReplyBook:
    """The replies of one session since its last durable step, by the number of the message they answer.

    Owned by the session. Older replies are on disk where a step was the answer, and gone where they acknowledged
    nothing.
    """

    def __init__(self, last: int) -> None:
        """Args:
        last: number of the last message that was answered (1: ``open``).
        """
        self._last = last
        self._replies: dict[int, tuple[Reply, ...]] = {}

    @property
    def next(self) -> int:
        """The number that the next new message must carry."""
        return self._last + 1

    def admit(self, sequence: int) -> bool:
        """Whether a message is new (True) or a repetition (False).

        Raises:
            SequenceGap: numbers were skipped.
        """
        if sequence > self.next:
            raise SequenceGap(sequence, self.next)
        return sequence == self.next

    def answer(self, sequence: int, replies: Sequence[Reply], *, durable: bool) -> None:
        """Remember the answer to the message ``sequence``, which is the next one.

        Args:
            sequence: of the message.
            replies: all that was said.
            durable: the answer holds a step, so the replies before it are not needed again.
        """
        if durable:
            self._replies.clear()
        self._replies[sequence] = tuple(replies)
        self._last = sequence

    def replies(self, sequence: int) -> tuple[Reply, ...] | None:
        """What a repeated message was answered; ``None`` when it is not in memory."""
        return self._replies.get(sequence)


def forgotten(sequence: int) -> PreconditionFailed:
    """The error for a repetition whose reply acknowledged nothing and is gone."""
    return PreconditionFailed(
        f"message {sequence} was answered before the last durable step and its reply is not kept",
        reason="REPLY_FORGOTTEN",
        facts={"sequence": str(sequence)},
    )
