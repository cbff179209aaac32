import math
from dataclasses import replace

import pytest

from innerloop_server.domain import Reference, Score, Simulator, Split
from innerloop_server.errors import Exhausted, NotFound, PreconditionFailed
from innerloop_server.store.pages import PageRequest
from innerloop_server.store.records import EvaluationState, ScoreRecord, TrainingState


def score(k: int, **changes) -> ScoreRecord:
    return ScoreRecord(
        evaluation_id="",
        family=changes.pop("family", "navigation-2d"),
        learner_id="l",
        revision=changes.pop("revision", 2),
        split=Split.TEST,
        guard=True,
        simulator=Simulator.BATCH,
        greedy=changes.pop("greedy", False),
        score=Score(k, 400, 20, -1.5 - k, -1.4, -1.7, changes.pop("high", -1.3), 0.1, changes.pop("metrics", {})),
        references=(Reference("oracle", -0.51, "formula"),),
    )


def test_an_evaluation_from_queue_to_scores(empty, clock) -> None:
    queued = empty.create_evaluation({"tasks": 400}, "ann", total=3)
    assert (queued.state, queued.done, queued.total, queued.finished_at) == (EvaluationState.QUEUED, 0, 3, None)
    running = empty.progress_evaluation(queued.id, 2, 3)
    assert (running.state, running.done) == (EvaluationState.RUNNING, 2)
    clock.now += 9
    done = empty.finish_evaluation(queued.id, [score(0), score(1)])
    assert done == empty.get_evaluation(queued.id, "ann")
    assert (done.state, done.finished_at, done.request) == (EvaluationState.DONE, clock.now, {"tasks": 400})
    rows = empty.query_scores(owner="ann").items
    assert rows == tuple(replace(score(k), evaluation_id=queued.id, created_at=clock.now) for k in (0, 1))


def test_scores_are_found_by_what_they_are_of(empty) -> None:
    one = empty.create_evaluation({})
    empty.finish_evaluation(one.id, [score(k, family=f, revision=r) for f in "ab" for r in (0, 1) for k in (0, 1, 2)])
    found = empty.query_scores(family="a", learner_id="l", revision=0, k=0).items
    assert [(each.family, each.revision, each.score.k) for each in found] == [("a", 0, 0)]
    assert len(empty.query_scores(k=2).items) == 4
    page = empty.query_scores(k=2, page=PageRequest(3))
    assert len(page.items) == 3
    assert len(empty.query_scores(k=2, page=PageRequest(3, page.next_token)).items) == 1


def test_asking_twice_with_one_request_id_asks_once(empty) -> None:
    first = empty.create_evaluation({"tasks": 400}, "ann", request_id="r1")
    assert first.request_id == "r1"
    assert empty.create_evaluation({"tasks": 9}, "ann", unfinished_limit=1, request_id="r1") == first
    assert empty.create_evaluation({}, "bob", request_id="r1").id != first.id
    assert len({empty.create_evaluation({}, "ann").id for _ in range(2)}) == 2


def test_greedy_scores_say_so(empty) -> None:
    one = empty.create_evaluation({})
    empty.finish_evaluation(one.id, [score(0), score(0, greedy=True)])
    assert [each.greedy for each in empty.query_scores().items] == [False, True]


def test_nan_survives(empty) -> None:
    one = empty.create_evaluation({})
    empty.finish_evaluation(one.id, [score(0, high=math.nan)])
    (row,) = empty.query_scores().items
    assert math.isnan(row.score.high)
    assert row.score.low == -1.7


def test_metrics_are_kept_those_that_are_numbers(empty) -> None:
    one = empty.create_evaluation({})
    empty.finish_evaluation(one.id, [score(0, metrics={"mse": 0.25, "r2": math.nan}), score(1)])
    assert [row.score.metrics for row in empty.query_scores().items] == [{"mse": 0.25}, {}]


def test_what_the_server_measured_is_read_by_all(empty) -> None:
    for owner in ("", "ann", "bob"):
        one = empty.create_evaluation({}, owner)
        empty.finish_evaluation(one.id, [score(0, family=owner or "server")])
        if owner == "bob":
            with pytest.raises(NotFound):
                empty.get_evaluation(one.id, "ann")
    assert {each.family for each in empty.query_scores(owner="ann").items} == {"server", "ann"}
    assert {each.owner for each in empty.list_evaluations("ann").items} == {"", "ann"}


def test_others_cannot_cancel(empty) -> None:
    mine, servers = empty.create_evaluation({}, "ann"), empty.create_evaluation({})
    for each in (mine, servers):
        with pytest.raises(NotFound):
            empty.cancel_evaluation(each.id, "bob")
    assert empty.cancel_evaluation(mine.id, "ann").state is EvaluationState.CANCELLED


def test_an_evaluation_ends_once(empty) -> None:
    one = empty.create_evaluation({})
    assert empty.fail_evaluation(one.id, "the actors died").error == "the actors died"
    for call in (
        lambda: empty.finish_evaluation(one.id, [score(0)]),
        lambda: empty.progress_evaluation(one.id, 1, 2),
        lambda: empty.cancel_evaluation(one.id),
    ):
        with pytest.raises(PreconditionFailed) as caught:
            call()
        assert caught.value.reason == "EVALUATION_ENDED"
    assert empty.counts()["scores"] == 0


def test_the_quota_counts_unfinished_ones(empty) -> None:
    first = empty.create_evaluation({}, "ann", unfinished_limit=1)
    with pytest.raises(Exhausted) as caught:
        empty.create_evaluation({}, "ann", unfinished_limit=1)
    assert caught.value.reason == "EVALUATION_QUOTA"
    empty.cancel_evaluation(first.id)
    empty.create_evaluation({}, "ann", unfinished_limit=1)
    assert len(empty.list_evaluations("ann", state=EvaluationState.QUEUED).items) == 1


def test_a_training_comes_back_and_goes_on(store, made, clock) -> None:
    begun = store.create_training(made.spec.name, {"tasks": 40}, seed=2**63 - 1, updates=300, owner="ann")
    clock.now += 2
    assert store.update_training(begun.id, update_number=7) == replace(begun, update=7, updated_at=clock.now)
    paused = store.update_training(begun.id, state=TrainingState.PAUSED)
    assert (paused.state, paused.update) == (TrainingState.PAUSED, 7)
    assert store.get_training(begun.id, "ann") == paused
    assert store.list_trainings("ann", state=TrainingState.PAUSED).items == (paused,)
    assert store.list_trainings("ann", learner_id="other").items == ()
    assert store.list_trainings("bob").items == ()
    with pytest.raises(NotFound):
        store.get_training(begun.id, "bob")
    with pytest.raises(NotFound):
        store.create_training("nobody", {}, 0, 1)
    with pytest.raises(NotFound):
        store.update_training("t0", update_number=1)


def test_a_training_has_a_directory(store, tmp_path) -> None:
    directory = store.training_dir("t1")
    assert directory.is_dir()
    assert directory == store.training_dir("t1") == tmp_path / "data" / "trainings" / "t1"
