"""Choosing a generator over the wire: for a training, and for a sample of tasks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from contract_support import refused, task_servicer
from google.protobuf import struct_pb2

sys.path.insert(0, str(Path(__file__).parents[1]))  # training_support
from training_support import FAMILY, TINY, ThreadTrainer, ended, scripted

from innerloop.v1 import learner_pb2, learner_pb2_grpc, task_pb2, task_pb2_grpc
from innerloop_server.service.convert.arrays import array_from_pb
from innerloop_server.service.learners import LearnerServicer
from innerloop_server.service.permissions import Permissions
from innerloop_server.settings import Settings
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import Registry
from innerloop_server.training.supervisor import TrainingSupervisor

NAME = f"families/{FAMILY}"
LISTENING = ("replay", "goal-gan", "paired")


@pytest.fixture
def supervisor(store: Store, registry: Registry) -> TrainingSupervisor:
    return TrainingSupervisor(store, registry, scripted(lambda _: 0.0), launch=ThreadTrainer.start)


@pytest.fixture
def servicers(store: Store, registry: Registry, settings: Settings, supervisor: TrainingSupervisor) -> Sequence[object]:
    learners = LearnerServicer(store, registry, supervisor, Permissions.of(settings))
    return [task_servicer(registry, store, settings), learners]


@pytest.fixture
def learners(channel: grpc.aio.Channel) -> Any:
    return learner_pb2_grpc.LearnerServiceStub(channel)


@pytest.fixture
def tasks(channel: grpc.aio.Channel) -> Any:
    return task_pb2_grpc.TaskServiceStub(channel)


def start(generator: str) -> learner_pb2.StartTrainingRequest:
    settings = struct_pb2.Struct()
    settings.update(TINY)
    return learner_pb2.StartTrainingRequest(family=NAME, settings=settings, seed=3, generator=generator)


def sample(**fields: Any) -> task_pb2.SampleTasksRequest:
    return task_pb2.SampleTasksRequest(**{"family": NAME, "split": task_pb2.SPLIT_TRAIN, "count": 4, **fields})


def goals(response: Any) -> list[list[float]]:
    return [array_from_pb(task.parameters["goal"], "goal").tolist() for task in response.tasks]


async def test_a_grid_is_a_stream_like_any_other_and_its_tasks_have_no_names(tasks: Any) -> None:
    whole = await tasks.SampleTasks(sample(generator="grid", seed=5, count=6))
    late = await tasks.SampleTasks(sample(generator="grid", seed=5, count=2, start_index=4))
    assert goals(late) == goals(whole)[4:]
    assert {task.name for task in whole.tasks} == {""}
    assert (
        goals(await tasks.SampleTasks(sample(generator="grid", seed=5, split=task_pb2.SPLIT_TEST))) != goals(whole)[:4]
    )
    assert goals(await tasks.SampleTasks(sample(generator="uniform"))) == goals(await tasks.SampleTasks(sample()))


@pytest.mark.parametrize("generator", ["replay", "paired"])
async def test_a_training_is_asked_what_it_would_run_next(
    generator: str, learners: Any, tasks: Any, supervisor: TrainingSupervisor
) -> None:
    training = (await learners.StartTraining(start(generator))).training
    assert training.generator == generator
    early = await refused(tasks.SampleTasks(sample(generator=generator, training=training.name)))
    assert (early.code, early.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_CHECKPOINT")
    await supervisor.open()
    try:
        await ended(supervisor, training.name.removeprefix("trainings/"))
    finally:
        await supervisor.close()
    asked = await tasks.SampleTasks(sample(generator=generator, training=training.name))
    assert goals(await tasks.SampleTasks(sample(generator=generator, training=training.name))) == goals(asked)
    assert len(asked.tasks) == 4
    assert all(task.name for task in asked.tasks) == (generator == "replay")
    other = await refused(tasks.SampleTasks(sample(generator="goal-gan", training=training.name)))
    assert (other.field, other.advice) == ("generator", f"{training.name} uses {generator}")
    family = await refused(
        tasks.SampleTasks(sample(family="families/cartpole-dynamics", generator=generator, training=training.name))
    )
    assert (family.field, family.advice) == ("family", f"{training.name} trains on {FAMILY}")


@pytest.mark.parametrize("generator", LISTENING)
async def test_without_a_training_such_a_generator_has_nothing_to_say(generator: str, tasks: Any) -> None:
    error = await refused(tasks.SampleTasks(sample(generator=generator)))
    assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "training")
    assert "name one that uses it" in error.advice
    assert (await refused(tasks.SampleTasks(sample(generator=generator, training="trainings/none")))).code == (
        grpc.StatusCode.NOT_FOUND
    )


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"generator": "replay", "training": "trainings/t", "seed": 1}, "seed"),
        ({"generator": "replay", "training": "trainings/t", "start_index": 1}, "start_index"),
        ({"generator": "replay", "training": "trainings/t", "split": task_pb2.SPLIT_TEST}, "split"),
        ({"generator": "replay", "training": "learners/l"}, "training"),
        ({"generator": "grid", "training": "trainings/t"}, "training"),
        ({"generator": "grid", "start_index": 2**62}, "start_index"),
        ({"training": "trainings/t"}, "training"),
    ],
)
async def test_what_does_not_go_together_is_refused_by_field(fields: dict[str, Any], field: str, tasks: Any) -> None:
    error = await refused(tasks.SampleTasks(sample(**fields)))
    assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_a_training_with_an_unknown_generator_is_refused(learners: Any) -> None:
    error = await refused(learners.StartTraining(start("magic")))
    assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "generator")
    assert (await learners.StartTraining(start(""))).training.generator == "uniform"
