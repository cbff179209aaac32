"""LearnerService: learners and revisions shown to everybody; trainings, promotion and roll back for who may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from innerloop.v1 import learner_pb2, learner_pb2_grpc
from innerloop_server.errors import InvalidField
from innerloop_server.learners import registry as methods
from innerloop_server.service.convert.enums import simulator_from_pb
from innerloop_server.service.convert.learners import learner_to_pb, metrics_to_pb, revision_to_pb, training_to_pb
from innerloop_server.service.convert.names import LEARNER, TRAINING, new_learner_id, parse_revision, request_id
from innerloop_server.service.convert.paging import page_of, page_request
from innerloop_server.service.convert.tasks import find_family
from innerloop_server.service.convert.values import seed, struct_from_pb, whole
from innerloop_server.service.permissions import Permissions
from innerloop_server.service.principal import principal
from innerloop_server.store.pages import PageRequest
from innerloop_server.store.records import LearnerRecord, TrainingRecord
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import Registry
from innerloop_server.training.metrics import UpdateMetrics
from innerloop_server.training.requests import MOST_UPDATES, TrainingRequest
from innerloop_server.training.supervisor import TrainingSupervisor

Context = grpc.aio.ServicerContext[Any, Any]

_LARGEST_UPDATE = 2**63 - 1


class LearnerServicer(learner_pb2_grpc.LearnerServiceServicer):
    """Serves the learners of a store and the trainings of a supervisor."""

    def __init__(
        self, store: Store, registry: Registry, supervisor: TrainingSupervisor, permissions: Permissions
    ) -> None:
        self._store = store
        self._registry = registry
        self._supervisor = supervisor
        self._permissions = permissions

    # -- learners and revisions -----------------------------------------------------------------------------------

    async def ListLearners(
        self, request: learner_pb2.ListLearnersRequest, context: Context
    ) -> learner_pb2.ListLearnersResponse:
        """Learners in order of name."""
        family = find_family(self._registry, request.family, "family").name if request.family else ""
        records = await asyncio.to_thread(self._learners, family)
        page = page_of(records, lambda record: record.id, page_request(request), f"learners/{family}")
        learners = await asyncio.to_thread(lambda: [self._show(record) for record in page.items])
        return learner_pb2.ListLearnersResponse(learners=learners, next_page_token=page.next_token)

    async def GetLearner(
        self, request: learner_pb2.GetLearnerRequest, context: Context
    ) -> learner_pb2.GetLearnerResponse:
        """One learner."""
        record = await self._learner(LEARNER.parse(request.name, "name"))
        return learner_pb2.GetLearnerResponse(learner=await asyncio.to_thread(self._show, record))

    async def ListRevisions(
        self, request: learner_pb2.ListRevisionsRequest, context: Context
    ) -> learner_pb2.ListRevisionsResponse:
        """A learner's revisions, newest first."""
        learner = await self._learner(LEARNER.parse(request.parent, "parent"))
        page = await asyncio.to_thread(self._store.list_revisions, learner.id, page_request(request))
        return learner_pb2.ListRevisionsResponse(
            revisions=[revision_to_pb(record, learner.champion) for record in page.items],
            next_page_token=page.next_token,
        )

    async def GetRevision(
        self, request: learner_pb2.GetRevisionRequest, context: Context
    ) -> learner_pb2.GetRevisionResponse:
        """One revision."""
        learner_id, number = parse_revision(request.name, "name")
        record = await asyncio.to_thread(self._store.get_revision, learner_id, number)
        learner = await self._learner(learner_id)
        return learner_pb2.GetRevisionResponse(revision=revision_to_pb(record, learner.champion))

    async def PromoteRevision(
        self, request: learner_pb2.PromoteRevisionRequest, context: Context
    ) -> learner_pb2.PromoteRevisionResponse:
        """Make a revision champion by hand."""
        learner_id, number = parse_revision(request.name, "name")
        self._permit(await self._learner(learner_id))
        record = await self._supervisor.promote(learner_id, number)
        return learner_pb2.PromoteRevisionResponse(learner=await asyncio.to_thread(self._show, record))

    async def RollBackLearner(
        self, request: learner_pb2.RollBackLearnerRequest, context: Context
    ) -> learner_pb2.RollBackLearnerResponse:
        """Make the former champion champion again."""
        learner = await self._learner(LEARNER.parse(request.name, "name"))
        self._permit(learner)
        record = await self._supervisor.roll_back(learner.id)
        return learner_pb2.RollBackLearnerResponse(learner=await asyncio.to_thread(self._show, record))

    # -- trainings ------------------------------------------------------------------------------------------------

    async def StartTraining(
        self, request: learner_pb2.StartTrainingRequest, context: Context
    ) -> learner_pb2.StartTrainingResponse:
        """Start a training in the background."""
        family = find_family(self._registry, request.family, "family")
        caller = principal()
        wanted = TrainingRequest(
            family=family.name,
            method=request.method or "maml",
            learner=new_learner_id(request.learner, "learner") if request.learner else "",
            settings=struct_from_pb(request.settings, "settings"),
            seed=seed(request.seed, "seed"),
            updates=whole(request.updates, "updates", 0, MOST_UPDATES),
            simulator=simulator_from_pb(request.simulator, "simulator"),
            continue_from=parse_revision(request.continue_from, "continue_from") if request.continue_from else None,
            request_id=request_id(request.request_id),
            generator=request.generator,
        )
        if not wanted.learner:
            _check_default_fits(wanted)
        record = await self._supervisor.start(wanted, caller, lambda learner: self._permit(learner, caller))
        return learner_pb2.StartTrainingResponse(training=training_to_pb(record))

    async def PauseTraining(
        self, request: learner_pb2.PauseTrainingRequest, context: Context
    ) -> learner_pb2.PauseTrainingResponse:
        """Stop a training with a checkpoint; answers when it has stopped."""
        record = await self._may_change(request.name)
        return learner_pb2.PauseTrainingResponse(training=training_to_pb(await self._supervisor.pause(record.id)))

    async def ResumeTraining(
        self, request: learner_pb2.ResumeTrainingRequest, context: Context
    ) -> learner_pb2.ResumeTrainingResponse:
        """Go on with a paused or failed training."""
        record = await self._may_change(request.name)
        return learner_pb2.ResumeTrainingResponse(training=training_to_pb(await self._supervisor.resume(record.id)))

    async def GetTraining(
        self, request: learner_pb2.GetTrainingRequest, context: Context
    ) -> learner_pb2.GetTrainingResponse:
        """One training."""
        record = await self._supervisor.get(TRAINING.parse(request.name, "name"))
        return learner_pb2.GetTrainingResponse(training=training_to_pb(record))

    async def ListTrainings(
        self, request: learner_pb2.ListTrainingsRequest, context: Context
    ) -> learner_pb2.ListTrainingsResponse:
        """Trainings, newest first."""
        page = await asyncio.to_thread(self._store.list_trainings, None, page_request(request))
        return learner_pb2.ListTrainingsResponse(
            trainings=[training_to_pb(record) for record in page.items], next_page_token=page.next_token
        )

    async def FollowTraining(
        self, request: learner_pb2.FollowTrainingRequest, context: Context
    ) -> AsyncIterator[learner_pb2.FollowTrainingResponse]:
        """A training and its metrics, until it is no longer running."""
        training_id = TRAINING.parse(request.name, "name")
        after = whole(request.after_update, "after_update", 0, _LARGEST_UPDATE)
        async for news in self._supervisor.follow(training_id, after):
            if isinstance(news, UpdateMetrics):
                yield learner_pb2.FollowTrainingResponse(metrics=metrics_to_pb(news))
            else:
                yield learner_pb2.FollowTrainingResponse(training=training_to_pb(news))

    # -------------------------------------------------------------------------------------------------------------

    async def _learner(self, learner_id: str) -> LearnerRecord:
        return await asyncio.to_thread(self._store.get_learner, learner_id)

    async def _may_change(self, name: str) -> TrainingRecord:
        """The training of that name, if the caller may pause and resume it."""
        record = await self._supervisor.get(TRAINING.parse(name, "name"))
        self._permit(await self._learner(record.learner_id))
        return record

    def _permit(self, learner: LearnerRecord, caller: str | None = None) -> None:
        self._permissions.require(caller or principal(), learner.owner, LEARNER.format(learner.id))

    def _learners(self, family: str) -> list[LearnerRecord]:
        records: list[LearnerRecord] = []
        token = ""
        while True:
            page = self._store.list_learners(None, PageRequest(token=token))
            records += [record for record in page.items if not family or record.spec.family == family]
            if not page.next_token:
                return records
            token = page.next_token

    def _show(self, record: LearnerRecord) -> learner_pb2.Learner:
        newest = self._store.list_revisions(record.id, PageRequest(size=1)).items
        return learner_to_pb(record, newest[0].number if newest else 0)


def _check_default_fits(wanted: TrainingRequest) -> None:
    """Refuse a learner that would be called what no later request can name.

    Raises:
        InvalidField: the method is unknown, or family and method make too long an id.
    """
    methods.get(wanted.method)  # whose name is part of the id
    try:
        new_learner_id(LEARNER.format(wanted.learner_id), "learner")
    except InvalidField as error:
        raise InvalidField(
            "learner", f"would be {wanted.learner_id}, {len(wanted.learner_id)} characters; give a name of 63 at most"
        ) from error
