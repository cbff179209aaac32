from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import innerloop_server.tasks.gymnasium as registration
from innerloop_server.domain import Split
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.families.bernoulli_bandit import BernoulliBandit
from innerloop_server.tasks.families.navigation_2d import Navigation2D
from innerloop_server.tasks.registry import GROUP, Registry
from innerloop_server.tasks.sampling import sample_task

IDS = {f"innerloop/{ep.attr}-v0": ep.name for ep in importlib.metadata.entry_points(group=GROUP)}
ADVICE = (
    "A Box observation space m",  # minimum / maximum value is infinite: so are Gymnasium's own
    "The environment .* is different from the unwrapped version",  # the raw one is checked first
    "For Box action spaces, we recommend",  # a move of 0.1 and a torque of 2 are these environments' units
)


def test_a_task_has_a_short_name_too() -> None:
    long, short = (
        gymnasium.make("innerloop/Navigation2D-v0", task=f"{prefix}navigation-2d/tasks/test-0-3").unwrapped
        for prefix in ("families/", "")
    )
    np.testing.assert_array_equal(long.goal, short.goal)


def test_every_family_is_registered_once() -> None:
    assert registration.register() == tuple(sorted(IDS))
    assert set(IDS) <= set(gymnasium.registry)
    assert len(set(IDS)) == len(set(IDS.values()))


def test_of_two_classes_with_one_name_ours_has_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = [importlib.metadata.EntryPoint(n, "theirs:Navigation2D", GROUP) for n in ("a-maze", "navigation-2d")]
    found = [*theirs, *importlib.metadata.entry_points(group=GROUP)]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: found)
    with pytest.warns(
        UserWarning, match=r"innerloop/Navigation2D-v0 is family navigation-2d, so a-maze \(theirs:Nav"
    ) as told:
        ids = registration.register()
    assert len(told) == 1
    assert "make_env('a-maze')" in str(told[0].message)
    assert ids == tuple(sorted(IDS))
    assert gymnasium.registry["innerloop/Navigation2D-v0"].kwargs == {"family": "navigation-2d"}


def test_of_two_strangers_with_one_name_the_first_by_name_has_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [importlib.metadata.EntryPoint(n, "theirs:Twins", GROUP) for n in ("b-twins", "a-twins")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: found)
    try:
        with pytest.warns(UserWarning, match="so b-twins"):
            registration.register()
        assert gymnasium.registry["innerloop/Twins-v0"].kwargs == {"family": "a-twins"}
    finally:
        gymnasium.registry.pop("innerloop/Twins-v0", None)


def test_registering_loads_neither_torch_nor_a_family() -> None:
    probe = (
        "import sys, gymnasium, innerloop_server.tasks.gymnasium; "
        "assert 'innerloop/Navigation2D-v0' in gymnasium.registry; "
        "heavy = ('innerloop_server.tasks.families', 'torch', 'mujoco'); "
        "print(*[m for m in sys.modules if m.startswith(heavy)])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_making_one_loads_no_other() -> None:
    probe = (
        "import sys, gymnasium; "
        "gymnasium.make('innerloop_server.tasks.gymnasium:innerloop/Navigation2D-v0'); "
        "print(*[m for m in sys.modules if m.startswith('innerloop_server.tasks.families.')])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["innerloop_server.tasks.families.navigation_2d"]


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasiums_checker_is_content(env_id: str, registry: Registry) -> None:
    extra = registry.get(IDS[env_id]).extra
    if extra is not None and extra.missing:
        pytest.skip(f"needs {extra.missing}: {extra.hint}")
    with gymnasium.make(env_id) as env, warnings.catch_warnings():
        for advice in ADVICE:
            warnings.filterwarnings("ignore", f".*{advice}")
        check_env(env.unwrapped, skip_render_check=True)  # families offer no rendering
        check_env(env, skip_render_check=True)


def test_a_task_can_be_given_as_a_value_a_name_or_parameters() -> None:
    env_id = "innerloop_server.tasks.gymnasium:innerloop/Navigation2D-v0"
    task = sample_task(Navigation2D(), 5, Split.TEST, 6)
    for form in (task, task.name, task.parameters):
        env = gymnasium.make(env_id, task=form)
        np.testing.assert_array_equal(env.unwrapped.goal, task.parameters["goal"])  # type: ignore[attr-defined]
    default = gymnasium.make(env_id)
    first = sample_task(Navigation2D(), 0, Split.TRAIN, 0)
    np.testing.assert_array_equal(default.unwrapped.goal, first.parameters["goal"])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("task", "field"),
    [
        ("families/pendulum-dynamics/tasks/test-0-0", "task"),
        ("nonsense", "task"),
        ({"goal": np.array([0.7, 0.0])}, "task.goal"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(task: object, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        gymnasium.make("innerloop/Navigation2D-v0", task=task)
    assert caught.value.field == field


def test_an_unknown_argument_is_an_error() -> None:
    with pytest.raises(InvalidField, match=r"options\.goal: unknown; navigation-2d has no options"):
        gymnasium.make("innerloop/Navigation2D-v0", goal=np.zeros(2))


def bandit(**given: Any) -> Any:
    return registration.make_env("bernoulli-bandit", **given).unwrapped


def test_options_are_keywords() -> None:
    three = BernoulliBandit(arms=3)
    task = sample_task(three, 5, Split.TEST, 6)
    assert bandit().action_space.n == 5
    assert bandit(arms=3).action_space.n == 3
    for given in ({"task": task}, {"task": task.name}, {"arms": 3, "task": task.parameters}, {"arms": 3, "task": task}):
        np.testing.assert_array_equal(bandit(**given).probabilities, task.parameters["probabilities"])
    with pytest.raises(InvalidField, match=r"is of bernoulli-bandit\.arms-3, not of bernoulli-bandit\.arms-4"):
        bandit(arms=4, task=task.name)
    with pytest.raises(InvalidField, match=r"options\.arms: 1 is out of range"):
        bandit(arms=1)
