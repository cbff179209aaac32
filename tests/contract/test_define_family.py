"""Families over the wire: who may define which, what is kept, and when one may go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from contract_support import bearer, dialled, refused, serving, task_servicer, teach, with_tokens

from innerloop.v1 import array_pb2, task_pb2, task_pb2_grpc
from innerloop_server.service import definitions
from innerloop_server.settings import Limits, Settings
from innerloop_server.store.records import TrainingState
from innerloop_server.store.store import Store
from innerloop_server.tasks.defined import Definitions
from innerloop_server.tasks.registry import Registry
from innerloop_server.training.intake import Intake, TrainerSettings
from innerloop_server.training.requests import TrainingRequest

ANN, BOB, BOSS = bearer("a"), bearer("b"), bearer("o")
Stub = Any  # task_pb2_grpc.TaskServiceAsyncStub, which is in the type stubs alone


def number(low: float, high: float) -> array_pb2.Space:
    return array_pb2.Space(box=array_pb2.BoxSpace(low=[low], high=[high]))


def definition(**changes: Any) -> task_pb2.DefineFamilyRequest:
    asked: dict[str, Any] = {
        "name": "families/planets",
        "env_id": "Pendulum-v1",
        "parameters": {"g": number(0.1, 20.0)},
        "apply": task_pb2.APPLY_ARGUMENTS,
        "horizon": 50,
    }
    return task_pb2.DefineFamilyRequest(**{**asked, **changes})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    plain = Settings(
        data_dir=tmp_path / "data",
        port=0,
        operators=("boss",),
        allowed_environments=("Pendulum-v1", "CartPole-*"),
        limits=Limits(families_per_owner=2),
    )
    return with_tokens(plain, a="ann", b="bob", o="boss")


@pytest.fixture
def own(registry: Registry, settings: Settings) -> Registry:
    return replace(registry, definitions=Definitions(settings.data_dir / "families", settings.allowed_environments))


@pytest.fixture
def servicers(own: Registry, store: Store, settings: Settings) -> Sequence[object]:
    return [task_servicer(own, store, settings)]


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Stub:
    return task_pb2_grpc.TaskServiceStub(channel)


async def get(stub: Stub, name: str = "families/planets", who: Any = BOB) -> task_pb2.Family:
    return (await stub.GetFamily(task_pb2.GetFamilyRequest(name=name), metadata=who)).family


async def test_a_family_is_defined_shown_drawn_from_and_forgotten(stub: Stub, settings: Settings) -> None:
    family = (await stub.DefineFamily(definition(episodes_per_trial=3), metadata=ANN)).family
    assert (family.name, family.horizon, family.episodes_per_trial) == ("families/planets", 50, 3)
    assert list(family.observation_space.box.high) == [1.0, 1.0, 8.0]
    assert list(family.action_space.box.high) == [2.0]
    assert list(family.parameter_space["g"].box.low) == [0.1]  # in full precision
    assert list(family.simulators) == [task_pb2.SIMULATOR_ACTORS]
    made = family.definition
    assert (made.env_id, made.apply, made.owner) == ("Pendulum-v1", task_pb2.APPLY_ARGUMENTS, "ann")
    assert made.create_time.seconds > 0
    assert [path.name for path in (settings.data_dir / "families").iterdir()] == ["planets.json"]

    assert await get(stub) == family
    listed = (await stub.ListFamilies(task_pb2.ListFamiliesRequest(), metadata=BOB)).families
    assert family in listed
    asked = task_pb2.SampleTasksRequest(family="families/planets", split=task_pb2.SPLIT_TEST, count=2)
    tasks = (await stub.SampleTasks(asked, metadata=BOB)).tasks
    assert [task.name for task in tasks] == ["families/planets/tasks/test-0-0", "families/planets/tasks/test-0-1"]

    await stub.DeleteFamily(task_pb2.DeleteFamilyRequest(name="families/planets"), metadata=ANN)
    assert (await refused(get(stub))).code == grpc.StatusCode.NOT_FOUND
    assert list((settings.data_dir / "families").iterdir()) == []
    again = (await stub.DefineFamily(definition(horizon=9), metadata=BOB)).family
    assert (again.horizon, again.definition.owner) == (9, "bob")


async def test_attributes(stub: Stub) -> None:
    asked = definition(
        env_id="CartPole-v1",
        apply=task_pb2.APPLY_ATTRIBUTES,
        parameters={"length": number(0.3, 0.7), "masscart": number(0.5, 2.0)},
    )
    family = (await stub.DefineFamily(asked, metadata=ANN)).family
    assert family.action_space.discrete.n == 2
    assert family.definition.apply == task_pb2.APPLY_ATTRIBUTES


async def test_the_same_again_is_the_family_that_is_there(stub: Stub) -> None:
    first, second = await asyncio.gather(*(stub.DefineFamily(definition(), metadata=ANN) for _ in range(2)))
    assert first == second == await stub.DefineFamily(definition(), metadata=ANN)


@pytest.mark.parametrize("name", ["navigation-2d", "broken-family"])
async def test_names_of_installed_families_are_taken(stub: Stub, name: str) -> None:
    error = await refused(stub.DefineFamily(definition(name=f"families/{name}"), metadata=BOSS))
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    assert "is installed" in error.message
    error = await refused(stub.DeleteFamily(task_pb2.DeleteFamilyRequest(name=f"families/{name}"), metadata=BOSS))
    assert error.code == grpc.StatusCode.FAILED_PRECONDITION
    assert "uninstall its package" in error.message


async def test_a_name_is_taken_by_another_definition_or_owner(stub: Stub) -> None:
    await stub.DefineFamily(definition(), metadata=ANN)
    for asked, who in ((definition(horizon=51), ANN), (definition(), BOB), (definition(), BOSS)):
        assert (await refused(stub.DefineFamily(asked, metadata=who))).reason == "ALREADY_EXISTS"
    assert (await get(stub)).horizon == 50


@pytest.mark.parametrize("env_id", ["Acrobot-v1", "gymnasium:Pendulum-v1", "os:CartPole-v1"])
async def test_an_environment_must_be_allowed(stub: Stub, env_id: str) -> None:
    error = await refused(stub.DefineFamily(definition(env_id=env_id), metadata=BOSS))
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ENVIRONMENT_NOT_ALLOWED")
    assert f"innerloop serve --allow-env {env_id}" in error.message


async def test_without_a_word_of_the_operator_nothing_is_allowed(
    registry: Registry, store: Store, tmp_path: Path
) -> None:
    open_to_all = Settings(data_dir=tmp_path / "data", port=0)
    found = replace(registry, definitions=Definitions(tmp_path / "families", open_to_all.allowed_environments))
    for own in (found, registry):  # with a folder that allows nothing, and with none
        async with (
            serving(open_to_all, [task_servicer(own, store, open_to_all)]) as server,
            dialled(server) as channel,
        ):
            error = await refused(task_pb2_grpc.TaskServiceStub(channel).DefineFamily(definition()))
            assert error.reason == "ENVIRONMENT_NOT_ALLOWED"


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no name": ({"name": ""}, "name", "is missing"),
    "a short name": ({"name": "planets"}, "name", "write families/FAMILY"),
    "an option in the name": ({"name": "families/planets.g-3"}, "name", "use 1 to 63 characters"),
    "no environment": ({"env_id": ""}, "env_id", "write one like CartPole-v1"),
    "no parameters": ({"parameters": {}}, "parameters", "name at least one"),
    "no space": ({"parameters": {"g": array_pb2.Space()}}, "parameters.g", "is missing"),
    "no bounds": ({"parameters": {"g": number(0.0, float("inf"))}}, "parameters.g", "needs finite bounds"),
    "bounds the wrong way round by less than float32 tells": (
        {"parameters": {"g": number(1 + 1e-12, 1)}},
        "parameters.g.box.low",
        "lies above",
    ),
    "an attribute of Gymnasium's": (
        {"parameters": {"spec": number(0, 1)}, "apply": task_pb2.APPLY_ATTRIBUTES},
        "parameters.spec",
        "belongs to Gymnasium",
    ),
    "an attribute that reset sets": (
        {
            "env_id": "CartPole-v1",
            "parameters": {"state": array_pb2.Space(box=array_pb2.BoxSpace(shape=[4], low=[0] * 4, high=[1] * 4))},
            "apply": task_pb2.APPLY_ATTRIBUTES,
        },
        "parameters.state",
        "after a reset it is another",
    ),
    "bounds the wrong way round": ({"parameters": {"g": number(2.0, 1.0)}}, "parameters.g.box.low", "lies above"),
    "a private attribute": ({"parameters": {"__class__": number(0, 1)}}, "parameters.__class__", "no public name"),
    "an unknown argument": ({"parameters": {"wheels": number(0, 1)}}, "env_id", "unexpected keyword argument"),
    "an unknown attribute": (
        {"parameters": {"wheels": number(0, 1)}, "apply": task_pb2.APPLY_ATTRIBUTES},
        "parameters.wheels",
        "no such attribute",
    ),
    "too many parameters": ({"parameters": {f"g{i}": number(0, 1) for i in range(101)}}, "parameters", "at most 100"),
    "no way to apply them": ({"apply": task_pb2.APPLY_UNSPECIFIED}, "apply", "give arguments or attributes"),
    "another way to apply them": ({"apply": 9}, "apply", "give arguments or attributes"),
    "no horizon": ({"horizon": 0}, "horizon", "give 1 to 100000"),
    "a negative trial": ({"episodes_per_trial": -1}, "episodes_per_trial", "give 1 to 10000"),
    "not registered": ({"env_id": "CartPole-nope-v1"}, "env_id", "NameNotFound"),
}


@pytest.mark.parametrize(("change", "field", "advice"), BAD.values(), ids=BAD)
async def test_what_cannot_be(stub: Stub, settings: Settings, change: dict[str, Any], field: str, advice: str) -> None:
    error = await refused(stub.DefineFamily(definition(**change), metadata=ANN))
    assert error.code == grpc.StatusCode.INVALID_ARGUMENT
    assert (error.reason, error.field) == ("INVALID_FIELD", field)
    assert advice in error.advice
    assert not list((settings.data_dir / "families").glob("*"))


async def test_nobody_may_define_without_end(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(2):
        await stub.DefineFamily(definition(name=f"families/planets-{i}"), metadata=ANN)

    async def never(_: Any) -> Any:
        raise AssertionError("looked at what cannot be kept")

    with monkeypatch.context() as patch:
        patch.setattr(definitions, "probed", never)
        error = await refused(stub.DefineFamily(definition(), metadata=ANN))
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "FAMILIES_EXHAUSTED")
    await stub.DefineFamily(definition(), metadata=BOB)
    await stub.DeleteFamily(task_pb2.DeleteFamilyRequest(name="families/planets-0"), metadata=ANN)
    await stub.DefineFamily(definition(name="families/planets-3"), metadata=ANN)


async def test_who_may_delete(stub: Stub) -> None:
    await stub.DefineFamily(definition(), metadata=ANN)
    request = task_pb2.DeleteFamilyRequest(name="families/planets")
    error = await refused(stub.DeleteFamily(request, metadata=BOB))
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    await stub.DeleteFamily(request, metadata=BOSS)
    assert (await refused(stub.DeleteFamily(request, metadata=BOSS))).code == grpc.StatusCode.NOT_FOUND


async def test_a_family_with_a_learner_stays(stub: Stub, store: Store, own: Registry) -> None:
    await stub.DefineFamily(definition(), metadata=ANN)
    teach(store, own, "planets", "taught-on-planets")
    error = await refused(stub.DeleteFamily(task_pb2.DeleteFamilyRequest(name="families/planets"), metadata=ANN))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "FAMILY_IN_USE")
    assert "learners/taught-on-planets" in error.message
    assert (await get(stub)).name == "families/planets"


async def test_learners_without_a_revision_go_with_their_family(stub: Stub, store: Store, own: Registry) -> None:
    await stub.DefineFamily(definition(), metadata=ANN)
    request = task_pb2.DeleteFamilyRequest(name="families/planets")
    intake = Intake(store, own, TrainerSettings())
    running = intake.create(TrainingRequest("planets"), "bob", lambda _: None)
    other = intake.create(TrainingRequest("navigation-2d"), "bob", lambda _: None)
    folders = [store.training_dir(training.id) for training in (running, other)]

    error = await refused(stub.DeleteFamily(request, metadata=ANN))
    assert error.reason == "FAMILY_IN_USE"
    assert "learners/planets-maml" in error.message
    assert store.get_learner("planets-maml").id == store.get_training(running.id).learner_id

    store.update_training(running.id, state=TrainingState.FAILED, error="its environment is odd")
    await stub.DeleteFamily(request, metadata=ANN)
    assert [record.id for record in store.list_learners().items] == ["navigation-2d-maml"]
    assert [record.id for record in store.list_trainings().items] == [other.id]
    assert [folder.exists() for folder in folders] == [False, True]

    again = definition(env_id="CartPole-v1", parameters={"length": number(0.3, 0.7)}, apply=task_pb2.APPLY_ATTRIBUTES)
    await stub.DefineFamily(again, metadata=BOB)  # the same name, another family: nothing of the first is in its way
    intake.create(TrainingRequest("planets"), "bob", lambda _: None)
    assert store.get_learner("planets-maml").spec.observation_space.shape == (4,)


async def test_a_learner_that_is_being_made_keeps_its_family(
    stub: Stub, store: Store, own: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stub.DefineFamily(definition(), metadata=ANN)
    put, deletions = store.put_learner, []

    async def delete() -> Any:
        return await refused(stub.DeleteFamily(task_pb2.DeleteFamilyRequest(name="families/planets"), metadata=ANN))

    def put_learner(*args: Any) -> Any:
        deletions.append(asyncio.run_coroutine_threadsafe(delete(), loop))
        time.sleep(0.2)  # for a deletion that would not wait
        return put(*args)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(store, "put_learner", put_learner)
    intake = Intake(store, own, TrainerSettings())
    await asyncio.to_thread(intake.create, TrainingRequest("planets"), "ann", lambda _: None)
    assert (await asyncio.wrap_future(deletions[0])).reason == "FAMILY_IN_USE"


@pytest.mark.parametrize("text", ['{"parameters": []}', "[" * 100_000, '{"spaces": [], "horizon": 9.5}'])
async def test_a_malformed_definition_is_in_nobodys_way(
    stub: Stub, settings: Settings, registry: Registry, text: str
) -> None:
    folder = settings.data_dir / "families"
    await stub.DefineFamily(definition(), metadata=ANN)
    (folder / "odd.json").write_text(text)
    listed = (await stub.ListFamilies(task_pb2.ListFamiliesRequest(page_size=1_000), metadata=BOB)).families
    assert len(listed) == len({*registry.names(), *registry.broken}) + 2
    assert "odd.json cannot be read" in (await get(stub, "families/odd")).broken_reason
    assert (await get(stub)).horizon == 50
    await stub.DeleteFamily(task_pb2.DeleteFamilyRequest(name="families/odd"), metadata=BOSS)
    assert [path.name for path in folder.iterdir()] == ["planets.json"]


async def test_a_damaged_definition_is_listed_and_an_operator_may_remove_it(stub: Stub, settings: Settings) -> None:
    folder = settings.data_dir / "families"
    folder.mkdir(parents=True)
    (folder / "torn.json").write_text("{")
    assert "torn.json cannot be read" in (await get(stub, "families/torn")).broken_reason
    assert (await refused(stub.DefineFamily(definition(name="families/torn"), metadata=ANN))).reason == "ALREADY_EXISTS"
    request = task_pb2.DeleteFamilyRequest(name="families/torn")
    assert (await refused(stub.DeleteFamily(request, metadata=ANN))).reason == "PERMISSION_DENIED"
    await stub.DeleteFamily(request, metadata=BOSS)
    assert not (folder / "torn.json").exists()
