from innerloop_server.domain import SessionState
from innerloop_server.store.records import Collected

DAY = 86_400.0


def finish(store, made, session_id, value):
    return store.finish_session(
        session_id, policy_id=f"p{value}", policy=made.weights(value), header={}, reply=b"adapted"
    )


def test_nothing_to_do(store, session) -> None:
    assert store.collect() == Collected((), 0, 0, 0, 0)


def test_journals_go_when_the_lease_ends(store, made, clock, session) -> None:
    other, _ = store.create_session(made.session(lease_seconds=2_000.0))
    store.commit([made.step(session.id, 1), made.step(other.id, 1)])
    finish(store, made, session.id, 7)
    assert store.collect(clock.now + 899).journals == 0
    assert store.final_reply(session.id) == b"adapted"
    collected = store.collect(clock.now + 900)
    assert (collected.expired, collected.journals) == ((), 1)
    assert store.final_reply(session.id) is None
    assert store.get_session(session.id).state is SessionState.FINISHED
    assert store.state_of(other.id) is not None
    collected = store.collect(clock.now + 2_000)
    assert (collected.expired, collected.journals) == ((other.id,), 1)
    assert store.counts()["steps"] == store.counts()["states"] == store.counts()["endings"] == 0


def test_records_of_sessions_go_after_a_week_and_their_policies_stay(store, made, clock, session) -> None:
    _, policy = finish(store, made, session.id, 7)
    assert store.collect(clock.now + 900 + 7 * DAY - 1).sessions == 0
    assert store.collect(clock.now + 900 + 7 * DAY).sessions == 1
    assert store.get_policy(policy.id).session_id is None
    assert store.read_blob(policy.blob) == made.weights(7)


def test_an_active_session_is_never_collected(store, made, clock, session) -> None:
    store.commit([made.step(session.id, 1)])
    store.touch([session.id], clock.now + 30 * DAY)
    store.collect(clock.now + 30 * DAY)
    assert store.state_of(session.id) is not None


def test_blobs_go_once_nothing_refers_to_them_and_they_are_old(store, made, clock, session) -> None:
    revision = store.get_revision(made.spec.name, 1)
    _, policy = finish(store, made, session.id, 7)
    orphan = store.put_blob(made.weights(8))
    assert store.collect(clock.now + 3_600).blobs == 0
    collected = store.collect(clock.now + 3_601)
    assert (collected.blobs, collected.bytes) == (1, len(made.weights(8)))
    assert store.read_blob(revision.blob)
    assert store.read_blob(policy.blob)
    store.delete_policy(policy.id)
    assert store.collect(clock.now + 3_601).blobs == 1
    assert not store._blobs.path(policy.blob).exists()
    assert not store._blobs.path(orphan).exists()


def test_a_blob_shared_by_two_records_goes_with_the_last(store, made, clock, session) -> None:
    _, policy = finish(store, made, session.id, 1)
    assert policy.blob == store.get_revision(made.spec.name, 1).blob
    store.delete_policy(policy.id)
    assert store.collect(clock.now + DAY).blobs == 0
    assert store.read_blob(policy.blob)


def test_a_blob_put_while_collecting_is_not_eaten(store, made, clock, monkeypatch) -> None:
    orphan = store.put_blob(made.weights(8))
    clock.now += DAY
    remove = store._blobs.remove_unreferenced

    def put_in_between(referenced, before):
        store.add_revision(made.spec.name, made.weights(8), {})  # after the look at the catalog
        return remove(referenced, before)

    monkeypatch.setattr(store._blobs, "remove_unreferenced", put_in_between)
    assert store.collect().blobs == 0
    assert store.read_blob(orphan) == made.weights(8)
