import asyncio
from dataclasses import replace

import numpy as np
import pytest
from evaluation_fakes import FakeEngine, a_ref

from innerloop_server.adaptation.orders import Priority, RolloutOrder
from innerloop_server.domain import Simulator, Split
from innerloop_server.errors import Exhausted, InnerloopError, Unavailable
from innerloop_server.evaluation.plan import Plan, draw_tasks, session_seed
from innerloop_server.evaluation.protocol import evaluate, units
from innerloop_server.tasks.registry import load_registry

FAMILY = load_registry().get("navigation-2d")
PLAN = Plan(Split.TEST, 1, 7, 2, 5, 4, 9, guard=False, greedy=True, simulator=Simulator.BATCH)
TASKS = draw_tasks(FAMILY, PLAN)


async def test_exact_returns_and_scores() -> None:
    result = await evaluate(FakeEngine(), PLAN, TASKS, a_ref(), chunk=3)
    expected = 10.0 * np.arange(7)[:, None] + np.arange(3)
    np.testing.assert_array_equal(result.returns, expected)
    assert [score.k for score in result.scores] == [0, 1, 2]
    assert [score.mean for score in result.scores] == [30.0, 31.0, 32.0]
    assert all((score.tasks, score.episodes) == (7, 4) for score in result.scores)
    assert result.trajectories == {}


async def test_what_it_asks_of_the_engine() -> None:
    engine = FakeEngine()
    ref = a_ref()
    await evaluate(engine, PLAN, TASKS, ref, chunk=3)
    assert engine.most_resident == 3
    assert engine.resident == {}
    assert [order.task for order in engine.attached] == TASKS
    assert [order.seed for order in engine.attached] == [session_seed(PLAN, i) for i in range(7)]
    for order in engine.attached:
        assert (order.revision, order.priority, order.simulator) == (ref, Priority.BACKGROUND, Simulator.BATCH)
        assert (order.episodes_per_step, order.guard) == (5, False)
    assert len(engine.rollouts) == 7 * 3
    assert {(order.episodes, order.greedy, order.trajectories) for order in engine.rollouts} == {(4, True, False)}
    assert [(order.number, order.snapshot) for order in engine.steps] == 3 * [(1, False)] + 3 * [(2, False)] + 3 * [
        (1, False)
    ] + 3 * [(2, False)] + [(1, False), (2, False)]


async def test_progress_counts_every_chunk_and_k() -> None:
    seen: list[tuple[int, int]] = []

    async def progress(done: int, total: int) -> None:
        seen.append((done, total))

    await evaluate(FakeEngine(), PLAN, TASKS, a_ref(), progress, chunk=3)
    assert units(PLAN, 3) == 9
    assert seen == [(i, 9) for i in range(1, 10)]


async def test_trajectories_of_the_first_tasks() -> None:
    result = await evaluate(FakeEngine(), PLAN, TASKS, a_ref(), trajectories=2, chunk=1)
    assert set(result.trajectories) == {(index, k) for index in (0, 1) for k in (0, 1, 2)}


async def test_no_steps_scores_the_unadapted_state() -> None:
    engine = FakeEngine()
    result = await evaluate(engine, replace(PLAN, steps=0), TASKS, a_ref())
    assert result.returns.shape == (7, 1)
    assert engine.steps == []


async def test_cancelling_frees_everything() -> None:
    engine = FakeEngine()
    engine.gate = asyncio.Event()
    task = asyncio.create_task(evaluate(engine, PLAN, TASKS, a_ref(), chunk=3))
    await engine.reached.wait()
    assert len(engine.resident) == 3
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.resident == {}


async def test_a_failure_frees_everything_and_is_told() -> None:
    engine = FakeEngine()

    def fail(order: RolloutOrder) -> None:
        if order.k == 1:
            raise InnerloopError("the environment raised")

    engine.before_rollout = fail
    with pytest.raises(InnerloopError, match="the environment raised"):
        await evaluate(engine, PLAN, TASKS, a_ref())
    assert engine.resident == {}


async def test_a_chunk_that_lost_its_engine_is_done_again() -> None:
    engine = FakeEngine()
    falls = iter([False] * 8 + [True])

    def fall(order: RolloutOrder) -> None:
        if next(falls, False):
            raise Unavailable("the engine died")

    engine.before_rollout = fall
    result = await evaluate(engine, PLAN, TASKS, a_ref(), chunk=3, pauses=(0,))
    undisturbed = await evaluate(FakeEngine(), PLAN, TASKS, a_ref(), chunk=3)
    np.testing.assert_array_equal(result.returns, undisturbed.returns)
    assert len(engine.attached) == 7 + 3


async def test_a_device_that_stays_full_is_told_in_the_end() -> None:
    engine = FakeEngine(rows=2)
    with pytest.raises(Exhausted, match="full"):
        await evaluate(engine, PLAN, TASKS, a_ref(), chunk=3, pauses=(0, 0))
    assert engine.resident == {}
    assert len(engine.attached) == 3 * 2


async def test_what_does_not_pass_by_itself_is_told_at_once() -> None:
    engine = FakeEngine()

    async def full_disk(done: int, total: int) -> None:
        raise Exhausted("the disk is full", retry_after_seconds=None)

    with pytest.raises(Exhausted, match="disk"):
        await evaluate(engine, PLAN, TASKS, a_ref(), full_disk, chunk=3)
    assert len(engine.attached) == 3
    assert engine.resident == {}
