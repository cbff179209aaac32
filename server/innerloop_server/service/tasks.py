"""TaskService: families described and defined, tasks drawn."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import grpc.aio

from innerloop.v1 import task_pb2, task_pb2_grpc
from innerloop_server.domain import Split, Task
from innerloop_server.errors import InnerloopError, InvalidField
from innerloop_server.service.convert.enums import split_from_pb
from innerloop_server.service.convert.families import broken_family_to_pb, definition_from_pb, family_to_pb
from innerloop_server.service.convert.names import FAMILY, TRAINING
from innerloop_server.service.convert.paging import page_of, page_request
from innerloop_server.service.convert.tasks import find_family, find_task, task_bytes, task_to_pb
from innerloop_server.service.convert.values import whole
from innerloop_server.service.definitions import FamilyDefiner
from innerloop_server.service.principal import principal
from innerloop_server.settings import Limits
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.generators.grid import GridGenerator
from innerloop_server.tasks.registry import Registry
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training import generators
from innerloop_server.training.proposals import TrainingProposals

Context = grpc.aio.ServicerContext[Any, Any]

ANSWER_BYTES = 7 * 2**19
"""Most bytes of tasks in one answer, 3.5 MiB: gRPC's clients take 4 MiB unless they are told otherwise."""
_LARGEST_INDEX = 2**64 - 1


class TaskServicer(task_pb2_grpc.TaskServiceServicer):
    """Serves the families of a registry."""

    def __init__(
        self, registry: Registry, limits: Limits, definer: FamilyDefiner, proposals: TrainingProposals
    ) -> None:
        self._registry = registry
        self._limits = limits
        self._definer = definer
        self._proposals = proposals

    async def ListFamilies(
        self, request: task_pb2.ListFamiliesRequest, context: Context
    ) -> task_pb2.ListFamiliesResponse:
        """Families in order of name, the broken ones too."""

        # in a thread: describing a family may make its environment, for the first time at least
        def listed() -> task_pb2.ListFamiliesResponse:
            reasons = self._registry.reasons()
            page = page_of({*self._registry.names(), *reasons}, str, page_request(request), "families")
            described = [self._describe(name, reasons) for name in page.items]
            return task_pb2.ListFamiliesResponse(families=described, next_page_token=page.next_token)

        return await asyncio.to_thread(listed)

    async def GetFamily(self, request: task_pb2.GetFamilyRequest, context: Context) -> task_pb2.GetFamilyResponse:
        """One family, broken or not."""
        name = FAMILY.parse(request.name, "name")

        def described() -> task_pb2.Family:
            try:
                return self._describe(name, self._registry.reasons())
            except InvalidField as error:  # an option in the name
                raise InvalidField("name", error.message) from error

        return task_pb2.GetFamilyResponse(family=await asyncio.to_thread(described))

    async def SampleTasks(self, request: task_pb2.SampleTasksRequest, context: Context) -> task_pb2.SampleTasksResponse:
        """Tasks ``start_index`` to ``start_index + count - 1`` of a stream; or what a training would run next."""
        family = find_family(self._registry, request.family, "family")
        split = split_from_pb(request.split, "split")
        count = self._count(request.count, family)
        first = request.start_index
        whole(first + count - 1, "start_index", 0, _LARGEST_INDEX)
        generator = request.generator or generators.UNIFORM
        listens = generators.kind(generator).listens
        training = _training_of(request, split) if listens else ""
        if request.training and not listens:
            raise InvalidField("training", f"{generator} proposes the same tasks in every training; leave it out")

        def drawn() -> Sequence[Task]:
            if listens:
                return self._proposals.next(training, generator, family, count)
            if generator == generators.UNIFORM:
                return [sample_task(family, request.seed, split, first + i) for i in range(count)]
            grid = GridGenerator(family, request.seed, split, first)
            return grid.propose(grid.initial(), count)[0].tasks

        def answer() -> task_pb2.SampleTasksResponse:  # in the thread too: parameters may be large
            return task_pb2.SampleTasksResponse(tasks=[task_to_pb(task) for task in drawn()])

        return await asyncio.to_thread(answer)

    async def GetTask(self, request: task_pb2.GetTaskRequest, context: Context) -> task_pb2.GetTaskResponse:
        """The task behind a name."""

        def found() -> task_pb2.Task:
            return task_to_pb(find_task(self._registry, request.name, "name"))

        return task_pb2.GetTaskResponse(task=await asyncio.to_thread(found))

    async def DefineFamily(
        self, request: task_pb2.DefineFamilyRequest, context: Context
    ) -> task_pb2.DefineFamilyResponse:
        """A family of an environment that is registered here."""
        family = await self._definer.define(definition_from_pb(request, principal()))
        return task_pb2.DefineFamilyResponse(family=family_to_pb(family))

    async def DeleteFamily(
        self, request: task_pb2.DeleteFamilyRequest, context: Context
    ) -> task_pb2.DeleteFamilyResponse:
        """Forget a family that was defined."""
        await self._definer.delete(FAMILY.parse(request.name, "name"), principal())
        return task_pb2.DeleteFamilyResponse()

    def _count(self, count: int, family: Family) -> int:
        """How many tasks are asked for, no more than one answer carries.

        Raises:
            InvalidField: too many or none; where it is for their size, ``largest`` in its facts is what fits.
        """
        each = task_bytes(family)
        fitting = max(1, ANSWER_BYTES // each)
        if fitting < count <= self._limits.tasks_per_request:
            raise InvalidField(
                "count",
                f"is {count}; a task of {family.name} takes up to {each} bytes, so give 1 to {fitting} at a time",
                facts={"largest": str(fitting)},
            )
        return whole(count, "count", 1, self._limits.tasks_per_request)

    def _describe(self, name: str, reasons: Mapping[str, str]) -> task_pb2.Family:
        """A family; where it is broken, why: it is in ``reasons``, or shows when it is looked at."""
        if name in reasons:
            return broken_family_to_pb(name, reasons[name])
        family = self._registry.get(name)
        try:
            return family_to_pb(family)
        except InnerloopError as error:
            return broken_family_to_pb(name, f"it cannot be described: {error.message}")
        # a third party's property may raise anything, or exit; the other families are not its affair
        except (Exception, SystemExit) as error:
            return broken_family_to_pb(name, f"it cannot be described: {type(error).__name__}: {error}")


def _training_of(request: task_pb2.SampleTasksRequest, split: Split) -> str:
    """Id of the training whose generator is asked.

    Raises:
        InvalidField: the request names none, or asks for what the training's own state decides.
    """
    if not request.training:
        raise InvalidField(
            "training", f"{request.generator} goes by how tasks went in a training; name one that uses it"
        )
    if split is not Split.TRAIN:
        raise InvalidField("split", f"{request.generator} proposes tasks to train on; give train")
    for field in ("seed", "start_index"):
        if getattr(request, field):
            raise InvalidField(
                field, f"the training's own state decides what {request.generator} proposes; leave it out"
            )
    return TRAINING.parse(request.training, "training")
