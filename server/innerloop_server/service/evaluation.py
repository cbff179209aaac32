"""EvaluationService: evaluations in the background, and the scores they leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio

from innerloop.v1 import evaluation_pb2, evaluation_pb2_grpc
from innerloop_server.domain import ReturnUnit
from innerloop_server.evaluation.plan import Plan, make_plan
from innerloop_server.evaluation.references.catalog import references
from innerloop_server.evaluation.request import EvaluationRequest
from innerloop_server.evaluation.runner import EvaluationRunner
from innerloop_server.evaluation.scores import TRIAL_RETURN, comparable, gap_closed
from innerloop_server.learners.registry import remembers
from innerloop_server.service.convert.enums import (
    EVALUATION_STATES,
    simulator_from_pb,
    simulator_to_pb,
    split_from_pb,
    split_to_pb,
)
from innerloop_server.service.convert.families import reference_to_pb
from innerloop_server.service.convert.names import (
    EVALUATION,
    FAMILY,
    format_revision,
    parse_learner_or_revision,
    request_id,
)
from innerloop_server.service.convert.paging import page_request
from innerloop_server.service.convert.values import optional_timestamp, timestamp, whole
from innerloop_server.service.principal import principal
from innerloop_server.settings import Limits
from innerloop_server.store.pages import PageRequest
from innerloop_server.store.records import EvaluationRecord, EvaluationState, LearnerRecord, ScoreRecord
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import Registry

Context = grpc.aio.ServicerContext[Any, Any]

_LARGEST_K = 100


class EvaluationServicer(evaluation_pb2_grpc.EvaluationServiceServicer):
    """Serves a runner's evaluations, each to its owner alone, and everybody's scores to everybody."""

    def __init__(self, runner: EvaluationRunner, store: Store, registry: Registry, limits: Limits) -> None:
        self._runner = runner
        self._store = store
        self._registry = registry
        self._limits = limits

    async def StartEvaluation(
        self, request: evaluation_pb2.StartEvaluationRequest, context: Context
    ) -> evaluation_pb2.StartEvaluationResponse:
        """Check everything, queue it, answer."""
        wanted = request_id(request.request_id)
        learner_id, number = parse_learner_or_revision(request.plan.learner, "plan.learner")
        learner, revision = await self._runner.resolve(learner_id, number)
        plan = self._plan(request.plan, learner)
        record = await self._runner.submit(learner, revision, plan, principal(), wanted)
        return evaluation_pb2.StartEvaluationResponse(evaluation=await self._evaluation(record))

    async def GetEvaluation(
        self, request: evaluation_pb2.GetEvaluationRequest, context: Context
    ) -> evaluation_pb2.GetEvaluationResponse:
        """An evaluation as it is now."""
        evaluation_id = EVALUATION.parse(request.name, "name")
        record = await asyncio.to_thread(self._store.get_evaluation, evaluation_id, principal())
        return evaluation_pb2.GetEvaluationResponse(evaluation=await self._evaluation(record))

    async def ListEvaluations(
        self, request: evaluation_pb2.ListEvaluationsRequest, context: Context
    ) -> evaluation_pb2.ListEvaluationsResponse:
        """The caller's evaluations, newest first."""
        page = await asyncio.to_thread(self._store.list_evaluations, principal(), page_request(request))
        return evaluation_pb2.ListEvaluationsResponse(
            evaluations=[await self._evaluation(record) for record in page.items], next_page_token=page.next_token
        )

    async def FollowEvaluation(
        self, request: evaluation_pb2.FollowEvaluationRequest, context: Context
    ) -> AsyncIterator[evaluation_pb2.FollowEvaluationResponse]:
        """An evaluation now and at each change, until it has ended."""
        async with aclosing(self._runner.follow(EVALUATION.parse(request.name, "name"), principal())) as records:
            async for record in records:
                yield evaluation_pb2.FollowEvaluationResponse(evaluation=await self._evaluation(record))

    async def CancelEvaluation(
        self, request: evaluation_pb2.CancelEvaluationRequest, context: Context
    ) -> evaluation_pb2.CancelEvaluationResponse:
        """End an evaluation; one that has ended stays as it is."""
        record = await self._runner.cancel(EVALUATION.parse(request.name, "name"), principal())
        return evaluation_pb2.CancelEvaluationResponse(evaluation=await self._evaluation(record))

    async def QueryScores(
        self, request: evaluation_pb2.QueryScoresRequest, context: Context
    ) -> evaluation_pb2.QueryScoresResponse:
        """Anybody's scores, newest first."""
        learner_id, revision = None, None
        if request.learner:
            learner_id, revision = parse_learner_or_revision(request.learner, "learner")

        def query() -> tuple[tuple[ScoreRecord, ...], str]:
            page = self._store.query_scores(
                family=FAMILY.parse(request.family, "family") if request.family else None,
                learner_id=learner_id,
                revision=revision,
                k=whole(request.k, "k", 0, _LARGEST_K) if request.HasField("k") else None,
                page=page_request(request),
                newest_first=True,
            )
            return page.items, page.next_token

        scores, token = await asyncio.to_thread(query)
        return evaluation_pb2.QueryScoresResponse(
            scores=[_score_to_pb(score) for score in scores], next_page_token=token
        )

    def _plan(self, message: evaluation_pb2.EvaluationPlan, learner: LearnerRecord) -> Plan:
        # A plan's own range starts at 1: here 0 stands for "as in the fixed plan".
        whole(message.tasks, "plan.tasks", 0, self._limits.tasks_per_request)
        whole(message.episodes_per_step, "plan.episodes_per_step", 0, self._limits.episodes_per_step)
        return make_plan(
            self._registry.get(learner.spec.family),
            split_from_pb(message.split, "plan.split"),
            remembers=remembers(learner.spec),
            task_seed=message.task_seed if message.HasField("task_seed") else None,
            tasks=message.tasks or None,
            steps=message.steps if message.HasField("steps") else None,
            episodes_per_step=message.episodes_per_step or None,
            evaluation_episodes=message.evaluation_episodes or None,
            seed=message.seed if message.HasField("seed") else None,
            guard=message.guard if message.HasField("guard") else None,
            greedy=message.greedy,
            simulator=simulator_from_pb(message.simulator, "plan.simulator"),
        )

    async def _evaluation(self, record: EvaluationRecord) -> evaluation_pb2.Evaluation:
        """An evaluation as a message, with its scores once it is done."""
        request = EvaluationRequest.from_json(record.request)
        scores: list[ScoreRecord] = []
        if record.state is EvaluationState.DONE:
            every = PageRequest(_LARGEST_K + 1)
            page = await asyncio.to_thread(self._store.query_scores, evaluation_id=record.id, page=every)
            scores = sorted(page.items, key=lambda score: score.score.k)
        family = self._registry.find(request.family)
        known = scores[0].references if scores else references(family) if family else ()
        against = comparable(known)
        if any(TRIAL_RETURN in score.score.metrics for score in scores):
            against = (*against, *comparable(known, ReturnUnit.TRIAL))
        return evaluation_pb2.Evaluation(
            name=EVALUATION.format(record.id),
            state=EVALUATION_STATES[record.state],
            plan=_plan_to_pb(request),
            units_done=record.done,
            units_total=record.total,
            error=record.error,
            scores=[_score_to_pb(score) for score in scores],
            references=[reference_to_pb(reference) for reference in against],
            create_time=timestamp(record.created_at),
            end_time=optional_timestamp(record.finished_at),
        )


def _plan_to_pb(request: EvaluationRequest) -> evaluation_pb2.EvaluationPlan:
    plan = request.plan
    return evaluation_pb2.EvaluationPlan(
        learner=format_revision(request.learner_id, request.revision),
        split=split_to_pb(plan.split),
        task_seed=plan.task_seed,
        tasks=plan.tasks,
        steps=plan.steps,
        episodes_per_step=plan.episodes_per_step,
        evaluation_episodes=plan.evaluation_episodes,
        seed=plan.seed,
        guard=plan.guard,
        greedy=plan.greedy,
        simulator=simulator_to_pb(plan.simulator),
    )


def _score_to_pb(record: ScoreRecord) -> evaluation_pb2.Score:
    score = record.score
    trial = score.metrics.get(TRIAL_RETURN)
    of_trials = () if trial is None else comparable(record.references, ReturnUnit.TRIAL)
    return evaluation_pb2.Score(
        evaluation=EVALUATION.format(record.evaluation_id),
        family=FAMILY.format(record.family),
        revision=format_revision(record.learner_id, record.revision),
        k=score.k,
        mean=score.mean,
        interquartile_mean=score.interquartile_mean,
        low=score.low,
        high=score.high,
        standard_error=score.standard_error,
        tasks=score.tasks,
        episodes=score.episodes,
        split=split_to_pb(record.split),
        guard=record.guard,
        greedy=record.greedy,
        simulator=simulator_to_pb(record.simulator),
        gap_closed=gap_closed(score.mean, record.references),
        metrics=score.metrics,
        trial_references=[reference_to_pb(reference) for reference in of_trials],
        trial_gap_closed=None if trial is None else gap_closed(trial, of_trials, ReturnUnit.TRIAL),
        create_time=timestamp(record.created_at),
    )
