import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from evaluation_fakes import FakeEngine

from innerloop_server.adaptation.orders import RolloutOrder
from innerloop_server.domain import Simulator, Split
from innerloop_server.errors import Exhausted, InnerloopError, NotFound, PreconditionFailed, Unavailable
from innerloop_server.evaluation.plan import Plan
from innerloop_server.evaluation.runner import EvaluationRunner
from innerloop_server.settings import Limits
from innerloop_server.store.records import EvaluationRecord, EvaluationState, LearnerRecord
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import load_registry
from innerloop_server.training.specs import spec_for

REGISTRY = load_registry()
PLAN = Plan(Split.TEST, 1, 5, 2, 3, 4, 9, guard=True, greedy=True, simulator=Simulator.BATCH)
WEIGHTS = (2).to_bytes(8, "little") + b"{}"


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def learner(store: Store) -> LearnerRecord:
    record = store.put_learner(spec_for(REGISTRY.get("navigation-2d")))
    store.add_revision(record.id, WEIGHTS, {})
    store.promote(record.id, 1)
    return store.get_learner(record.id)


@pytest.fixture
async def runner(engine: FakeEngine, store: Store) -> AsyncIterator[EvaluationRunner]:
    made = EvaluationRunner(engine, store, REGISTRY, chunk=2)
    await made.start()
    yield made
    await made.stop()


async def end(runner: EvaluationRunner, evaluation_id: str) -> EvaluationRecord:
    return [record async for record in runner.follow(evaluation_id)][-1]


async def test_an_evaluation_from_request_to_scores(runner, store, learner) -> None:
    queued = await runner.submit(learner, 1, PLAN, "ann")
    assert (queued.state, queued.owner, queued.total) == (EvaluationState.QUEUED, "ann", 9)
    done = await end(runner, queued.id)
    assert (done.state, done.done, done.total) == (EvaluationState.DONE, 9, 9)
    rows = store.query_scores(evaluation_id=queued.id, newest_first=True).items
    assert [row.score.k for row in rows] == [0, 1, 2]
    assert [row.score.mean for row in rows] == [20.0, 21.0, 22.0]
    for row in rows:
        assert (row.family, row.learner_id, row.revision) == ("navigation-2d", learner.id, 1)
        assert (row.split, row.guard, row.greedy, row.simulator) == (Split.TEST, True, True, Simulator.BATCH)
        assert [reference.name for reference in row.references] == ["no-move", "oracle", "memoryless"]


async def test_a_follower_sees_it_go_on(runner, learner) -> None:
    queued = await runner.submit(learner, 1, PLAN)
    seen = [record async for record in runner.follow(queued.id)]
    counts = [record.done for record in seen]
    assert counts == sorted(counts)
    assert seen[-1].state is EvaluationState.DONE
    assert [record.state for record in seen[:-1]].count(EvaluationState.DONE) == 0
    assert [record async for record in runner.follow(queued.id)] == seen[-1:]


async def test_one_runs_and_the_others_wait_their_turn(runner, engine, learner) -> None:
    engine.gate = asyncio.Event()
    first = await runner.submit(learner, 1, PLAN)
    second = await runner.submit(learner, 1, replace(PLAN, seed=1))
    await engine.reached.wait()
    assert len(engine.resident) == 2
    states = [(await anext(runner.follow(one.id))).state for one in (first, second)]
    assert states == [EvaluationState.RUNNING, EvaluationState.QUEUED]
    engine.gate.set()
    assert (await end(runner, second.id)).state is EvaluationState.DONE
    assert (await end(runner, first.id)).finished_at < (await end(runner, second.id)).finished_at


async def test_cancelling_the_one_that_runs_frees_everything(runner, engine, learner, store) -> None:
    engine.gate = asyncio.Event()
    first = await runner.submit(learner, 1, PLAN, "ann")
    await engine.reached.wait()
    second = await runner.submit(learner, 1, PLAN, "ann")
    with pytest.raises(NotFound):
        await runner.cancel(first.id, "bob")
    cancelled = await runner.cancel(first.id, "ann")
    assert cancelled.state is EvaluationState.CANCELLED
    assert not [order for order in engine.resident.values() if order in engine.attached[:2]]
    assert (await runner.cancel(first.id, "ann")).state is EvaluationState.CANCELLED
    engine.gate.set()
    assert (await end(runner, second.id)).state is EvaluationState.DONE
    assert store.query_scores(evaluation_id=first.id).items == ()


async def test_cancelling_one_that_waits(runner, engine, learner) -> None:
    engine.gate = asyncio.Event()
    first = await runner.submit(learner, 1, PLAN)
    second = await runner.submit(learner, 1, PLAN)
    assert (await runner.cancel(second.id)).state is EvaluationState.CANCELLED
    assert (await end(runner, second.id)).state is EvaluationState.CANCELLED
    engine.gate.set()
    assert (await end(runner, first.id)).state is EvaluationState.DONE
    assert len(engine.attached) == 5


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InnerloopError("the environment raised"), "the environment raised"),
        (RuntimeError("secret"), "the server failed; its log says how"),
    ],
)
async def test_a_failure_is_kept_and_the_next_one_runs(runner, engine, learner, error, told) -> None:
    def fail(order: RolloutOrder) -> None:
        raise error

    engine.before_rollout = fail
    failed = await end(runner, (await runner.submit(learner, 1, PLAN)).id)
    assert (failed.state, failed.error) == (EvaluationState.FAILED, told)
    assert engine.resident == {}
    engine.before_rollout = lambda order: None
    assert (await end(runner, (await runner.submit(learner, 1, PLAN)).id)).state is EvaluationState.DONE


async def test_what_was_running_when_the_server_stopped_is_run_again(engine, store, learner) -> None:
    engine.gate = asyncio.Event()
    before = EvaluationRunner(engine, store, REGISTRY, chunk=2)
    await before.start()
    first = await before.submit(learner, 1, PLAN)
    second = await before.submit(learner, 1, PLAN)
    await engine.reached.wait()
    await before.stop()
    assert engine.resident == {}
    with pytest.raises(Unavailable):
        await end(before, first.id)
    engine.gate.set()
    after = EvaluationRunner(engine, store, REGISTRY, chunk=2)
    await after.start()
    try:
        ends = [await end(after, one.id) for one in (first, second)]
    finally:
        await after.stop()
    assert [one.state for one in ends] == [EvaluationState.DONE] * 2
    assert ends[0].finished_at < ends[1].finished_at
    means = [[row.score for row in store.query_scores(evaluation_id=one.id).items] for one in (first, second)]
    assert means[0] == means[1]


async def test_the_same_request_id_gives_the_same_evaluation(runner, learner) -> None:
    first = await runner.submit(learner, 1, PLAN, "ann", "r1")
    again = await runner.submit(learner, 1, replace(PLAN, seed=5), "ann", "r1")
    assert again.id == first.id
    assert (await runner.submit(learner, 1, PLAN, "bob", "r1")).id != first.id
    assert (await runner.submit(learner, 1, PLAN, "ann")).id != first.id
    done = await end(runner, first.id)
    assert done.request["plan"]["seed"] == PLAN.seed
    assert await runner.submit(learner, 1, PLAN, "ann", "r1") == done


async def test_an_owner_has_a_quota(engine, store, learner) -> None:
    idle = EvaluationRunner(engine, store, REGISTRY, Limits(evaluations_per_owner=2))
    first = await idle.submit(learner, 1, PLAN, "ann")
    await idle.submit(learner, 1, PLAN, "ann")
    with pytest.raises(Exhausted):
        await idle.submit(learner, 1, PLAN, "ann")
    await idle.submit(learner, 1, PLAN, "bob")
    await idle.cancel(first.id)
    await idle.submit(learner, 1, PLAN, "ann")


async def test_a_learner_means_its_champion(runner, store, learner) -> None:
    store.add_revision(learner.id, WEIGHTS, {})
    assert (await runner.resolve(learner.id, None))[1] == 1
    assert (await runner.resolve(learner.id, 2))[1] == 2
    with pytest.raises(NotFound):
        await runner.resolve(learner.id, 3)
    with pytest.raises(NotFound):
        await runner.resolve("nobody", None)
    other = store.put_learner(spec_for(REGISTRY.get("navigation-2d"), name="untrained"))
    with pytest.raises(PreconditionFailed) as caught:
        await runner.resolve(other.id, None)
    assert caught.value.reason == "NO_CHAMPION"


async def test_somebody_elses_cannot_be_followed(runner, learner) -> None:
    mine = await runner.submit(learner, 1, PLAN, "ann")
    with pytest.raises(NotFound):
        await anext(runner.follow(mine.id, "bob"))
