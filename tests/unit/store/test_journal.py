import pytest
from sqlalchemy import event

from innerloop_server.errors import PreconditionFailed
from innerloop_server.store.records import CommitStep, StepRecord


def test_a_step_comes_back(store, made, clock, session) -> None:
    clock.now += 3
    assert store.commit([made.step(session.id, 1, sequence=4)]) == frozenset()
    now = store.get_session(session.id)
    assert (now.step, now.episodes, now.seconds, now.last_sequence, now.updated_at) == (1, 20, 0.5, 4, clock.now)
    assert store.state_of(session.id) == f"state 1 of {session.id}".encode()
    assert store.steps_after(session.id, 0) == [StepRecord(session.id, 1, b"reply 1", 4)]
    assert store.reply_for_sequence(session.id, 4) == b"reply 1"
    assert store.reply_for_sequence(session.id, 3) is None


def test_only_the_latest_state_is_kept(store, made, session) -> None:
    for number in (1, 2, 3):
        store.commit([made.step(session.id, number)])
    assert store.counts()["states"] == 1
    assert store.state_of(session.id) == f"state 3 of {session.id}".encode()
    assert [each.number for each in store.steps_after(session.id, 1)] == [2, 3]


def test_the_last_sequence_never_goes_back(store, made, session) -> None:
    store.commit([made.step(session.id, 1, sequence=4)])
    store.commit([made.step(session.id, 2)])
    assert store.get_session(session.id).last_sequence == 4
    record = StepRecord(session.id, 3, b"", 6)
    store.commit([CommitStep(record, b"", 1, 1.0, last_sequence=8)])
    assert store.get_session(session.id).last_sequence == 8


def test_several_steps_of_one_message_answer_with_the_last(store, made, session) -> None:
    store.commit([made.step(session.id, 1, sequence=1)])
    store.commit([made.step(session.id, 2, sequence=1)])
    assert store.reply_for_sequence(session.id, 1) == b"reply 2"


def test_a_tick_is_one_transaction(store, made) -> None:
    ids = [store.create_session(made.session())[0].id for _ in range(64)]
    commits = []
    event.listen(store._database.engine, "commit", commits.append)
    store.commit([made.step(each, 1) for each in ids])
    assert len(commits) == 1
    assert store.counts()["steps"] == 64


@pytest.mark.parametrize("where", ["UPDATE sessions", "INSERT INTO steps", "UPDATE states", "commit"])
def test_a_failure_in_the_middle_applies_nothing(store, made, where) -> None:
    ids = [store.create_session(made.session())[0].id for _ in range(3)]
    store.commit([made.step(each, 1) for each in ids])
    engine = store._database.engine

    def fail_statement(_conn, _cursor, statement, *_):
        if statement.startswith(where):
            raise RuntimeError("pulled the plug")

    def fail_commit(_conn):
        raise RuntimeError("pulled the plug")

    listener = ("commit", fail_commit) if where == "commit" else ("before_cursor_execute", fail_statement)
    event.listen(engine, *listener)
    with pytest.raises(RuntimeError, match="plug"):
        store.commit([made.step(each, 2) for each in ids])
    event.remove(engine, *listener)
    for each in ids:
        assert store.get_session(each).step == 1
        assert store.state_of(each) == f"state 1 of {each}".encode()
        assert len(store.steps_after(each, 0)) == 1
    assert store.commit([made.step(each, 2) for each in ids]) == frozenset()


@pytest.mark.parametrize("number", [1, 3, 0])
def test_a_step_out_of_order_spoils_the_tick(store, made, session, number) -> None:
    other, _ = store.create_session(made.session())
    store.commit([made.step(session.id, 1)])
    with pytest.raises(PreconditionFailed) as caught:
        store.commit([made.step(other.id, 1), made.step(session.id, number)])
    assert caught.value.reason == "STEP_OUT_OF_ORDER"
    assert caught.value.facts == {"session": session.id, "step": str(number), "last": "1"}
    assert store.get_session(other.id).step == 0


def test_sessions_that_ended_meanwhile_are_left_out(store, made, session) -> None:
    cancelled, _ = store.create_session(made.session())
    store.cancel_session(cancelled.id)
    gone = store.commit([made.step(cancelled.id, 1), made.step(session.id, 1), made.step("s0", 1)])
    assert gone == {cancelled.id, "s0"}
    assert store.get_session(session.id).step == 1
    assert store.counts()["steps"] == store.counts()["states"] == 1
    assert store.commit([made.step(cancelled.id, 1)]) == {cancelled.id}
    assert store.commit([]) == frozenset()
