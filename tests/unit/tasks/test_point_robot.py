from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.utils import seeding
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop_server.domain import Split, Task
from innerloop_server.tasks.families.point_robot import HORIZON, PointRobotDense, PointRobotSparse
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.sampling import custom_task, sample_task, stack_parameters

DENSE, SPARSE = PointRobotDense(), PointRobotSparse()
CPU = torch.device("cpu")


def dense_task(x: float, y: float) -> Task:
    return custom_task(DENSE, {"goal": np.array([x, y])})


def sparse_task(angle: float) -> Task:
    return custom_task(SPARSE, {"angle": np.array(angle)})


@pytest.mark.parametrize("family", [DENSE, SPARSE], ids=lambda family: family.name)
@settings(max_examples=25, deadline=None)
@given(index=st.integers(0, 1_000), seed=st.integers(0, 2**32), pull=st.sampled_from([0.0, 1.0]))
def test_both_faces_are_the_same_to_the_bit(family: Family, index: int, seed: int, pull: float) -> None:
    """Whole episodes of noise that reaches past the clip, and of noise around the way to the goal."""
    task = sample_task(family, 0, Split.TRAIN, index)
    env = family.make(task)
    goal = env.unwrapped.goal  # type: ignore[attr-defined]
    batch = family.batch(stack_parameters([task]), CPU)
    rng = np.random.default_rng(seed)
    seen, _ = env.reset(seed=seed)
    state, observed = batch.reset(torch.tensor(seeding.np_random(seed)[0].random((1, 1, batch.reset_uniforms))))
    for t in range(1, HORIZON + 1):
        np.testing.assert_array_equal(state[0, 0].numpy(), env.unwrapped.state)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(observed[0, 0].numpy(), seen)
        action = (pull * (goal - seen) + (0.02 if pull else 0.2) * rng.standard_normal(2)).astype(np.float32)
        seen, reward, terminated, truncated, info = env.step(action)
        state, observed, rewards, ended = batch.step(state, torch.tensor(action)[None, None])
        assert rewards.item() == np.float32(reward)
        assert batch.success(state).item() == info["success"]
        assert (terminated, ended.item(), truncated) == (False, False, t == HORIZON)


def test_a_dense_step_by_hand() -> None:
    env = DENSE.make(dense_task(0.3, -0.4))
    env.reset(seed=0)
    env.unwrapped.state = np.zeros(2)  # type: ignore[attr-defined]
    seen, reward, _, _, info = env.step(np.array([5.0, -0.05], np.float32))  # clipped to 0.1 on the first axis
    np.testing.assert_allclose(seen, [0.1, -0.05], atol=1e-7)
    assert reward == pytest.approx(-math.hypot(0.2, 0.35), abs=1e-7)
    assert not info["success"]


@pytest.mark.parametrize(
    ("away", "paid"), [(0.0, 1.0), (0.1, 0.9), (0.1999, 0.8001), (0.2001, 0.0), (-0.15, 0.85), (0.9, 0.0)]
)
def test_the_sparse_robot_is_paid_near_the_goal_alone(away: float, paid: float) -> None:
    env = SPARSE.make(sparse_task(math.pi / 2))
    env.reset(seed=0)
    env.unwrapped.state = np.array([0.0, 1.0 + away])  # type: ignore[attr-defined]
    _, reward, _, _, info = env.step(np.zeros(2, np.float32))
    assert reward == pytest.approx(paid, abs=1e-12)
    assert info["success"] == (paid > 0)


@pytest.mark.parametrize("away", [0.15, 0.25])
def test_the_dense_robot_succeeds_within_the_same_radius(away: float) -> None:
    env = DENSE.make(dense_task(0.5, 0.5))
    env.reset(seed=0)
    env.unwrapped.state = np.array([0.5, 0.5 - away])  # type: ignore[attr-defined]
    assert env.step(np.zeros(2, np.float32))[4]["success"] == (away <= 0.2)


def test_sparse_goals_lie_on_the_upper_half_circle() -> None:
    angles = np.linspace(0, math.pi, 9)
    goals = SPARSE.goals({"angle": angles})
    np.testing.assert_allclose(np.hypot(*goals.T), 1.0)
    np.testing.assert_allclose(goals[[0, 4, 8]], [[1, 0], [0, 1], [-1, 0]], atol=1e-12)
    assert np.all(goals[:, 1] >= 0)


def test_starts() -> None:
    """The dense robot starts anywhere in its square, the sparse one always in the middle."""
    env = DENSE.make(dense_task(0.0, 0.0))
    starts = np.array([env.reset(seed=seed)[0] for seed in range(500)])
    assert np.all(np.abs(starts) <= 1)
    np.testing.assert_allclose(starts.mean(0), 0, atol=5 * 0.577 / math.sqrt(500))
    np.testing.assert_allclose(starts.std(0), 0.577, atol=0.06)
    np.testing.assert_array_equal(SPARSE.make(sparse_task(1.0)).reset(seed=1)[0], [0, 0])


def test_positions_stay_in_the_observation_space() -> None:
    for family, task in ((DENSE, dense_task(1.0, 1.0)), (SPARSE, sparse_task(0.0))):
        env = family.make(task)
        env.reset(seed=0)
        env.unwrapped.state = np.ones(2) if family is DENSE else np.zeros(2)  # type: ignore[attr-defined]
        for _ in range(HORIZON):
            seen, *_ = env.step(np.array([0.1, 0.1], np.float32))
        assert env.observation_space.contains(seen)
