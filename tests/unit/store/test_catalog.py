from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from innerloop_server.errors import AlreadyExists, NotFound, PreconditionFailed
from innerloop_server.store.pages import PageRequest


def test_a_learner_comes_back(empty, made, clock) -> None:
    put = empty.put_learner(made.spec)
    assert put == empty.get_learner(made.spec.name)
    assert put.spec == made.spec
    assert (put.owner, put.champion, put.previous_champion, put.created_at) == ("", None, None, clock.now)


def test_the_same_learner_again_is_the_first(empty, made, clock) -> None:
    first = empty.put_learner(made.spec)
    clock.now += 5
    assert empty.put_learner(made.spec) == first
    assert empty.counts()["learners"] == 1


def test_another_learner_of_that_name_is_refused(empty, made) -> None:
    empty.put_learner(made.spec)
    with pytest.raises(AlreadyExists):
        empty.put_learner(replace(made.spec, horizon=7))
    with pytest.raises(AlreadyExists):
        empty.put_learner(made.spec, owner="ann")


def test_owners_see_their_learners_and_the_servers(empty, made) -> None:
    for name, owner in (("a", ""), ("b", "ann"), ("c", "bob")):
        empty.put_learner(replace(made.spec, name=name), owner)
    assert [each.id for each in empty.list_learners("ann").items] == ["a", "b"]
    assert [each.id for each in empty.list_learners(None).items] == ["a", "b", "c"]
    with pytest.raises(NotFound):
        empty.get_learner("c", "ann")


def test_revisions_are_numbered_from_one(empty, made) -> None:
    empty.put_learner(made.spec)
    manifest = {"seed": 3, "scores": [{"k": 0, "mean": -38.26}], "commit": "abc"}
    numbers = [empty.add_revision(made.spec.name, made.weights(i), manifest).number for i in range(3)]
    assert numbers == [1, 2, 3]
    second = empty.get_revision(made.spec.name, 2)
    assert empty.read_blob(second.blob) == made.weights(1)
    assert (second.manifest, second.promoted) == (manifest, False)
    page = empty.list_revisions(made.spec.name, PageRequest(size=2))
    assert [each.number for each in page.items] == [3, 2]


def test_threads_never_get_the_same_number(empty, made) -> None:
    empty.put_learner(made.spec)
    with ThreadPoolExecutor(8) as pool:
        add = pool.map(lambda i: empty.add_revision(made.spec.name, made.weights(i), {}).number, range(24))
        assert sorted(add) == list(range(1, 25))


def test_promotion_and_one_step_back(store, made) -> None:
    name = made.spec.name
    store.add_revision(name, made.weights(2), {})
    assert store.promote(name, 1).champion == 1
    after = store.promote(name, 2)
    assert (after.champion, after.previous_champion) == (2, 1)
    assert store.promote(name, 2) == after
    back = store.roll_back(name)
    assert (back.champion, back.previous_champion) == (1, None)
    assert store.get_revision(name, 2).promoted
    with pytest.raises(PreconditionFailed) as caught:
        store.roll_back(name)
    assert caught.value.reason == "NO_PREVIOUS_CHAMPION"


def test_what_does_not_exist(store, made) -> None:
    name = made.spec.name
    for call in (
        lambda: store.get_learner("nobody"),
        lambda: store.add_revision("nobody", made.weights(), {}),
        lambda: store.list_revisions("nobody"),
        lambda: store.get_revision(name, 9),
        lambda: store.promote(name, 9),
        lambda: store.roll_back("nobody"),
    ):
        with pytest.raises(NotFound):
            call()
