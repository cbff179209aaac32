"""What a look at an environment finds at both ends of its parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from innerloop_server.errors import InvalidField
from innerloop_server.tasks.definition import FamilyDefinition
from innerloop_server.tasks.gymnasium_family import Apply
from innerloop_server.tasks.probing import look, probed

ODD = """
import gymnasium
import numpy as np

class Odd(gymnasium.Env):
    action_space = gymnasium.spaces.Discrete(2)
    kept, drifting, bent = 0.5, 0.5, 0.5

    def __init__(self, seen=1, reward=0.0, rows=0, more=0, exits=0):
        self.seen, self.reward, self.rows = int(seen), reward, rows
        self.observation_space = gymnasium.spaces.Discrete(3 + more)
        if exits:
            raise SystemExit(0)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.bent = min(self.bent, 0.5)
        return 0, {}

    def step(self, action):
        self.drifting += 0.1
        reward = np.full(self.rows, self.reward) if self.rows else 1 / self.reward if self.reward else 0.0
        return self.seen, reward, False, False, {}

gymnasium.register("Odd-v0", Odd)
"""


def number(low: float, high: float, shape: tuple[int, ...] = ()) -> gymnasium.Space[Any]:
    return gymnasium.spaces.Box(low, high, shape, np.float64)


def definition(env_id: str, apply: Apply = Apply.ARGUMENTS, **parameters: gymnasium.Space[Any]) -> FamilyDefinition:
    return FamilyDefinition("mine", env_id, parameters, apply, 50)


@pytest.fixture(autouse=True)
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd_rooms.py").write_text(ODD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


BAD: dict[str, tuple[FamilyDefinition, str, str]] = {
    "another shape after a step": (
        definition("Pendulum-v1", g=number(5, 15, (3,))),
        "env_id",
        "an observation of shape [3, 3], its space is",
    ),
    "spaces that follow a parameter": (
        definition("odd_rooms:Odd-v0", more=gymnasium.spaces.Discrete(2)),
        "parameters",
        "change the spaces of odd_rooms:Odd-v0; all tasks must share one",
    ),
    "an element past the space, at the upper end alone": (
        definition("odd_rooms:Odd-v0", seen=number(0, 3)),
        "env_id",
        "stepped with its highest parameters, 3, its space is Discrete(3)",
    ),
    "a reward that is no number": (
        definition("odd_rooms:Odd-v0", rows=gymnasium.spaces.Discrete(3)),
        "env_id",
        "for a reward",
    ),
    "an infinite reward at the lower end": (
        definition("odd_rooms:Odd-v0", reward=number(1e-310, 1.0)),
        "env_id",
        "with its lowest parameters, inf for a reward",
    ),
    "what reset sets": (
        definition("CartPole-v1", Apply.ATTRIBUTES, state=number(-0.1, 0.1, (4,))),
        "parameters.state",
        "is set by CartPoleEnv itself: after a reset it is another",
    ),
    "what reset bends at the upper end": (
        definition("odd_rooms:Odd-v0", Apply.ATTRIBUTES, bent=number(0.1, 0.9)),
        "parameters.bent",
        "after a reset it is another",
    ),
    "what a step changes": (
        definition("odd_rooms:Odd-v0", Apply.ATTRIBUTES, drifting=number(0.1, 0.9)),
        "parameters.drifting",
        "after a step it is another",
    ),
}


@pytest.mark.parametrize(("wanted", "field", "told"), BAD.values(), ids=BAD)
def test_what_no_family_can_be_made_of(wanted: FamilyDefinition, field: str, told: str) -> None:
    answer = look(wanted)
    assert answer.get("field") == field, answer
    assert told in answer["error"]


def test_parameters_that_change_the_spaces() -> None:
    pytest.importorskip("mujoco")
    answer = look(definition("Ant-v5", exclude_current_positions_from_observation=gymnasium.spaces.Discrete(2)))
    assert answer == {"field": "parameters", "error": "change the spaces of Ant-v5; all tasks must share one"}


@pytest.mark.parametrize(
    "wanted",
    [
        definition("odd_rooms:Odd-v0", seen=gymnasium.spaces.Discrete(3)),
        definition("odd_rooms:Odd-v0", Apply.ATTRIBUTES, kept=number(0.1, 0.9)),
        definition("CartPole-v1", Apply.ATTRIBUTES, length=number(0.3, 0.7), masscart=number(0.5, 2.0)),
        definition("Pendulum-v1", g=number(0.0, 20.0)),
    ],
    ids=lambda d: "-".join(d.parameters),
)
def test_what_a_family_can_be_made_of(wanted: FamilyDefinition) -> None:
    assert look(wanted).keys() == {"spaces"}


async def test_an_environment_that_exits() -> None:
    with pytest.raises(InvalidField, match="ended its process with status 0"):
        await probed(definition("odd_rooms:Odd-v0", exits=gymnasium.spaces.Discrete(2)))
