"""TaskService: families described, tasks drawn. Open to every principal."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from innerloop.v1 import task_pb2, task_pb2_grpc
from innerloop_server.domain import Task
from innerloop_server.errors import InvalidField
from innerloop_server.service.convert.enums import split_from_pb
from innerloop_server.service.convert.names import FAMILY
from innerloop_server.service.convert.paging import page_of, page_request
from innerloop_server.service.convert.tasks import (
    broken_family_to_pb,
    family_to_pb,
    find_family,
    find_task,
    task_to_pb,
)
from innerloop_server.service.convert.values import whole
from innerloop_server.settings import Limits
from innerloop_server.tasks.registry import Registry
from innerloop_server.tasks.sampling import sample_task

Context = grpc.aio.ServicerContext[Any, Any]

_LARGEST_INDEX = 2**64 - 1
_GENERATORS = ("", "uniform")


class TaskServicer(task_pb2_grpc.TaskServiceServicer):
    """Serves the families of a registry."""

    def __init__(self, registry: Registry, limits: Limits) -> None:
        self._registry = registry
        self._limits = limits

    async def ListFamilies(
        self, request: task_pb2.ListFamiliesRequest, context: Context
    ) -> task_pb2.ListFamiliesResponse:
        """Families in order of name, the broken ones too."""
        names = {*self._registry.families, *self._registry.broken}
        page = page_of(names, str, page_request(request), "families")
        return task_pb2.ListFamiliesResponse(
            families=[self._describe(name) for name in page.items], next_page_token=page.next_token
        )

    async def GetFamily(self, request: task_pb2.GetFamilyRequest, context: Context) -> task_pb2.GetFamilyResponse:
        """One family, broken or not."""
        return task_pb2.GetFamilyResponse(family=self._describe(FAMILY.parse(request.name, "name")))

    async def SampleTasks(self, request: task_pb2.SampleTasksRequest, context: Context) -> task_pb2.SampleTasksResponse:
        """Tasks ``start_index`` to ``start_index + count - 1`` of a stream."""
        family = find_family(self._registry, request.family, "family")
        split = split_from_pb(request.split, "split")
        count = whole(request.count, "count", 1, self._limits.tasks_per_request)
        first = request.start_index
        whole(first + count - 1, "start_index", 0, _LARGEST_INDEX)
        if request.generator not in _GENERATORS:
            raise InvalidField("generator", f"{request.generator[:80]!r} is unknown; leave it empty or give uniform")

        def draw() -> list[Task]:
            return [sample_task(family, request.seed, split, first + i) for i in range(count)]

        tasks = await asyncio.to_thread(draw)
        return task_pb2.SampleTasksResponse(tasks=[task_to_pb(task) for task in tasks])

    async def GetTask(self, request: task_pb2.GetTaskRequest, context: Context) -> task_pb2.GetTaskResponse:
        """The task behind a name."""
        return task_pb2.GetTaskResponse(task=task_to_pb(find_task(self._registry, request.name, "name")))

    def _describe(self, name: str) -> task_pb2.Family:
        if name in self._registry.broken:
            return broken_family_to_pb(name, self._registry.broken[name])
        family = self._registry.get(name)
        try:
            return family_to_pb(family)
        except InvalidField as error:
            return broken_family_to_pb(name, f"its parameter space cannot be described: {error.advice}")
