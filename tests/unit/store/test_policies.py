import pytest

from innerloop_server.errors import NotFound
from innerloop_server.store.ids import new_id
from innerloop_server.store.records import PolicyRecord


def policy(owner: str) -> PolicyRecord:
    return PolicyRecord(
        id=new_id("p"),
        owner=owner,
        session_id=None,
        learner_id="l",
        revision=1,
        family="f",
        blob="",
        size=0,
        header={"hidden_sizes": [64]},
        created_at=0.0,
    )


def test_a_policy_comes_back(empty, made, clock) -> None:
    put = empty.put_policy(policy("ann"), made.weights(3))
    assert empty.get_policy(put.id, "ann") == put
    assert empty.read_blob(put.blob) == empty.blob_path(put.blob).read_bytes() == made.weights(3)
    assert (put.size, put.created_at) == (len(made.weights(3)), clock.now)


def test_policies_are_their_owners_alone(empty, made) -> None:
    mine, theirs = (empty.put_policy(policy(owner), made.weights()) for owner in ("ann", "bob"))
    assert empty.list_policies("ann").items == (mine,)
    assert empty.list_policies(None).items == (theirs, mine)
    for call in (empty.get_policy, empty.delete_policy):
        with pytest.raises(NotFound):
            call(theirs.id, "ann")
    assert empty.counts()["policies"] == 2


def test_a_deleted_policy_is_gone_from_its_session_too(store, made, session) -> None:
    _, kept = store.finish_session(session.id, policy_id="p1", policy=made.weights(), header={}, reply=b"")
    store.delete_policy(kept.id, "ann")
    with pytest.raises(NotFound):
        store.get_policy(kept.id)
    assert store.get_session(session.id).policy_id is None
