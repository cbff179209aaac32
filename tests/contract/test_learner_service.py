"""LearnerService over a real channel: what it shows, who may change what, and what it refuses."""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import gymnasium
import numpy as np
import pytest
from contract_support import dialled, serving, told
from google.protobuf import struct_pb2

sys.path.insert(0, str(Path(__file__).parents[1]))  # training_support
from training_support import FAMILY, TINY, scripted

from innerloop.v1 import learner_pb2 as pb
from innerloop.v1 import learner_pb2_grpc, task_pb2
from innerloop_server.service.learners import LearnerServicer
from innerloop_server.service.permissions import Permissions
from innerloop_server.settings import Settings
from innerloop_server.store.store import Store
from innerloop_server.tasks.definition import DefinedFamily, FamilyDefinition
from innerloop_server.tasks.gymnasium_family import Apply
from innerloop_server.tasks.registry import Registry
from innerloop_server.training.intake import TrainerSettings
from innerloop_server.training.requests import TrainingRequest, plan
from innerloop_server.training.supervisor import TrainingSupervisor

INVALID = grpc.StatusCode.INVALID_ARGUMENT
MISSING = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
DENIED = grpc.StatusCode.PERMISSION_DENIED
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED

TOKENS = {"token-ann": "ann", "token-bob": "bob", "token-op": "op"}


def struct(values: dict[str, Any]) -> struct_pb2.Struct:
    message = struct_pb2.Struct()
    message.update(values)
    return message


def start(**fields: Any) -> pb.StartTrainingRequest:
    settings = struct({**TINY, **fields.pop("settings", {})})
    return pb.StartTrainingRequest(**{"family": f"families/{FAMILY}", "settings": settings, "seed": 3, **fields})


def bearer(name: str) -> dict[str, Any]:
    return {"metadata": (("authorization", f"Bearer token-{name}"),)}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", port=0)


@pytest.fixture
def supervisor(store: Store, registry: Registry) -> TrainingSupervisor:
    """Not opened: trainings wait for their turn for ever, and cost nothing."""
    return TrainingSupervisor(store, registry, scripted(lambda _: 0.0), TrainerSettings(trainings_per_owner=3))


@pytest.fixture
def servicers(store: Store, registry: Registry, settings: Settings, supervisor: TrainingSupervisor) -> Sequence[object]:
    return [LearnerServicer(store, registry, supervisor, Permissions.of(settings))]


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> learner_pb2_grpc.LearnerServiceAsyncStub:
    return learner_pb2_grpc.LearnerServiceStub(channel)  # type: ignore[return-value]


@pytest.fixture
async def guarded(
    store: Store, registry: Registry, settings: Settings, supervisor: TrainingSupervisor
) -> AsyncIterator[Any]:
    """A server with tokens: ann, bob, and op the operator."""
    strict = replace(settings, tokens=TOKENS, operators=("op",))
    servicer = LearnerServicer(store, registry, supervisor, Permissions.of(strict))
    async with serving(strict, [servicer]) as server, dialled(server) as channel:
        yield learner_pb2_grpc.LearnerServiceStub(channel)


async def test_a_training_from_start_to_champion(stub: Any, supervisor: TrainingSupervisor) -> None:
    await supervisor.open()
    try:
        training = (await stub.StartTraining(start(request_id="r1"))).training
        assert (training.state, training.updates, training.seed) == (pb.TRAINING_STATE_RUNNING, TINY["updates"], 3)
        assert training.learner == f"learners/{FAMILY}-maml"
        assert training.simulator == task_pb2.SIMULATOR_BATCH
        assert (await stub.StartTraining(start(request_id="r1"))).training.name == training.name
        news = [n async for n in stub.FollowTraining(pb.FollowTrainingRequest(name=training.name, after_update=1))]
    finally:
        await supervisor.close()
    assert news[0].training.name == training.name
    assert [n.metrics.update for n in news if n.HasField("metrics")] == list(range(2, TINY["updates"] + 1))
    assert {"return_0", "return_1", "loss", "gradient_norm", "wall_seconds"} <= set(news[1].metrics.values)
    assert news[-1].training.state == pb.TRAINING_STATE_DONE
    assert (await stub.GetTraining(pb.GetTrainingRequest(name=training.name))).training.update == TINY["updates"]
    assert [t.name for t in (await stub.ListTrainings(pb.ListTrainingsRequest())).trainings] == [training.name]
    learner = (await stub.GetLearner(pb.GetLearnerRequest(name=training.learner))).learner
    assert (learner.method, learner.family, learner.owner) == ("maml", f"families/{FAMILY}", "local")
    assert (learner.inner_steps, learner.episodes_per_step, learner.revisions) == (1, 2, 1)
    assert learner.settings["tasks_per_update"] == 2
    (revision,) = (await stub.ListRevisions(pb.ListRevisionsRequest(parent=learner.name))).revisions
    assert learner.champion == revision.name
    assert revision.champion
    assert revision.manifest["seed"] == 3
    assert (await stub.GetRevision(pb.GetRevisionRequest(name=revision.name))).revision == revision
    for family, count in ((f"families/{FAMILY}", 1), ("families/cartpole-dynamics", 0), ("", 1)):
        listed = await stub.ListLearners(pb.ListLearnersRequest(family=family))
        assert len(listed.learners) == count


async def test_pages_of_learners(stub: Any, store: Store, registry: Registry) -> None:
    spec = plan(TrainingRequest(FAMILY), registry.get(FAMILY)).spec
    for name in ("c", "a", "b"):
        store.put_learner(replace(spec, name=name))
    first = await stub.ListLearners(pb.ListLearnersRequest(page_size=2))
    second = await stub.ListLearners(pb.ListLearnersRequest(page_size=2, page_token=first.next_page_token))
    assert [x.name for x in (*first.learners, *second.learners)] == ["learners/a", "learners/b", "learners/c"]
    assert not second.next_page_token


async def test_pause_and_resume_a_training_that_waits(stub: Any) -> None:
    training = (await stub.StartTraining(start())).training
    paused = (await stub.PauseTraining(pb.PauseTrainingRequest(name=training.name))).training
    assert paused.state == pb.TRAINING_STATE_PAUSED
    resumed = (await stub.ResumeTraining(pb.ResumeTrainingRequest(name=training.name))).training
    assert resumed.state == pb.TRAINING_STATE_RUNNING
    for _ in range(2):
        await stub.StartTraining(start())
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.StartTraining(start())
    assert (told(refused.value).code, told(refused.value).reason) == (EXHAUSTED, "TRAININGS_EXHAUSTED")


async def test_a_learner_that_no_request_could_name_is_not_made(
    registry: Registry, store: Store, settings: Settings, supervisor: TrainingSupervisor
) -> None:
    name = "a" * 63
    family = DefinedFamily(
        FamilyDefinition(
            name, "CartPole-v1", {"length": gymnasium.spaces.Box(0.3, 0.7, (), np.float64)}, Apply.ATTRIBUTES, 50
        )
    )
    own = replace(registry, families={**registry.families, name: family})
    servicer = LearnerServicer(store, own, supervisor, Permissions.of(settings))
    async with serving(settings, [servicer]) as server, dialled(server) as channel:
        stub: Any = learner_pb2_grpc.LearnerServiceStub(channel)
        for method, field in (("maml", "learner"), ("no-such-method", "method")):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.StartTraining(pb.StartTrainingRequest(family=f"families/{name}", method=method))
            error = told(refused.value)
            assert (error.code, error.field) == (INVALID, field)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.StartTraining(pb.StartTrainingRequest(family=f"families/{name}"))
        assert told(refused.value).advice == f"would be {name}-maml, 68 characters; give a name of 63 at most"
    assert list(store.list_learners().items) == []


async def test_promote_and_roll_back_by_hand(stub: Any, store: Store, registry: Registry) -> None:
    add_revisions(store, registry, "mine", 2)
    learner = (await stub.PromoteRevision(pb.PromoteRevisionRequest(name="learners/mine/revisions/2"))).learner
    assert learner.champion == "learners/mine/revisions/2"
    assert (
        await stub.RollBackLearner(pb.RollBackLearnerRequest(name="learners/mine"))
    ).learner.champion == "learners/mine/revisions/1"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.RollBackLearner(pb.RollBackLearnerRequest(name="learners/mine"))
    assert (told(refused.value).code, told(refused.value).reason) == (PRECONDITION, "NO_PREVIOUS_CHAMPION")


def add_revisions(store: Store, registry: Registry, name: str, count: int, owner: str = "") -> None:
    spec = plan(TrainingRequest(FAMILY, learner=name, settings=TINY), registry.get(FAMILY)).spec
    store.put_learner(spec, owner)
    for number in range(1, count + 1):
        store.add_revision(name, safetensors_bytes(number), {"update": number})
    store.promote(name, 1)


def safetensors_bytes(number: int) -> bytes:
    import numpy as np
    import safetensors.numpy

    return bytes(safetensors.numpy.save({"w": np.full(1, number, np.float32)}))


@pytest.mark.parametrize(
    ("caller", "owner", "allowed"),
    [
        ("ann", "ann", True),
        ("bob", "ann", False),
        ("op", "ann", True),
        ("ann", "", False),
        ("op", "", True),
    ],
)
async def test_who_may_change_a_learner(
    guarded: Any,
    store: Store,
    registry: Registry,
    supervisor: TrainingSupervisor,
    caller: str,
    owner: str,
    allowed: bool,
) -> None:
    add_revisions(store, registry, "it", 2, owner)
    theirs = await supervisor.start(TrainingRequest(FAMILY, learner="it", settings={}), owner or "op")
    changes = [
        (guarded.StartTraining, start(learner="learners/it")),
        (guarded.PauseTraining, pb.PauseTrainingRequest(name=f"trainings/{theirs.id}")),
        (guarded.ResumeTraining, pb.ResumeTrainingRequest(name=f"trainings/{theirs.id}")),
        (guarded.PromoteRevision, pb.PromoteRevisionRequest(name="learners/it/revisions/2")),
        (guarded.RollBackLearner, pb.RollBackLearnerRequest(name="learners/it")),
    ]
    for rpc, request in changes:
        if allowed:
            await rpc(request, **bearer(caller))
        else:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await rpc(request, **bearer(caller))
            assert told(refused.value).code == DENIED
            assert told(refused.value).facts["name"] == "learners/it"
    assert store.get_learner("it").champion == 1  # promoted and rolled back, or neither


async def test_reading_is_open_and_anybody_may_train_a_learner_of_their_own(
    guarded: Any, store: Store, registry: Registry
) -> None:
    add_revisions(store, registry, "it", 1)
    assert len((await guarded.ListLearners(pb.ListLearnersRequest(), **bearer("bob"))).learners) == 1
    request = start(learner="learners/bobs", continue_from="learners/it/revisions/1")
    training = (await guarded.StartTraining(request, **bearer("bob"))).training
    read = await guarded.GetTraining(pb.GetTrainingRequest(name=training.name), **bearer("ann"))
    assert read.training == training
    assert store.get_learner("bobs").owner == "bob"


BAD: list[tuple[str, Any, grpc.StatusCode, str, str]] = [
    ("StartTraining", start(family=""), INVALID, "family", "missing"),
    ("StartTraining", start(family="families/nowhere"), INVALID, "family", "navigation-2d"),
    ("StartTraining", start(method="sarsa"), INVALID, "method", "use one of maml"),
    ("StartTraining", start(learner="learners/Big"), INVALID, "learner", "[a-z0-9-]"),
    ("StartTraining", start(learner="mine"), INVALID, "learner", "learners/LEARNER"),
    ("StartTraining", start(seed=2**63), INVALID, "seed", "2^63 - 1"),
    ("StartTraining", start(updates=-1), INVALID, "updates", "0 to 1000000"),
    ("StartTraining", start(updates=2**62), INVALID, "updates", "0 to 1000000"),
    ("StartTraining", start(simulator=9), INVALID, "simulator", "batch, actors"),
    ("StartTraining", start(continue_from="learners/x"), INVALID, "continue_from", "revisions/NUMBER"),
    ("StartTraining", start(continue_from="learners/x/revisions/1"), MISSING, "", "learners/x"),
    ("StartTraining", start(request_id="a b"), INVALID, "request_id", "1 to 128"),
    ("StartTraining", start(settings={"hiden_sizes": [3]}), INVALID, "settings.hiden_sizes", "hidden_sizes"),
    ("StartTraining", start(settings={"hidden_sizes": "big"}), INVALID, "settings.hidden_sizes", "list of integers"),
    ("StartTraining", start(settings={"epochs": 1.5}), INVALID, "settings.epochs", "an integer"),
    ("StartTraining", start(settings={"epochs": 0}), INVALID, "settings.epochs", "at least 1"),
    ("StartTraining", start(settings={"discount": math.nan}), INVALID, "settings", "NaN"),
    ("StartTraining", start(settings={"discount": 2}), INVALID, "settings.discount", "0 to 1"),
    ("StartTraining", start(settings={"rates": "wild"}), INVALID, "settings.rates", "fixed, learned"),
    ("StartTraining", start(settings={"checkpoint_every": 0}), INVALID, "settings.checkpoint_every", "at least 1"),
    ("StartTraining", start(settings={"revision_every": 1.5}), INVALID, "settings.revision_every", "integer"),
    ("StartTraining", start(settings={"tasks_per_update": 1e9}), INVALID, "settings.tasks_per_update", "too large"),
    ("StartTraining", start(learner="learners/it", method="maml", settings={"hidden_sizes": [9]}), INVALID,
     "settings.hidden_sizes", "train a new learner"),
    ("StartTraining", start(learner="learners/it", family="families/cartpole-dynamics"), PRECONDITION, "",
     "choose another name"),
    ("GetLearner", pb.GetLearnerRequest(), INVALID, "name", "missing"),
    ("GetLearner", pb.GetLearnerRequest(name="learners/none"), MISSING, "", "learners/none"),
    ("ListLearners", pb.ListLearnersRequest(family="x"), INVALID, "family", "families/"),
    ("ListLearners", pb.ListLearnersRequest(page_size=-1), INVALID, "page_size", "give 0"),
    ("ListLearners", pb.ListLearnersRequest(page_token="?"), INVALID, "page_token", "next_page_token"),
    ("ListRevisions", pb.ListRevisionsRequest(), INVALID, "parent", "missing"),
    ("ListRevisions", pb.ListRevisionsRequest(parent="learners/it", page_token="?"), INVALID, "page_token", "next"),
    ("GetRevision", pb.GetRevisionRequest(name="learners/it"), INVALID, "name", "revisions/NUMBER"),
    ("GetRevision", pb.GetRevisionRequest(name="learners/it/revisions/99"), MISSING, "", "revisions/99"),
    ("PromoteRevision", pb.PromoteRevisionRequest(name="learners/it/revisions/99"), MISSING, "", "revisions/99"),
    ("RollBackLearner", pb.RollBackLearnerRequest(name="learners/"), INVALID, "name", "learners/LEARNER"),
    ("PauseTraining", pb.PauseTrainingRequest(name="trainings/t0"), MISSING, "", "trainings/t0"),
    ("ResumeTraining", pb.ResumeTrainingRequest(name="x"), INVALID, "name", "trainings/TRAINING"),
    ("GetTraining", pb.GetTrainingRequest(name="trainings/t0"), MISSING, "", "trainings/t0"),
    ("ListTrainings", pb.ListTrainingsRequest(page_token="?"), INVALID, "page_token", "next_page_token"),
    ("FollowTraining", pb.FollowTrainingRequest(name="trainings/t0"), MISSING, "", "trainings/t0"),
    ("FollowTraining", pb.FollowTrainingRequest(name="trainings/t0", after_update=-1), INVALID, "after_update", "0"),
]  # fmt: skip


async def test_bad_input(stub: Any, store: Store, registry: Registry, subtests: Any) -> None:
    add_revisions(store, registry, "it", 1)
    for rpc, request, code, field, advice in BAD:
        with subtests.test(f"{rpc}-{field or code.name}-{advice}"):
            answer = getattr(stub, rpc)(request)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                _ = [n async for n in answer] if rpc == "FollowTraining" else await answer
            error = told(refused.value)
            assert (error.code, error.field) == (code, field)
            assert advice in error.message
    assert not store.list_trainings().items
    assert len((await stub.ListLearners(pb.ListLearnersRequest())).learners) == 1
