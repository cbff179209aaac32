"""docs/families.md: what it shows to write, written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from innerloop_server.domain import Split
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.gymnasium_family import GymnasiumFamily
from innerloop_server.tasks.sampling import sample_task

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "families.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def block(mark: str) -> str:
    (found,) = [text for text in BLOCKS if mark in text]
    return found


def run(mark: str, **names: Any) -> dict[str, Any]:
    exec(compile(block(mark), "docs/families.md", "exec"), names)
    return names


@pytest.mark.parametrize("name", ["PendulumPlanets", "Thermostat"])
def test_a_family_of_the_page_steps(name: str) -> None:
    family = run(f"class {name}(", __name__="page")[name]()
    assert isinstance(family, Family)
    env = family.make(sample_task(family, 0, Split.TRAIN, 0))
    env.reset(seed=0)
    steps = 1
    while not env.step(np.zeros(1, np.float32))[3]:
        steps += 1
    assert steps == family.horizon


def test_the_family_takes_ten_lines() -> None:
    lines = [line for line in block("class PendulumPlanets(").splitlines() if line.strip()]
    body = lines[lines.index("class PendulumPlanets(GymnasiumFamily):") :]
    assert len(body) <= 10
    assert GymnasiumFamily.__name__ in body[0]


def test_the_environments_of_the_page() -> None:
    env = run("gymnasium.make(")["env"]
    assert env.action_space == gymnasium.spaces.Discrete(10)


def test_what_it_points_at_is_there() -> None:
    paths = re.findall(r"\]\(([^)#:]+)\)", PAGE)
    assert "examples/my-families" in paths
    for path in paths:
        assert (DOCS / path).exists(), path
