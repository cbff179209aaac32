"""TaskService: what is listed, and that a name is a task."""

from __future__ import annotations

import grpc.aio
import numpy as np
import pytest

from innerloop.v1 import task_pb2, task_pb2_grpc
from innerloop_server.service.convert.arrays import array_from_pb
from innerloop_server.tasks.registry import Registry


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> task_pb2_grpc.TaskServiceAsyncStub:
    return task_pb2_grpc.TaskServiceStub(channel)


async def test_pages_hold_every_family_once(stub: task_pb2_grpc.TaskServiceAsyncStub, registry: Registry) -> None:
    found, token = [], ""
    while True:
        page = await stub.ListFamilies(task_pb2.ListFamiliesRequest(page_size=2, page_token=token))
        assert len(page.families) <= 2
        found += [family.name for family in page.families]
        token = page.next_page_token
        if not token:
            break
    assert found == [f"families/{name}" for name in sorted({*registry.families, *registry.broken})]
    assert len((await stub.ListFamilies(task_pb2.ListFamiliesRequest())).families) == len(found)


async def test_a_broken_family_is_listed_with_its_reason(stub: task_pb2_grpc.TaskServiceAsyncStub) -> None:
    reply = await stub.GetFamily(task_pb2.GetFamilyRequest(name="families/broken-family"))
    assert reply.family.broken_reason == "ImportError: no module named nowhere"


async def test_a_family_is_described(stub: task_pb2_grpc.TaskServiceAsyncStub) -> None:
    family = (await stub.GetFamily(task_pb2.GetFamilyRequest(name="families/navigation-2d"))).family
    assert family.horizon == 100
    assert list(family.observation_space.box.shape) == [2]
    assert family.parameter_space
    assert family.simulators[0] == task_pb2.SIMULATOR_BATCH
    assert {reference.name for reference in family.references} >= {"oracle"}


async def test_sampled_tasks_are_the_tasks_of_their_names(stub: task_pb2_grpc.TaskServiceAsyncStub) -> None:
    request = task_pb2.SampleTasksRequest(
        family="families/navigation-2d", split=task_pb2.SPLIT_VALIDATION, seed=2**64 - 1, count=5, start_index=7
    )
    tasks = (await stub.SampleTasks(request)).tasks
    assert [task.index for task in tasks] == [7, 8, 9, 10, 11]
    assert tasks[0].name == f"families/navigation-2d/tasks/validation-{2**64 - 1}-7"
    for task in tasks:
        assert (await stub.GetTask(task_pb2.GetTaskRequest(name=task.name))).task == task
    goals = [array_from_pb(next(iter(task.parameters.values())), "goal") for task in tasks]
    assert len({goal.tobytes() for goal in goals}) == 5
    assert all(np.all(np.abs(goal) <= 0.5) for goal in goals)


async def test_the_largest_request(stub: task_pb2_grpc.TaskServiceAsyncStub) -> None:
    request = task_pb2.SampleTasksRequest(family="families/navigation-2d", split=task_pb2.SPLIT_TRAIN, count=1_000)
    assert len((await stub.SampleTasks(request)).tasks) == 1_000
