"""EvaluationService: evaluations through the wire, over the real engine on small plans."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, TypeAlias

import grpc
import grpc.aio
import pytest
import safetensors.torch
import torch
from contract_support import bearer, call, dialled, serving, told, with_tokens

from innerloop.v1 import evaluation_pb2, evaluation_pb2_grpc, task_pb2
from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.evaluation.runner import EvaluationRunner
from innerloop_server.learners.registry import build
from innerloop_server.service.evaluation import EvaluationServicer
from innerloop_server.settings import Limits, Settings
from innerloop_server.store.records import LearnerRecord
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import Registry
from innerloop_server.training.specs import spec_for

Stub: TypeAlias = "evaluation_pb2_grpc.EvaluationServiceAsyncStub"

SERVICE = "innerloop.v1.EvaluationService"
LEARNER = "learners/navigation-2d-maml"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def learner(store: Store, registry: Registry) -> LearnerRecord:
    spec = spec_for(registry.get("navigation-2d"), settings={"hidden_sizes": [8], "episodes_per_step": 3})
    store.put_learner(spec)
    store.add_revision(spec.name, safetensors.torch.save(build(spec).initial_meta(0)), {})
    store.put_learner(spec_for(registry.get("navigation-2d"), name="untrained"))
    store.promote(spec.name, 1)
    return store.get_learner(spec.name)


@pytest.fixture
async def runner(store: Store, registry: Registry, learner: LearnerRecord) -> AsyncIterator[EvaluationRunner]:
    engine = LocalEngine(EngineCore(registry, torch.device("cpu"), device_rows=64))
    made = EvaluationRunner(engine, store, registry, Limits(evaluations_per_owner=2), chunk=2)
    await made.start()
    yield made
    await made.stop()
    assert (await engine.occupancy()).device_rows == 0
    engine.close()


@pytest.fixture
def servicers(runner: EvaluationRunner, store: Store, registry: Registry) -> Sequence[object]:
    return [EvaluationServicer(runner, store, registry, Limits())]


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Stub:
    return evaluation_pb2_grpc.EvaluationServiceStub(channel)


def a_plan(**changes: Any) -> evaluation_pb2.EvaluationPlan:
    asked = {"learner": LEARNER, "split": task_pb2.SPLIT_TEST, "task_seed": 1, "tasks": 3, "steps": 1, "seed": 4}
    return evaluation_pb2.EvaluationPlan(**{**asked, "evaluation_episodes": 2, **changes})


async def start(stub: Stub, request_id: str = "", metadata: Any = None, **changes: Any) -> evaluation_pb2.Evaluation:
    request = evaluation_pb2.StartEvaluationRequest(plan=a_plan(**changes), request_id=request_id)
    return (await stub.StartEvaluation(request, metadata=metadata)).evaluation


async def follow(stub: Stub, name: str, metadata: Any = None) -> list[evaluation_pb2.Evaluation]:
    replies = stub.FollowEvaluation(evaluation_pb2.FollowEvaluationRequest(name=name), metadata=metadata)
    return [reply.evaluation async for reply in replies]


async def test_from_start_to_scores(stub: Stub) -> None:
    started = await start(stub)
    assert started.state == evaluation_pb2.EVALUATION_STATE_RUNNING
    assert (started.units_done, started.units_total) == (0, 4)
    plan = started.plan
    assert plan.learner == f"{LEARNER}/revisions/1"
    assert (plan.episodes_per_step, plan.evaluation_episodes) == (20, 2)
    assert plan.HasField("guard")
    assert plan.guard
    assert plan.simulator == task_pb2.SIMULATOR_BATCH
    seen = await follow(stub, started.name)
    done = seen[-1]
    assert done.state == evaluation_pb2.EVALUATION_STATE_DONE
    assert [one.units_done for one in seen] == sorted(one.units_done for one in seen)
    assert done.end_time.ToSeconds() >= done.create_time.ToSeconds() > 0
    assert [score.k for score in done.scores] == [0, 1]
    assert {reference.name for reference in done.references} == {"no-move", "oracle", "memoryless"}
    values = {reference.name: reference.value for reference in done.references}
    for score in done.scores:
        assert (score.evaluation, score.family) == (started.name, "families/navigation-2d")
        assert (score.revision, score.tasks, score.episodes) == (f"{LEARNER}/revisions/1", 3, 2)
        assert score.low <= score.mean <= score.high
        gap = (score.mean - values["memoryless"]) / (values["oracle"] - values["memoryless"])
        assert score.gap_closed == pytest.approx(gap)
    got = await stub.GetEvaluation(evaluation_pb2.GetEvaluationRequest(name=started.name))
    assert got.evaluation == done


async def test_the_same_plan_gives_the_same_scores(stub: Stub) -> None:
    ends = [(await follow(stub, (await start(stub)).name))[-1] for _ in range(2)]
    assert ends[0].name != ends[1].name
    numbers = [[(score.k, score.mean, score.low, score.high) for score in one.scores] for one in ends]
    assert numbers[0] == numbers[1]


async def test_one_task_has_no_interval(stub: Stub) -> None:
    (score,) = (await follow(stub, (await start(stub, tasks=1, steps=0)).name))[-1].scores
    assert math.isnan(score.low)
    assert math.isnan(score.standard_error)


async def test_scores_are_found(stub: Stub) -> None:
    names = []
    for seed in (1, 2):
        names.append((await start(stub, seed=seed, greedy=seed == 2)).name)
        await follow(stub, names[-1])

    async def query(**filters: Any) -> list[tuple[str, int]]:
        reply = await stub.QueryScores(evaluation_pb2.QueryScoresRequest(**filters))
        return [(score.evaluation, score.k) for score in reply.scores]

    everything = [(names[1], 0), (names[1], 1), (names[0], 0), (names[0], 1)]
    assert await query() == everything
    assert await query(family="families/navigation-2d", learner=f"{LEARNER}/revisions/1") == everything
    assert await query(k=0, learner=LEARNER) == [(names[1], 0), (names[0], 0)]
    assert await query(family="families/cartpole-dynamics") == []
    assert await query(learner=f"{LEARNER}/revisions/2") == []
    first = await stub.QueryScores(evaluation_pb2.QueryScoresRequest(page_size=3))
    assert [(score.evaluation, score.k, score.greedy) for score in first.scores] == [
        (names[1], 0, True),
        (names[1], 1, True),
        (names[0], 0, False),
    ]
    rest = await stub.QueryScores(evaluation_pb2.QueryScoresRequest(page_size=3, page_token=first.next_page_token))
    assert [(score.evaluation, score.k) for score in rest.scores] == everything[3:]
    assert rest.next_page_token == ""


async def test_the_same_request_id_gives_the_same_evaluation(stub: Stub) -> None:
    first = await start(stub, "mine")
    assert (await start(stub, "mine", seed=9)).name == first.name
    assert (await follow(stub, first.name))[-1].plan.seed == 4


async def test_cancelling(stub: Stub) -> None:
    started = await start(stub, tasks=1000, steps=100)
    request = evaluation_pb2.CancelEvaluationRequest(name=started.name)
    cancelled = (await stub.CancelEvaluation(request)).evaluation
    assert cancelled.state == evaluation_pb2.EVALUATION_STATE_CANCELLED
    assert (await stub.CancelEvaluation(request)).evaluation == cancelled
    assert await follow(stub, started.name) == [cancelled]
    assert not cancelled.scores


async def test_list_is_newest_first(stub: Stub) -> None:
    names = []
    for _ in range(3):
        names.append((await start(stub, tasks=1, steps=0)).name)
        await follow(stub, names[-1])
    page = await stub.ListEvaluations(evaluation_pb2.ListEvaluationsRequest(page_size=2))
    assert [one.name for one in page.evaluations] == names[:0:-1]
    assert all(len(one.scores) == 1 for one in page.evaluations)
    rest = await stub.ListEvaluations(
        evaluation_pb2.ListEvaluationsRequest(page_size=2, page_token=page.next_page_token)
    )
    assert [one.name for one in rest.evaluations] == names[:1]


async def test_an_owner_has_a_quota(stub: Stub) -> None:
    for _ in range(2):
        await start(stub, tasks=1000, steps=100)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await start(stub)
    error = told(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "EVALUATION_QUOTA")
    assert error.retry_seconds is not None


async def test_evaluations_are_their_owners_and_scores_everybodys(
    settings: Settings, servicers: Sequence[object]
) -> None:
    ann, bob = bearer("a"), bearer("b")
    async with serving(with_tokens(settings, a="ann", b="bob"), servicers) as server, dialled(server) as channel:
        stub: Stub = evaluation_pb2_grpc.EvaluationServiceStub(channel)
        mine = await start(stub, metadata=ann)
        await follow(stub, mine.name, ann)
        for message in (
            stub.GetEvaluation(evaluation_pb2.GetEvaluationRequest(name=mine.name), metadata=bob),
            stub.CancelEvaluation(evaluation_pb2.CancelEvaluationRequest(name=mine.name), metadata=bob),
            follow(stub, mine.name, bob),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await message
            assert told(caught.value).code is grpc.StatusCode.NOT_FOUND
        listed = await stub.ListEvaluations(evaluation_pb2.ListEvaluationsRequest(), metadata=bob)
        assert list(listed.evaluations) == []
        scores = await stub.QueryScores(evaluation_pb2.QueryScoresRequest(), metadata=bob)
        assert [score.evaluation for score in scores.scores] == [mine.name] * 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"learner": ""}, "plan.learner"),
        ({"learner": "learners/"}, "plan.learner"),
        ({"split": 0}, "plan.split"),
        ({"split": 77}, "plan.split"),
        ({"task_seed": 2**64 - 1}, "plan.task_seed"),
        ({"tasks": -1}, "plan.tasks"),
        ({"tasks": 1001}, "plan.tasks"),
        ({"steps": -1}, "plan.steps"),
        ({"steps": 101}, "plan.steps"),
        ({"episodes_per_step": -1}, "plan.episodes_per_step"),
        ({"episodes_per_step": 1001}, "plan.episodes_per_step"),
        ({"evaluation_episodes": -5}, "plan.evaluation_episodes"),
        ({"evaluation_episodes": 2**31 - 1}, "plan.evaluation_episodes"),
        ({"seed": 2**63}, "plan.seed"),
        ({"simulator": 9}, "plan.simulator"),
    ],
)
async def test_a_bad_plan_is_refused_by_field(channel: grpc.aio.Channel, changes: dict[str, Any], field: str) -> None:
    request = evaluation_pb2.StartEvaluationRequest(plan=a_plan(**changes))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, f"{SERVICE}/StartEvaluation", request)
    error = told(caught.value)
    assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert error.advice


@pytest.mark.parametrize(
    ("method", "request_message", "field"),
    [
        ("StartEvaluation", evaluation_pb2.StartEvaluationRequest(), "plan.learner"),
        ("StartEvaluation", evaluation_pb2.StartEvaluationRequest(request_id="a b"), "request_id"),
        ("GetEvaluation", evaluation_pb2.GetEvaluationRequest(name="e1"), "name"),
        ("FollowEvaluation", evaluation_pb2.FollowEvaluationRequest(), "name"),
        ("CancelEvaluation", evaluation_pb2.CancelEvaluationRequest(name="sessions/e1"), "name"),
        ("ListEvaluations", evaluation_pb2.ListEvaluationsRequest(page_size=-1), "page_size"),
        ("ListEvaluations", evaluation_pb2.ListEvaluationsRequest(page_token="?"), "page_token"),
        ("QueryScores", evaluation_pb2.QueryScoresRequest(family="navigation-2d"), "family"),
        ("QueryScores", evaluation_pb2.QueryScoresRequest(learner="x"), "learner"),
        ("QueryScores", evaluation_pb2.QueryScoresRequest(k=-1), "k"),
        ("QueryScores", evaluation_pb2.QueryScoresRequest(page_size=-1), "page_size"),
        ("QueryScores", evaluation_pb2.QueryScoresRequest(page_token="?"), "page_token"),
    ],
)
async def test_a_bad_request_is_refused_by_field(
    channel: grpc.aio.Channel, method: str, request_message: Any, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, f"{SERVICE}/{method}", request_message)
    error = told(caught.value)
    assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_what_does_not_exist_or_cannot_be_scored(channel: grpc.aio.Channel, stub: Stub) -> None:
    for method, message in (
        ("GetEvaluation", evaluation_pb2.GetEvaluationRequest(name="evaluations/e0")),
        ("FollowEvaluation", evaluation_pb2.FollowEvaluationRequest(name="evaluations/e0")),
        ("CancelEvaluation", evaluation_pb2.CancelEvaluationRequest(name="evaluations/e0")),
        ("StartEvaluation", evaluation_pb2.StartEvaluationRequest(plan=a_plan(learner="learners/nobody"))),
        ("StartEvaluation", evaluation_pb2.StartEvaluationRequest(plan=a_plan(learner=f"{LEARNER}/revisions/7"))),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, f"{SERVICE}/{method}", message)
        assert told(caught.value).code is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await start(stub, learner="learners/untrained")
    error = told(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_CHAMPION")
