from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop_server.domain import Simulator, Split
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.families.gridnavi import GOALS, HORIZON, GridNavi
from innerloop_server.tasks.sampling import custom_task, sample_task, stack_parameters

FAMILY = GridNavi()
STAY, UP, RIGHT, DOWN, LEFT = range(5)


@settings(max_examples=25, deadline=None)
@given(
    goals=st.lists(st.integers(0, 20), min_size=2, max_size=4),
    moves=st.lists(st.integers(0, 4), min_size=HORIZON * 4, max_size=HORIZON * 4),
)
def test_both_faces_are_the_same_environment(goals: list[int], moves: list[int]) -> None:
    """Whole episodes, every task with two rows of different moves."""
    tasks = [custom_task(FAMILY, {"goal": np.array(goal)}) for goal in goals]
    batch = FAMILY.batch(stack_parameters(tasks), torch.device("cpu"))
    assert (batch.reset_uniforms, batch.step_uniforms, batch.knows_success) == (0, 0, True)
    envs = {(i, j): FAMILY.make(task) for i, task in enumerate(tasks) for j in range(2)}
    seen = {row: env.reset(seed=0)[0] for row, env in envs.items()}
    state, observed = batch.reset(torch.zeros(len(goals), 2, 0, dtype=torch.float64))
    for t in range(1, HORIZON + 1):
        for row in envs:
            assert np.array_equal(observed[row].numpy(), seen[row])
        action = np.array([[moves[(4 * t + 7 * i + j) % len(moves)] for j in range(2)] for i in range(len(goals))])
        before = state.clone()
        after, observed, reward, ended = batch.step(state, torch.tensor(action))
        assert torch.equal(state, before)
        state = after
        for row, env in envs.items():
            seen[row], paid, terminated, truncated, info = env.step(action[row])
            assert reward[row].item() == np.float32(paid)
            assert bool(ended[row]) is terminated is False
            assert truncated == (t == HORIZON)
            assert bool(batch.success(state)[row]) == info["success"]


def test_an_episode_by_hand() -> None:
    env = FAMILY.make(custom_task(FAMILY, {"goal": np.array(GOALS.index((2, 0)))}))
    seen, _ = env.reset(seed=0)
    assert seen.tolist() == [0, 0]
    for action, cell, reward in [
        (LEFT, [0, 0], -0.1),  # the walls hold
        (DOWN, [0, 0], -0.1),
        (RIGHT, [1, 0], -0.1),
        (RIGHT, [2, 0], 1.0),
        (STAY, [2, 0], 1.0),
        (UP, [2, 1], -0.1),
        (DOWN, [2, 0], 1.0),
        (LEFT, [1, 0], -0.1),
    ]:
        seen, paid, terminated, truncated, info = env.step(action)
        assert (seen.tolist(), paid, terminated, truncated) == (cell, reward, False, False)
        assert info["success"] is (reward == 1.0)


@pytest.mark.parametrize(("moves", "corner"), [((UP, RIGHT), [4, 4]), ((RIGHT, DOWN), [4, 0])])
def test_the_far_walls_hold(moves: tuple[int, int], corner: list[int]) -> None:
    env = FAMILY.make(custom_task(FAMILY, {"goal": np.array(0)}))
    env.reset(seed=0)
    for step in range(14):
        seen, *_ = env.step(moves[step % 2])
    assert seen.tolist() == corner


def test_there_are_21_goals_and_the_splits_share_them() -> None:
    assert len(set(GOALS)) == 21
    assert {(0, 0), (0, 1), (1, 0), (1, 1)}.isdisjoint(GOALS)
    assert FAMILY.splits_share_tasks
    for split in Split:
        drawn = {int(sample_task(FAMILY, 0, split, i).parameters["goal"]) for i in range(300)}
        assert drawn == set(range(21))
    with pytest.raises(InvalidField, match="lies outside"):
        custom_task(FAMILY, {"goal": np.array(21)})


def test_describes_itself() -> None:
    assert (FAMILY.horizon, FAMILY.episodes_per_trial, FAMILY.discount) == (15, 4, 0.95)
    assert FAMILY.simulators == (Simulator.BATCH, Simulator.ACTORS)
    for word in ("Hidden", "goal", "15", "4 episodes", "(0, 2), (0, 3), (0, 4), (1, 2), ..., (4, 4)"):
        assert word in FAMILY.description
    assert GOALS[:4] == ((0, 2), (0, 3), (0, 4), (1, 2))
    assert GOALS[-1] == (4, 4)


def test_the_network_sees_the_grid_between_minus_one_and_one() -> None:
    shift, scale = np.array(FAMILY.observation_shift), np.array(FAMILY.observation_scale)
    assert ((FAMILY.observation_space.low - shift) / scale).tolist() == [-1, -1]
    assert ((FAMILY.observation_space.high - shift) / scale).tolist() == [1, 1]


def test_gymnasiums_checker_is_content() -> None:
    check_env(FAMILY.make(sample_task(FAMILY, 0, Split.TRAIN, 0)).unwrapped, skip_render_check=True)
