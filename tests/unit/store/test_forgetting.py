"""Learners that nothing rests on can be forgotten; all of those that are asked for, or none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from innerloop_server.errors import NotFound
from innerloop_server.store.records import TrainingState


@pytest.fixture
def three(empty, made):
    for name in ("a", "b", "c"):
        empty.put_learner(replace(made.spec, name=name), "ann")
    return empty


def names(store) -> list[str]:
    return [record.id for record in store.list_learners().items]


def test_a_learner_goes_with_its_trainings_and_their_folders(three) -> None:
    trainings = [three.create_training(name, {}, 0, 1, "ann").id for name in ("a", "a", "c")]
    for training, state in zip(trainings, ("failed", "paused", "running"), strict=True):
        three.update_training(training, state=TrainingState(state))
        (three.training_dir(training) / "log").write_text("...")
    folders = [three.training_dir(training) for training in trainings]
    forgotten = three.forget_learners(["a", "b", "gone"])
    assert forgotten.in_use == ()
    assert set(forgotten.trainings) == set(trainings[:2])
    assert names(three) == ["c"]
    assert [record.id for record in three.list_trainings().items] == trainings[2:]
    assert [folder.exists() for folder in folders] == [False, False, True]
    with pytest.raises(NotFound):  # nobody goes on with it
        three.update_training(trainings[1], state=TrainingState.RUNNING)


def test_where_one_is_in_use_all_stay(three, made) -> None:
    three.add_revision("b", made.weights(), {})
    idle = three.create_training("a", {}, 0, 1).id
    three.update_training(idle, state=TrainingState.DONE)
    running = three.create_training("c", {}, 0, 1).id
    assert three.forget_learners(["c", "b", "a"]).in_use == ("b", "c")
    assert names(three) == ["a", "b", "c"]
    assert {record.id for record in three.list_trainings().items} == {idle, running}


def test_nobody_is_forgotten_by_nobody(three) -> None:
    assert three.forget_learners([]).in_use == ()
    assert names(three) == ["a", "b", "c"]
