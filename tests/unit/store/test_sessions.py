import re

import numpy as np
import pytest

from innerloop_server.domain import SessionState
from innerloop_server.errors import Exhausted, NotFound, PreconditionFailed
from innerloop_server.store.ids import new_id
from innerloop_server.store.pages import PageRequest


def finish(store, made, session_id, **changes):
    arguments = {
        "policy_id": new_id("p"),
        "policy": made.weights(9),
        "header": {"architecture": "mlp"},
        "reply": b"adapted",
        "sequence": 5,
        "reason": "asked",
    }
    return store.finish_session(session_id, **{**arguments, **changes})


def test_a_session_comes_back(store, made, clock) -> None:
    new = made.session(request_id="r1")
    opened, created = store.create_session(new)
    assert created
    got = store.get_session(opened.id, "ann")
    assert re.fullmatch("s[0-9a-f]{20}", got.id)
    for name in ("owner", "request_id", "learner_id", "revision", "family", "simulated", "budget", "seed", "options"):
        assert getattr(got, name) == getattr(new, name)
    np.testing.assert_array_equal(got.task.parameters["goal"], made.task.parameters["goal"])
    assert got.task.name == made.task.name
    assert (got.state, got.step, got.episodes, got.seconds, got.last_sequence) == (SessionState.ACTIVE, 0, 0, 0.0, 0)
    assert (got.created_at, got.updated_at, got.expires_at) == (clock.now, clock.now, clock.now + 900)
    assert (got.policy_id, got.end_reason) == (None, "")
    assert store.state_of(got.id) is None


def test_a_client_owned_session_has_no_task(store, made) -> None:
    opened, _ = store.create_session(made.session(simulated=False, task=None))
    assert opened.task is None


def test_opening_twice_with_one_request_id_opens_once(store, made) -> None:
    first, created = store.create_session(made.session(request_id="r1"))
    again, created_again = store.create_session(made.session(request_id="r1", seed=5), active_limit=1)
    assert (created, created_again) == (True, False)
    assert (again.id, again.seed) == (first.id, first.seed)
    assert store.create_session(made.session("bob", "r1"))[0].id != first.id


def test_without_request_id_every_session_is_new(store, made) -> None:
    ids = {store.create_session(made.session())[0].id for _ in range(3)}
    assert len(ids) == 3


def test_a_session_needs_its_revision(store, made) -> None:
    with pytest.raises(NotFound, match="revisions/2"):
        store.create_session(made.session(revision=2))
    assert store.counts()["sessions"] == 0


def test_the_quota_counts_active_sessions_of_one_owner(store, made) -> None:
    first, _ = store.create_session(made.session(), active_limit=2)
    store.create_session(made.session("bob"), active_limit=1)
    store.create_session(made.session(), active_limit=2)
    with pytest.raises(Exhausted) as caught:
        store.create_session(made.session(), active_limit=2)
    assert caught.value.reason == "SESSION_QUOTA"
    store.cancel_session(first.id)
    store.create_session(made.session(), active_limit=2)
    assert store.count_active("ann") == 2


def test_nobody_reaches_anothers_session(store, session) -> None:
    with pytest.raises(NotFound) as other:
        store.get_session(session.id, "bob")
    with pytest.raises(NotFound) as nothing:
        store.get_session("s0", "bob")
    assert type(other.value) is type(nothing.value)
    with pytest.raises(NotFound):
        store.cancel_session(session.id, "bob")
    assert store.list_sessions("bob").items == ()
    assert store.get_session(session.id, "ann").state is SessionState.ACTIVE


def test_finishing_leaves_a_policy_and_the_last_reply(store, made, session) -> None:
    store.commit([made.step(session.id, 1, sequence=4)])
    ended, policy = finish(store, made, session.id)
    assert (ended.state, ended.policy_id, ended.end_reason, ended.last_sequence, ended.step) == (
        SessionState.FINISHED,
        policy.id,
        "asked",
        5,
        1,
    )
    assert store.get_policy(policy.id, "ann") == policy
    assert (policy.session_id, policy.learner_id, policy.revision) == (session.id, session.learner_id, 1)
    assert store.read_blob(policy.blob) == made.weights(9)
    assert policy.size == len(made.weights(9))
    assert store.state_of(session.id) is None
    assert store.reply_for_sequence(session.id, 4) == b"reply 1"
    assert store.reply_for_sequence(session.id, 5) == b"adapted"
    assert store.final_reply(session.id) == b"adapted"
    assert [each.number for each in store.steps_after(session.id, 0)] == [1]


def test_a_session_that_its_budget_ended_answers_without_sequence(store, made, session) -> None:
    ended, _ = finish(store, made, session.id, sequence=None)
    assert ended.last_sequence == 0
    assert store.final_reply(session.id) == b"adapted"


def test_finishing_is_all_or_nothing(store, made, session) -> None:
    _, policy = finish(store, made, session.id)
    other, _ = store.create_session(made.session())
    before = store.counts()
    with pytest.raises(Exception, match=r"(?i)unique"):
        finish(store, made, other.id, policy_id=policy.id)
    assert store.counts() == before
    assert store.get_session(other.id).state is SessionState.ACTIVE


def test_cancelling_leaves_no_journal(store, made, session) -> None:
    store.commit([made.step(session.id, 1)])
    cancelled = store.cancel_session(session.id, "ann", "changed my mind")
    assert (cancelled.state, cancelled.end_reason) == (SessionState.CANCELLED, "changed my mind")
    counts = store.counts()
    assert (counts["steps"], counts["states"], counts["endings"], counts["policies"]) == (0, 0, 0, 0)
    assert store.cancel_session(session.id, "ann", "again") == cancelled


def test_what_ended_stays_ended(store, made, session) -> None:
    finish(store, made, session.id)
    for call in (lambda: finish(store, made, session.id), lambda: store.cancel_session(session.id)):
        with pytest.raises(PreconditionFailed) as caught:
            call()
        assert caught.value.reason == "SESSION_ENDED"
        assert caught.value.facts["state"] == "finished"


def test_leases_are_renewed_in_batches(store, made, clock, session) -> None:
    short, _ = store.create_session(made.session(lease_seconds=10.0))
    ended, _ = store.create_session(made.session())
    store.cancel_session(ended.id)
    clock.now += 5
    store.touch([session.id, short.id, ended.id, "s0"])
    store.touch([])
    assert store.get_session(session.id).expires_at == clock.now + 900
    assert store.get_session(short.id).expires_at == clock.now + 10
    assert store.get_session(ended.id).expires_at == ended.expires_at


def test_expiry_ends_the_session_and_its_journal(store, made, clock, session) -> None:
    store.commit([made.step(session.id, 1)])
    assert store.expire(session.expires_at - 0.1) == ()
    assert store.expire(session.expires_at) == (session.id,)
    assert store.expire(session.expires_at) == ()
    assert store.get_session(session.id).state is SessionState.EXPIRED
    assert store.counts()["steps"] == store.counts()["states"] == 0


def test_lists_filter_by_state(store, made, session) -> None:
    other, _ = store.create_session(made.session())
    store.cancel_session(session.id)
    assert [each.id for each in store.list_sessions("ann").items] == [other.id, session.id]
    page = store.list_sessions(None, PageRequest(), SessionState.ACTIVE)
    assert [each.id for each in page.items] == [other.id]
