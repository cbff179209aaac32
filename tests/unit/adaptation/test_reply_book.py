"""Sequence numbers against a model that forgets nothing."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from innerloop_server.adaptation.messages import Accepted
from innerloop_server.adaptation.sequence import ReplyBook, forgotten
from innerloop_server.errors import SequenceGap


class Books(RuleBasedStateMachine):
    """``said`` holds every answer ever given, ``durable`` the number of the last durable one."""

    @initialize(last=st.integers(1, 2**40))
    def begin(self, last: int) -> None:
        self.book = ReplyBook(last)
        self.next = last + 1
        self.said: dict[int, tuple[Accepted, ...]] = {}
        self.durable = 0

    @rule(durable=st.booleans(), replies=st.integers(0, 2))
    def answer(self, durable: bool, replies: int) -> None:
        assert self.book.admit(self.next)
        said = tuple(Accepted(self.next, i) for i in range(replies))
        self.book.answer(self.next, said, durable=durable)
        self.said[self.next] = said
        if durable:
            self.durable = self.next
        self.next += 1

    @rule()
    def add_to_the_last_answer(self) -> None:
        """A step is remembered before the actions that follow it in the same answer."""
        if self.durable == self.next - 1 and self.durable in self.said:
            said = (*self.said[self.durable], Accepted(self.durable, 99))
            self.book.answer(self.durable, said, durable=True)
            self.said[self.durable] = said

    @rule(ahead=st.integers(1, 2**40))
    def skip(self, ahead: int) -> None:
        with pytest.raises(SequenceGap) as caught:
            self.book.admit(self.next + ahead)
        assert (caught.value.got, caught.value.expected) == (self.next + ahead, self.next)

    @rule(back=st.integers(1, 20))
    def repeat(self, back: int) -> None:
        sequence = self.next - back
        assert not self.book.admit(sequence)
        kept = sequence in self.said and sequence >= self.durable
        assert self.book.replies(sequence) == (self.said[sequence] if kept else None)

    @invariant()
    def the_next_number_is_known(self) -> None:
        if hasattr(self, "book"):
            assert self.book.next == self.next


Books.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestBooks = Books.TestCase


def test_a_forgotten_reply_says_so() -> None:
    error = forgotten(5)
    assert error.reason == "REPLY_FORGOTTEN"
    assert error.facts == {"sequence": "5"}
