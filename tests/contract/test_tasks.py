"""TaskService: what is listed, and that a name is a task."""

from __future__ import annotations

import threading
from typing import Any

import grpc.aio
import numpy as np
import pytest
from contract_support import told

from innerloop.v1 import task_pb2, task_pb2_grpc
from innerloop_server.domain import Split
from innerloop_server.service import tasks as tasks_service
from innerloop_server.service.convert.arrays import array_from_pb
from innerloop_server.service.convert.tasks import task_bytes, task_to_pb
from innerloop_server.service.tasks import ANSWER_BYTES
from innerloop_server.tasks.registry import Registry
from innerloop_server.tasks.sampling import sample_task


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


async def test_an_answer_holds_no_more_than_any_client_takes(stub: Any, registry: Registry) -> None:
    name = "tabular-mdp.states-50.actions-50"

    def asked(count: int) -> task_pb2.SampleTasksRequest:
        return task_pb2.SampleTasksRequest(family=f"families/{name}", split=task_pb2.SPLIT_TRAIN, count=count)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.SampleTasks(asked(1_000))
    error = told(caught.value)
    assert (error.code, error.reason, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "count")
    largest = int(error.facts["largest"])
    assert error.advice.endswith(f"so give 1 to {largest} at a time")
    assert 0 < largest == ANSWER_BYTES // task_bytes(registry.get(name)) < 10
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.SampleTasks(asked(largest + 1))
    answer = await stub.SampleTasks(asked(largest))
    assert len(answer.tasks) == largest
    assert ANSWER_BYTES / 2 < answer.ByteSize() <= ANSWER_BYTES
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.SampleTasks(asked(1_001))
    assert told(caught.value).advice == "is 1001; give 1 to 1000"


def test_no_task_is_larger_than_its_family_says(registry: Registry) -> None:
    for name in (*registry.names(), "tabular-mdp.states-50.actions-50"):
        family = registry.get(name)
        task = sample_task(family, 2**64 - 1, Split.VALIDATION, 2**63)
        assert task_to_pb(task).ByteSize() + 10 <= task_bytes(family), name  # 10: around a task in an answer


async def test_the_loop_goes_on_while_tasks_are_drawn(stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_by = []

    def slow(*args: Any) -> task_pb2.Task:
        drawn_by.append(threading.current_thread())
        return task_to_pb(*args)

    monkeypatch.setattr(tasks_service, "task_to_pb", slow)
    request = task_pb2.SampleTasksRequest(family="families/navigation-2d", split=task_pb2.SPLIT_TRAIN, count=2)
    task = (await stub.SampleTasks(request)).tasks[0]
    await stub.GetTask(task_pb2.GetTaskRequest(name=task.name))
    assert len(drawn_by) == 3
    assert threading.current_thread() not in drawn_by


@pytest.mark.parametrize("family", ["a\0b", "a" * 450, "é", "a b", ".."])
async def test_a_name_of_another_form_names_no_task(stub: Any, family: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetTask(task_pb2.GetTaskRequest(name=f"families/{family}/tasks/train-0-0"))
    error = told(caught.value)
    assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "name")
    assert "\0" not in error.message


async def test_the_largest_request(stub: task_pb2_grpc.TaskServiceAsyncStub) -> None:
    request = task_pb2.SampleTasksRequest(family="families/navigation-2d", split=task_pb2.SPLIT_TRAIN, count=1_000)
    assert len((await stub.SampleTasks(request)).tasks) == 1_000
