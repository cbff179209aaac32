from __future__ import annotations

import doctest
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop.arrays import Box, Discrete
from innerloop_server.domain import Split
from innerloop_server.errors import InvalidField, NotFound, PreconditionFailed
from innerloop_server.tasks import definition as definition_module
from innerloop_server.tasks.defined import Definitions
from innerloop_server.tasks.definition import DefinedFamily, FamilyDefinition, is_allowed
from innerloop_server.tasks.families.navigation_2d import Navigation2D
from innerloop_server.tasks.gymnasium_family import Apply
from innerloop_server.tasks.probing import probed
from innerloop_server.tasks.registry import Registry, load_registry
from innerloop_server.tasks.sampling import sample_task

G = gymnasium.spaces.Box(2.0, 20.0, (), np.float64)
PLANETS = FamilyDefinition("planets", "Pendulum-v1", {"g": G}, Apply.ARGUMENTS, 50, 3, "ann", 12.5)
SPACES = (Box.of(np.array([-1, -1, -8]), np.array([1, 1, 8]), (3,)), Box.of(-2, 2, (1,)))


def keep(folder: Path, definition: FamilyDefinition) -> None:
    (folder / f"{definition.name}.json").write_text(json.dumps(definition.to_json()))


def test_the_examples_in_the_documentation() -> None:
    assert doctest.testmod(definition_module).failed == 0


NUMBERS = st.floats(-1e9, 1e9)
BOXES = st.tuples(st.lists(NUMBERS, min_size=1, max_size=4), st.lists(st.floats(0, 1e6), min_size=4, max_size=4)).map(
    lambda drawn: gymnasium.spaces.Box(
        np.array(drawn[0]), np.array(drawn[0]) + drawn[1][: len(drawn[0])], dtype=np.float64
    )
)
PARAMETERS = st.dictionaries(
    st.from_regex(r"[a-z][a-z_]{0,6}", fullmatch=True),
    st.one_of(BOXES, st.integers(1, 9).map(gymnasium.spaces.Discrete), st.just(G)),
    min_size=1,
    max_size=4,
)


@given(PARAMETERS, st.sampled_from([Apply.ARGUMENTS, Apply.ATTRIBUTES]), st.integers(1, 1000), st.booleans())
def test_what_is_written_is_what_is_read(parameters: Any, apply: Apply, horizon: int, looked: bool) -> None:
    spaces = (Box.of(-np.inf, np.inf, (2,)), Discrete(4)) if looked else None
    was = FamilyDefinition("some-name", "a_module:Some-v1", parameters, apply, horizon, 2, "ann", 1.5, spaces)
    read = FamilyDefinition.from_json(json.loads(json.dumps(was.to_json(), allow_nan=False)))
    assert read == was
    assert DefinedFamily(read).parameter_space == gymnasium.spaces.Dict(parameters)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "Planets"}, "name"),
        ({"name": "planets.g-1"}, "name"),
        ({"name": "p" * 64}, "name"),
        ({"name": ""}, "name"),
        ({"env_id": ""}, "env_id"),
        ({"env_id": "Pendulum v1"}, "env_id"),
        ({"env_id": "../evil:X-v1"}, "env_id"),
        ({"env_id": "a" * 201}, "env_id"),
        ({"apply": Apply.FUNCTION}, "apply"),
        ({"parameters": {}}, "parameters"),
        ({"parameters": {"__class__": G}}, "parameters.__class__"),
        ({"parameters": {"g": gymnasium.spaces.Box(0, np.inf, (), np.float64)}}, "parameters.g"),
        ({"parameters": {"g": gymnasium.spaces.Box(0, 1, (101,), np.float64)}}, "parameters"),
        *(
            ({"apply": Apply.ATTRIBUTES, "parameters": {name: G}}, f"parameters.{name}")
            for name in (
                "np_random",
                "spec",
                "metadata",
                "render_mode",
                "observation_space",
                "action_space",
                "unwrapped",
            )
        ),
        ({"parameters": {"render_mode": G}}, "parameters.render_mode"),
        ({"horizon": 0}, "horizon"),
        ({"horizon": 100_001}, "horizon"),
        ({"episodes_per_trial": 0}, "episodes_per_trial"),
    ],
)
def test_what_cannot_be_defined(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        replace(PLANETS, **change)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("env_id", "patterns", "allowed"),
    [
        ("CartPole-v1", (), False),
        ("CartPole-v1", ("CartPole-v1",), True),
        ("CartPole-v1", ("Pendulum-v1", "Cart*"), True),
        ("CartPole-v1", ("cartpole-v1",), False),
        ("CartPole-v10", ("CartPole-v1",), False),
        ("ALE/Pong-v5", ("ALE/*",), True),
        ("ale_py:ALE/Pong-v5", ("ALE/*", "*", "*:*"), False),
        ("ale_py:ALE/Pong-v5", ("ale_py:ALE/*",), True),
        ("ale_pyx:ALE/Pong-v5", ("ale_py*:ALE/*",), False),
        ("CartPole-v1", ("gymnasium:CartPole-v1",), False),
    ],
)
def test_what_the_operator_allows(env_id: str, patterns: tuple[str, ...], allowed: bool) -> None:
    assert is_allowed(env_id, patterns) is allowed


def test_a_defined_family_is_described_without_its_environment() -> None:
    family = DefinedFamily(replace(PLANETS, env_id="NotRegisteredHere-v0", spaces=SPACES))
    assert (family.observation_space, family.action_space) == SPACES
    assert (family.horizon, family.episodes_per_trial) == (50, 3)
    assert family.action_scale == (2.0,)
    task = sample_task(family, 3, Split.TEST, 4)
    assert task.name == "families/planets/tasks/test-3-4"
    assert 2.0 <= task.parameters["g"] <= 20.0


def test_a_registry_finds_what_was_defined_after_it_was_made(tmp_path: Path) -> None:
    registry = Registry({"navigation-2d": Navigation2D()}, definitions=Definitions(tmp_path, ("Pendulum-v1",)))
    with pytest.raises(NotFound):
        registry.get("planets")
    keep(tmp_path, replace(PLANETS, spaces=SPACES))
    family = registry.get("planets")
    assert isinstance(family, DefinedFamily)
    assert registry.get("planets") is family
    assert registry.names() == ("navigation-2d", "planets")
    assert registry.reasons() == {}
    env = family.make(sample_task(family, 0, Split.TRAIN, 0))
    assert env.unwrapped.g == sample_task(family, 0, Split.TRAIN, 0).parameters["g"]  # type: ignore[attr-defined]


def test_definitions_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    keep(tmp_path, PLANETS)
    keep(tmp_path, replace(PLANETS, name="navigation-2d"))
    keep(tmp_path, replace(PLANETS, name="forbidden", env_id="CartPole-v1"))
    (tmp_path / "renamed.json").write_text(json.dumps(PLANETS.to_json()))
    (tmp_path / "torn.json").write_text("{")
    (tmp_path / "old.json").write_text("{}")
    (tmp_path / ".planets.json.tmp").write_text("half")
    registry = Registry({"navigation-2d": Navigation2D()}, definitions=Definitions(tmp_path, ("Pendulum-*",)))
    assert registry.names() == ("navigation-2d", "planets")
    reasons = registry.reasons()
    assert set(reasons) == {"forbidden", "renamed", "torn", "old", "navigation-2d (defined)"}
    assert reasons["forbidden"].endswith("start the server with --allow-env CartPole-v1")
    assert reasons["renamed"] == "renamed.json defines planets"
    assert reasons["torn"].startswith("torn.json cannot be read: JSONDecodeError")
    with pytest.raises(PreconditionFailed, match="family forbidden did not load: its environment is not allowed"):
        registry.get("forbidden")
    assert isinstance(registry.get("navigation-2d"), Navigation2D)


def test_a_family_defined_meanwhile_is_not_taken_for_one_that_is_installed(tmp_path: Path) -> None:
    class Growing(Definitions):
        def names(self) -> list[str]:
            found = super().names()
            keep(tmp_path, PLANETS)
            return found

    assert Registry({}, definitions=Growing(tmp_path, ("*",))).reasons() == {}


GOOD = replace(PLANETS, spaces=SPACES).to_json()
MALFORMED: dict[str, str] = {
    "no object": "[]",
    "too deep": "[" * 100_000,
    "no text": "\x00\xff",
    "parameters are a list": json.dumps({**GOOD, "parameters": []}),
    "a parameter is a number": json.dumps({**GOOD, "parameters": {"g": 3}}),
    "half a character": json.dumps({**GOOD, "parameters": {"\ud800": {"n": 2}}}),
    "no choices": json.dumps({**GOOD, "parameters": {"g": {"n": 0}}}),
    "bounds the wrong way round": json.dumps({**GOOD, "parameters": {"g": {"low": 2.0, "high": 1.0}}}),
    "spaces are an empty list": json.dumps({**GOOD, "spaces": []}),
    "spaces are numbers": json.dumps({**GOOD, "spaces": [1, 2]}),
    "half a step": json.dumps({**GOOD, "horizon": 9.5}),
    "steps in words": json.dumps({**GOOD, "horizon": "nine"}),
    "a trial that is true": json.dumps({**GOOD, "episodes_per_trial": True}),
    "nobody's": json.dumps({**GOOD, "owner": 5}),
    "never": json.dumps({**GOOD, "created_at": float("nan")}),
    "far in the future": json.dumps({**GOOD, "created_at": 1e300}),
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_one_broken_family_until_it_is_repaired(tmp_path: Path, text: str) -> None:
    (tmp_path / "planets.json").write_text(text, encoding="latin-1")
    registry = Registry({"navigation-2d": Navigation2D()}, definitions=Definitions(tmp_path, ("Pendulum-v1",)))
    assert registry.names() == ("navigation-2d",)
    (reason,) = registry.reasons().values()
    assert reason.startswith("planets.json cannot be read: ")
    assert len(reason.encode()) < 3_000  # and can be: no half characters
    with pytest.raises(PreconditionFailed, match=r"planets did not load: planets\.json cannot be read"):
        registry.get("planets")
    keep(tmp_path, replace(PLANETS, spaces=SPACES))
    assert isinstance(registry.get("planets"), DefinedFamily)
    assert registry.reasons() == {}


@pytest.mark.parametrize("name", ["a\0b", "a" * 450, "A", "", "é", "planets\n"])
def test_what_is_no_name_is_not_looked_for(tmp_path: Path, name: str) -> None:
    keep(tmp_path, PLANETS)
    registry = Registry({}, definitions=Definitions(tmp_path, ("*",)))
    with pytest.raises(NotFound):
        registry.get(name)
    assert registry.definitions is not None
    assert registry.definitions.get(name) is None


def test_a_file_that_is_called_like_no_family_is_left_alone(tmp_path: Path) -> None:
    for name in (b"Notes", b"a b", b"\xff"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name + b".json")).write_text("{}")
    assert Definitions(tmp_path, ("*",)).names() == []


def test_a_pattern_holds_no_comma(tmp_path: Path) -> None:
    with pytest.raises(InvalidField, match="'CartPole-v1,Pendulum-v1' holds a comma") as caught:
        Definitions(tmp_path, ("Acrobot-v1", "CartPole-v1,Pendulum-v1"))
    assert caught.value.field == "allowed_environments"


@pytest.mark.parametrize("name", ["../planets", "/etc/passwd", ".."])
def test_names_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "inner").mkdir()
    keep(tmp_path, PLANETS)
    with pytest.raises(NotFound):
        Registry({}, definitions=Definitions(tmp_path / "inner", ("*",))).get(name)


def test_processes_are_told_by_their_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for allowed in ((), ("Pendulum-*",), ("CartPole-v1", "ale_py:ALE/*")):
        told = Definitions(tmp_path, allowed)
        assert Definitions.from_environment(told.to_environment()) == told
    assert Definitions.from_environment({}) is None
    keep(tmp_path, replace(PLANETS, spaces=SPACES))
    for name, value in Definitions(tmp_path, ("Pendulum-v1",)).to_environment().items():
        monkeypatch.setenv(name, value)
    assert load_registry([]).names() == ("planets",)


async def test_a_look_says_what_the_spaces_are() -> None:
    found = await probed(PLANETS)
    assert found == replace(PLANETS, spaces=SPACES)


@pytest.mark.parametrize(
    ("change", "field", "told"),
    [
        ({"env_id": "NoSuchThing-v0"}, "env_id", "NameNotFound"),
        ({"env_id": "no_such_module:Thing-v0"}, "env_id", "ModuleNotFoundError"),
        (
            {"env_id": "Blackjack-v1", "parameters": {"natural": gymnasium.spaces.Discrete(2)}},
            "env_id",
            "cannot be carried",
        ),
        ({"parameters": {"wheels": G}}, "env_id", "unexpected keyword argument 'wheels'"),
        ({"parameters": {"wheels": G}, "apply": Apply.ATTRIBUTES}, "parameters.wheels", "no such attribute"),
    ],
)
async def test_a_look_at_what_no_family_can_be_made_of(change: dict[str, Any], field: str, told: str) -> None:
    with pytest.raises(InvalidField, match=told) as caught:
        await probed(replace(PLANETS, **change))
    assert caught.value.field == field


HOSTILE = """
import os, time
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

class Room(PendulumEnv):
    def __init__(self, g):
        print("talking", "{")
        if g > 90:
            time.sleep(1000)
        if g > 80:
            os._exit(7)
        super().__init__(g=g)

gymnasium.register("Hostile-v0", Room)
"""


async def test_an_environment_that_kills_its_process_or_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hostile_rooms.py").write_text(HOSTILE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def look(g: float, seconds: float = 60.0) -> FamilyDefinition:
        box = gymnasium.spaces.Box(g, g, (), np.float64)
        return await probed(replace(PLANETS, env_id="hostile_rooms:Hostile-v0", parameters={"g": box}), seconds)

    assert (await look(10.0)).spaces == SPACES  # whatever it prints
    with pytest.raises(InvalidField, match="ended its process with status 7"):
        await look(85.0)
    with pytest.raises(InvalidField, match=r"not made, reset and stepped within 0\.5 s"):
        await look(95.0, 0.5)
