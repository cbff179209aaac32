"""Any order of openings, steps, endings, leases, restarts: the store says what a dict would."""

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import safetensors.numpy
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from innerloop.arrays import Discrete
from innerloop_server.domain import Budget, Features, LearnerSpec, SessionState
from innerloop_server.errors import NotFound, PreconditionFailed
from innerloop_server.store.ids import new_id
from innerloop_server.store.records import CommitStep, NewSession, StepRecord
from innerloop_server.store.store import Store

SPEC = LearnerSpec("l", "maml", "f", Discrete(2), Discrete(2), (), (), (), (), 10, Features())
WEIGHTS = safetensors.numpy.save({})
LEASE = 100.0
OWNERS = st.sampled_from(["ann", "bob"])


@dataclass
class Model:
    owner: str
    expires_at: float
    state: SessionState = SessionState.ACTIVE
    replies: list[bytes] = field(default_factory=list)
    final: bytes | None = None
    journal: bool = True


class Lifecycle(RuleBasedStateMachine):
    sessions = Bundle("sessions")
    some = st.lists(sessions, min_size=1, max_size=5).map(set)

    @initialize()
    def start(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.now = 1_000.0
        self.model: dict[str, Model] = {}
        self.requests: dict[tuple[str, str], str] = {}
        self.store = self.opened()
        self.store.put_learner(SPEC)
        self.store.add_revision("l", WEIGHTS, {})

    def opened(self) -> Store:
        return Store.open(self.directory, clock=lambda: self.now)

    @rule(target=sessions, owner=OWNERS, request_id=st.sampled_from(["", "", "r1", "r2"]))
    def open_session(self, owner: str, request_id: str):
        new = NewSession(owner, "l", 1, "f", True, None, Budget(), 0, LEASE, request_id)
        record, created = self.store.create_session(new)
        known = self.requests.get((owner, request_id)) if request_id else None
        assert created == (known is None)
        if not created:
            assert record.id == known
            return multiple()
        self.requests[owner, request_id] = record.id
        self.model[record.id] = Model(owner, self.now + LEASE)
        return record.id

    @rule(tick=some, content=st.binary(max_size=8))
    def commit(self, tick: set[str], content: bytes) -> None:
        steps = []
        for each in tick:
            number = len(self.model[each].replies) + 1
            record = StepRecord(each, number, content, number)
            steps.append(CommitStep(record, content + b"state", number, float(number)))
        active = {each for each in tick if self.model[each].state is SessionState.ACTIVE}
        assert self.store.commit(steps) == tick - active
        for each in active:
            self.model[each].replies.append(content)

    @rule(tick=some, skip=st.integers(2, 3))
    def commit_with_a_gap(self, tick: set[str], skip: int) -> None:
        active = sorted(each for each in tick if self.model[each].state is SessionState.ACTIVE)
        if not active:
            return
        steps = [CommitStep(StepRecord(e, len(self.model[e].replies) + 1, b"", None), b"", 0, 0.0) for e in active[:-1]]
        last = StepRecord(active[-1], len(self.model[active[-1]].replies) + skip, b"", None)
        with pytest.raises(PreconditionFailed):
            self.store.commit([*steps, CommitStep(last, b"", 0, 0.0)])

    @rule(session=sessions, reply=st.binary(max_size=8))
    def finish(self, session: str, reply: bytes) -> None:
        expected = self.model[session]
        arguments = {"policy_id": new_id("p"), "policy": WEIGHTS, "header": {}, "reply": reply}
        if expected.state is not SessionState.ACTIVE:
            with pytest.raises(PreconditionFailed):
                self.store.finish_session(session, **arguments)
            return
        self.store.finish_session(session, **arguments)
        expected.state, expected.final = SessionState.FINISHED, reply

    @rule(session=sessions, owner=OWNERS)
    def cancel(self, session: str, owner: str) -> None:
        expected = self.model[session]
        if owner != expected.owner:
            with pytest.raises(NotFound):
                self.store.cancel_session(session, owner)
        elif expected.state in (SessionState.FINISHED, SessionState.EXPIRED):
            with pytest.raises(PreconditionFailed):
                self.store.cancel_session(session, owner)
        else:
            self.store.cancel_session(session, owner)
            expected.state, expected.journal = SessionState.CANCELLED, False

    @rule(tick=some)
    def touch(self, tick: set[str]) -> None:
        self.store.touch(tick)
        for each in tick:
            if self.model[each].state is SessionState.ACTIVE:
                self.model[each].expires_at = self.now + LEASE

    @rule(seconds=st.sampled_from([1.0, 60.0, 99.0]), collect=st.booleans())
    def time_passes(self, seconds: float, collect: bool) -> None:
        self.now += seconds
        over = [m for m in self.model.values() if m.expires_at <= self.now]
        expired = {i for i, m in self.model.items() if m in over and m.state is SessionState.ACTIVE}
        assert set(self.store.collect().expired if collect else self.store.expire()) == expired
        for each in expired:
            self.model[each].state, self.model[each].journal = SessionState.EXPIRED, False
        if collect:
            for each in over:
                each.journal = False

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = self.opened()

    @rule(session=sessions, owner=OWNERS)
    def look(self, session: str, owner: str) -> None:
        expected = self.model[session]
        if owner != expected.owner:
            with pytest.raises(NotFound):
                self.store.get_session(session, owner)
            return
        got = self.store.get_session(session, owner)
        assert (got.state, got.step, got.expires_at) == (expected.state, len(expected.replies), expected.expires_at)
        assert got.last_sequence == got.episodes == got.seconds == got.step
        kept = expected.replies if expected.journal else []
        assert [each.reply for each in self.store.steps_after(session, 0)] == kept
        assert self.store.final_reply(session) == (expected.final if expected.journal else None)
        alive = expected.state is SessionState.ACTIVE and expected.replies
        assert self.store.state_of(session) == (expected.replies[-1] + b"state" if alive else None)

    @invariant()
    def counts(self) -> None:
        if not hasattr(self, "store"):
            return
        models = self.model.values()
        counts = self.store.counts()
        assert counts["sessions"] == len(models)
        assert counts["steps"] == sum(len(m.replies) for m in models if m.journal)
        assert counts["states"] == sum(m.state is SessionState.ACTIVE for m in models)
        assert counts["endings"] == sum(m.final is not None and m.journal for m in models)
        assert counts["policies"] == sum(m.state is SessionState.FINISHED for m in models)
        for owner in ("ann", "bob"):
            mine = [i for i, m in self.model.items() if m.owner == owner]
            assert [each.id for each in self.store.list_sessions(owner).items] == mine[::-1]
            active = sum(m.owner == owner and m.state is SessionState.ACTIVE for m in models)
            assert self.store.count_active(owner) == active

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.directory)


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(
    max_examples=10, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
