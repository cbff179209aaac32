from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop_server.domain import Simulator, Split
from innerloop_server.errors import InvalidField, PreconditionFailed
from innerloop_server.tasks.families.minigrid_goal import MiniGridGoal
from innerloop_server.tasks.families.minigrid_goal_rules import COLORS, VIEW
from innerloop_server.tasks.family import Extra, space_of
from innerloop_server.tasks.sampling import custom_task, sample_task

FAMILY = MiniGridGoal()
LEFT, RIGHT, FORWARD = range(3)
needs_minigrid = pytest.mark.skipif(
    importlib.util.find_spec("minigrid") is None, reason="MiniGrid is not installed: pip install 'innerloop[games]'"
)


def make(paying: int = 0, family: MiniGridGoal = FAMILY) -> Any:
    """The raw environment."""
    return family.make(custom_task(family, {"paying": np.array(paying)})).unwrapped


def put(env: Any, agent: tuple[int, int], direction: int, *goals: tuple[int, int]) -> None:
    """Arrange the room by hand, through MiniGrid's own methods alone; the policy's view of it is then not kept."""
    env.reset(seed=0)
    for x, y in np.ndindex(env.width, env.height):
        goal = env.grid.get(x, y)
        if goal is not None and goal.type == "goal":
            env.grid.set(x, y, None)
    from minigrid.core.world_object import Goal

    for color, cell in zip(COLORS, goals, strict=False):
        goal = Goal()
        goal.color = color
        env.put_obj(goal, *cell)
    env.agent_pos, env.agent_dir = agent, direction


@needs_minigrid
@settings(max_examples=30, deadline=None)
@given(size=st.integers(5, 8), goals=st.integers(2, 4), seed=st.integers(0, 2**32))
def test_the_policy_sees_what_minigrid_shows(size: int, goals: int, seed: int) -> None:
    """Every observation of an episode against MiniGrid's own code for it."""
    from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
    from minigrid.minigrid_env import MiniGridEnv

    env = make(0, MiniGridGoal(size, goals))
    seen, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    ended = False
    while True:
        theirs = MiniGridEnv.gen_obs(env)
        kind, color, _ = np.moveaxis(theirs["image"].swapaxes(0, 1), -1, 0)
        planes = [kind == OBJECT_TO_IDX["wall"]]
        planes += [(kind == OBJECT_TO_IDX["goal"]) & (color == COLOR_TO_IDX[c]) for c in COLORS[:goals]]
        np.testing.assert_array_equal(seen[:-4].reshape(VIEW, VIEW, 1 + goals), np.stack(planes, -1))
        assert seen[-4:].tolist() == [float(d == theirs["direction"]) for d in range(4)]
        assert space_of(env.observation_space) == MiniGridGoal(size, goals).observation_space
        assert seen.dtype == np.float32
        if ended:
            return
        seen, _, terminated, truncated, _ = env.step(int(rng.choice(3, p=[0.2, 0.2, 0.6])))
        ended = terminated or truncated


@needs_minigrid
@pytest.mark.parametrize("paying", [0, 1, 2])
@pytest.mark.parametrize("entered", [0, 1, 2])
def test_the_first_goal_entered_ends_the_episode_and_one_pays(paying: int, entered: int) -> None:
    env = make(paying)
    cells = [(1, 1), (4, 1), (1, 4)]
    goals = [cells[(k - entered) % 3] for k in range(3)]  # the one to be entered is at (1, 1)
    put(env, (2, 2), 0, *goals)
    walk = [LEFT, FORWARD, LEFT, FORWARD]  # right -> up, to (2, 1), left, onto (1, 1)
    for action in walk[:-1]:
        _, reward, terminated, truncated, info = env.step(action)
        assert (reward, terminated, truncated, info) == (0.0, False, False, {"success": False})
    _, reward, terminated, truncated, info = env.step(walk[-1])
    assert terminated
    assert not truncated
    assert info == {"success": entered == paying}
    assert reward == pytest.approx(1 - 0.9 * 4 / 30 if entered == paying else 0.0)


@needs_minigrid
def test_walls_hold_and_the_time_limit_truncates() -> None:
    env = make()
    put(env, (2, 1), 3, (1, 4), (4, 4), (4, 1))
    for t in range(1, 31):
        _, reward, terminated, truncated, info = env.step(FORWARD)
        assert tuple(env.agent_pos) == (2, 1)
        assert (reward, terminated, info["success"]) == (0.0, False, False)
        assert truncated == (t == 30)


@needs_minigrid
def test_rooms_are_drawn_anew_and_goals_never_touch() -> None:
    env = make()
    rooms = set()
    count = np.zeros((6, 6), np.int64)
    for seed in range(400):
        env.reset(seed=seed)
        cells = {
            env.grid.get(x, y).color: (x, y)
            for x, y in np.ndindex(6, 6)
            if env.grid.get(x, y) is not None and env.grid.get(x, y).type == "goal"
        }
        assert set(cells) == {"red", "green", "blue"}
        points = np.array(list(cells.values()))
        apart = np.abs(points[:, None] - points[None]).max(-1)
        assert np.all(apart[~np.eye(3, dtype=bool)] >= 2)
        assert tuple(env.agent_pos) not in cells.values()
        rooms.add((tuple(sorted(cells.items())), tuple(env.agent_pos), env.agent_dir))
        count[cells["red"]] += 1
    assert len(rooms) > 380
    assert count.sum() == count[1:5, 1:5].sum() == 400
    assert count[1:5, 1:5].min() > 0


@needs_minigrid
def test_the_same_seed_gives_the_same_episode_whichever_goal_pays() -> None:
    def episode(env: Any) -> list[Any]:
        seen, _ = env.reset(seed=11)
        rng = np.random.default_rng(0)
        log = [seen]
        while True:
            seen, _, terminated, truncated, _ = env.step(int(rng.integers(3)))
            log.append(seen)
            if terminated or truncated:
                return log

    first, second = episode(make(0)), episode(make(2))
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@needs_minigrid
def test_an_environment_can_become_another_task() -> None:
    env = FAMILY.make(custom_task(FAMILY, {"paying": np.array(0)}))
    env.get_wrapper_attr("set_task")({"paying": np.array(2)})
    put(env.unwrapped, (2, 1), 2, (4, 4), (4, 1), (1, 1))
    _, reward, terminated, _, info = env.step(FORWARD)
    assert terminated
    assert info["success"]
    assert reward == pytest.approx(0.97)


@needs_minigrid
@pytest.mark.parametrize("options", [{}, {"size": 8, "goals": 4}])
def test_gymnasiums_checker_is_content(options: dict[str, int]) -> None:
    from gymnasium.utils.env_checker import check_env

    check_env(make(0, MiniGridGoal(**options)), skip_render_check=True)


@needs_minigrid
def test_it_can_be_drawn() -> None:
    from innerloop_server.tasks.families.minigrid_goal_env import MiniGridGoalEnv

    env = MiniGridGoalEnv(6, 3, 0, render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture is not None
    assert picture.shape == (6 * 32, 6 * 32, 3)


@needs_minigrid
def test_nothing_is_printed_and_no_torch_is_loaded() -> None:
    program = """
import sys
from innerloop_server.domain import Split
from innerloop_server.tasks.families.minigrid_goal import MiniGridGoal
from innerloop_server.tasks.sampling import sample_task
family = MiniGridGoal()
task = sample_task(family, 0, Split.TRAIN, 0)
assert "minigrid" not in sys.modules
family.make(task).reset(seed=0)
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_options_make_another_family() -> None:
    assert (FAMILY.name, FAMILY.horizon, FAMILY.observation_space.shape) == ("minigrid-goal", 30, (200,))
    other = MiniGridGoal(size=8, goals=2)
    assert other.name == "minigrid-goal.size-8.goals-2"
    assert (other.horizon, other.observation_space.shape) == (40, (151,))
    assert other.parameter_space["paying"].n == 2  # type: ignore[attr-defined]
    for word in ("Hidden", "paying", "8 x 8", "40 steps", "0 red, 1 green)"):
        assert word in other.description


@pytest.mark.parametrize(
    ("options", "field"),
    [({"size": 4}, "size"), ({"size": 9}, "size"), ({"goals": 1}, "goals"), ({"goals": 5}, "goals")],
)
def test_impossible_options_are_refused(options: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidField, match="out of range; give") as caught:
        MiniGridGoal(**options)
    assert caught.value.field == f"options.{field}"


def test_there_are_few_tasks_and_actors_run_them() -> None:
    assert FAMILY.splits_share_tasks
    assert FAMILY.simulators == (Simulator.ACTORS,)
    drawn = {int(sample_task(FAMILY, 0, Split.TEST, i).parameters["paying"]) for i in range(50)}
    assert drawn == {0, 1, 2}


def test_without_minigrid_it_can_be_described_and_sampled_and_says_what_to_install() -> None:
    class Without(MiniGridGoal):
        extra = Extra("games", ("no_such_module",))

    task = sample_task(Without(), 0, Split.TEST, 0)
    with pytest.raises(PreconditionFailed, match=r"needs no_such_module: pip install 'innerloop\[games\]'") as caught:
        Without().make(task)
    assert caught.value.reason == "EXTRA_MISSING"
