"""Anything may happen to sessions in any order: a model of what must hold whatever the order is.

Hub, store, journal and engine are the real ones, on a family that is quick to run.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hub_support import OWNER, House, Stream, observe, open_owned, trajectories
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from innerloop_server.adaptation.hub import Ended
from innerloop_server.adaptation.messages import Accepted, Actions, Adapted, Advance, Finish, Opened, StepTaken
from innerloop_server.domain import Budget, SessionState
from innerloop_server.errors import PreconditionFailed

T = TypeVar("T")
MOST_STEPS = 4


@dataclass
class Known:
    """What a client remembers of a session, and what must therefore be true."""

    id: str
    step: int = 0
    """The last step that it was told of."""
    sequence: int = 2
    pending: int = 0
    state: SessionState = SessionState.ACTIVE
    stream: Any = None
    """A ``Stream``; None while nobody is attached."""


class Sessions(RuleBasedStateMachine):
    sessions: Bundle[Known] = Bundle("sessions")

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.known: list[Known] = []
        self.complaints: list[Any] = []
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(context))
        self.house = self.run(self._house())

    async def _house(self) -> House:
        return House(self.folder / "data")

    def run(self, work: Awaitable[T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(20):
                return await work

        return self.loop.run_until_complete(bounded())

    @rule(target=sessions)
    def open(self) -> Known:
        stream = self.run(self.house.open(open_owned(budget=Budget(steps=MOST_STEPS), lease_seconds=60.0)))
        known = Known(stream.session, stream=stream)
        opened = self.run(stream.next(Opened))
        assert (opened.record.step, opened.next_sequence, opened.episodes_pending) == (0, 2, 0)
        self.known.append(known)
        return known

    @rule(known=sessions)
    def resume(self, known: Known) -> None:
        """From wherever it is: attached, left, ended."""
        if known.state in (SessionState.CANCELLED, SessionState.EXPIRED):
            assert self._refusal(self.house.hub.resume(OWNER, known.id, known.step)) == "SESSION_ENDED"
            return
        live = self.run(self.house.hub.resume(OWNER, known.id, known.step))
        if isinstance(live, Ended):
            assert known.state is SessionState.FINISHED
            opened, adapted = live.messages
            assert isinstance(opened, Opened)
            assert isinstance(adapted, Adapted)
            assert adapted.step == known.step
            return
        assert known.state is SessionState.ACTIVE
        old = known.stream
        known.stream = Stream(self.house.hub, live)
        opened = self.run(known.stream.next(Opened))
        assert (opened.record.step, opened.next_sequence) == (known.step, known.sequence)
        assert opened.episodes_pending == known.pending
        if old is not None:
            self.run(old.leave())

    @rule(known=sessions, n=st.integers(1, 3))
    def experience(self, known: Known, n: int) -> None:
        if self._say(known, trajectories(known.sequence, known.step, n)):
            known.pending += n
            assert self.run(known.stream.next(Accepted)) == Accepted(known.sequence, known.pending)
            known.sequence += 1

    @rule(known=sessions)
    def observe(self, known: Known) -> None:
        if self._say(known, observe(known.sequence, known.step)):
            assert self.run(known.stream.next(Actions)).step == known.step
            known.sequence += 1

    @rule(known=sessions)
    def advance(self, known: Known) -> None:
        if known.stream is not None and known.state is SessionState.ACTIVE and not known.pending:
            assert self._refusal(known.stream.say(Advance(known.sequence))) == "NO_EPISODES"
            return
        if not self._say(known, Advance(known.sequence)):
            return
        step = self.run(known.stream.next(StepTaken))
        assert (step.number, step.sequence, step.episodes) == (known.step + 1, known.sequence, known.pending)
        known.step, known.pending, known.sequence = step.number, 0, known.sequence + 1
        if known.step == MOST_STEPS:
            assert self.run(known.stream.next(Adapted)).step == MOST_STEPS
            self._over(known, SessionState.FINISHED)

    @rule(known=sessions)
    def finish(self, known: Known) -> None:
        if self._say(known, Finish(known.sequence)):
            assert self.run(known.stream.next(Adapted)).step == known.step
            self._over(known, SessionState.FINISHED)

    @rule(known=sessions, back=st.integers(1, 4))
    def repeat(self, known: Known, back: int) -> None:
        """A repetition has no effect, whatever it is answered."""
        if known.stream is None or known.sequence - back < 1:
            return
        assert self._refusal(known.stream.say(Finish(known.sequence - back))) in ("", "REPLY_FORGOTTEN")
        known.stream.live._outbox._messages.clear()

    @rule(known=sessions)
    def leave(self, known: Known) -> None:
        if known.stream is not None:
            self.run(known.stream.leave())
            known.stream = None

    @rule(known=sessions)
    def cancel(self, known: Known) -> None:
        record = self.run(self.house.hub.cancel(OWNER, known.id))
        self._over(known, SessionState.CANCELLED)
        assert record.state is known.state

    @rule()
    def time_passes(self) -> None:
        """Leases of attached sessions are renewed, others end: what the sweep does."""
        self.house.clock.now += 61
        store = self.house.store
        store.touch([known.id for known in self.known if known.stream is not None])
        expired = set(store.expire())
        assert expired == {k.id for k in self.known if k.stream is None and k.state is SessionState.ACTIVE}
        for known in self.known:
            if known.id in expired:
                known.state = SessionState.EXPIRED

    @rule()
    def restart(self) -> None:
        """Nothing but the disk survives: waiting episodes are lost, and messages after the last durable one."""
        store = self.house.store
        for known in self.known:
            known.stream, known.pending = None, 0
            record = store.get_session(known.id)
            known.sequence = max(1, record.last_sequence) + 1
        old = self.house
        self.run(old.hub.close())
        self.house = self.run(self._killed(old))

    async def _killed(self, old: House) -> House:
        return old.killed()

    def _refusal(self, work: Awaitable[object]) -> str:
        """Why it was refused; empty where it was not."""
        try:
            self.run(work)
        except PreconditionFailed as error:
            return error.reason
        return ""

    def _say(self, known: Known, message: Any) -> bool:
        """Whether a message that is right could be said."""
        if known.stream is None or known.state is not SessionState.ACTIVE:
            return False
        self.run(known.stream.say(message))
        return True

    def _over(self, known: Known, state: SessionState) -> None:
        if known.state is SessionState.ACTIVE:
            known.state = state
        if known.stream is not None:
            self.run(known.stream.leave())
            known.stream = None

    @invariant()
    def the_store_knows_what_the_clients_know(self) -> None:
        for known in getattr(self, "known", ()):
            record = self.house.store.get_session(known.id)
            assert (record.state, record.step) == (known.state, known.step)
            assert (record.policy_id is not None) == (known.state is SessionState.FINISHED)
            if known.state in (SessionState.CANCELLED, SessionState.EXPIRED):
                assert self.house.store.steps_after(known.id, 0) == []

    @invariant()
    def only_attached_sessions_hold_anything(self) -> None:
        if not hasattr(self, "known"):
            return
        attached = sum(known.stream is not None for known in self.known)
        assert self.house.hub.attached == attached
        assert self.run(self.house.rows()) == (attached, 0, 0)
        assert not self.house.hub._locks
        assert not self.complaints

    def teardown(self) -> None:
        if hasattr(self, "house"):
            self.run(self.house.hub.close())
            self.only_freed()
            self.house.store.close()
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.folder)

    def only_freed(self) -> None:
        assert self.run(self.house.rows()) == (0, 0, 0)
        assert self.house.hub.attached == 0


Sessions.TestCase.settings = settings(
    max_examples=8,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestSessions = Sessions.TestCase
