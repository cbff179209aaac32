from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop_server.domain import Split
from innerloop_server.tasks.families.navigation_2d import HORIZON, Navigation2D, no_move_return, oracle_return
from innerloop_server.tasks.sampling import custom_task, sample_task, stack_parameters

FAMILY = Navigation2D()
CPU = torch.device("cpu")
COORDINATE = st.floats(-0.5, 0.5)


@settings(max_examples=25, deadline=None)
@given(goal=st.tuples(COORDINATE, COORDINATE), seed=st.integers(0, 2**32), pull=st.sampled_from([0.0, 1.0]))
def test_both_faces_are_the_same_environment(goal: tuple[float, float], seed: int, pull: float) -> None:
    """Whole episodes of noise (reaching past the clip), and of noise around the way to the goal."""
    task = custom_task(FAMILY, {"goal": np.array(goal)})
    env = FAMILY.make(task)
    batch = FAMILY.batch(stack_parameters([task]), CPU)
    rng = np.random.default_rng(seed)
    seen, _ = env.reset(seed=0)
    state, observed = batch.reset(torch.zeros(1, 1, 0, dtype=torch.float64))
    assert np.array_equal(observed[0, 0].numpy(), seen)
    for t in range(1, HORIZON + 1):
        action = (pull * (np.array(goal) - seen) + (0.01 if pull else 0.2) * rng.standard_normal(2)).astype(np.float32)
        seen, reward, terminated, truncated, _ = env.step(action)
        state, observed, rewards, ended = batch.step(state, torch.tensor(action)[None, None])
        np.testing.assert_array_equal(state[0, 0].numpy(), env.unwrapped.state)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(observed[0, 0].numpy(), seen)
        assert rewards[0, 0].item() == np.float32(reward)
        assert bool(ended[0, 0]) == terminated
        assert truncated == (t == HORIZON)
        if terminated or truncated:
            break


def test_a_step_by_hand() -> None:
    env = FAMILY.make(custom_task(FAMILY, {"goal": np.array([0.3, -0.4])}))
    env.reset(seed=0)
    seen, reward, terminated, _, _ = env.step(np.array([5.0, -0.05], np.float32))  # clipped to 0.1 on the first axis
    np.testing.assert_allclose(seen, [0.1, -0.05], atol=1e-7)
    assert reward == pytest.approx(-math.hypot(0.2, 0.35), abs=1e-7)
    assert not terminated


@pytest.mark.parametrize(("dx", "dy", "reached"), [(0.0099, 0.0099, True), (0.0101, 0.0, False), (0.0, -0.0101, False)])
def test_the_goal_is_a_square_of_tolerance(dx: float, dy: float, reached: bool) -> None:
    env = FAMILY.make(custom_task(FAMILY, {"goal": np.array([dx, dy])}))
    env.reset(seed=0)
    assert env.step(np.zeros(2, np.float32))[2] is reached


def returns(batch_size: int, policy: str) -> np.ndarray:
    """Undiscounted returns of ``batch_size`` test tasks on the batch face."""
    tasks = [sample_task(FAMILY, 11, Split.TEST, i) for i in range(batch_size)]
    parameters = stack_parameters(tasks)
    goal = torch.tensor(parameters["goal"])[:, None]
    batch = FAMILY.batch(parameters, CPU)
    state, _ = batch.reset(torch.zeros(batch_size, 1, 0, dtype=torch.float64))
    total = torch.zeros(batch_size, 1, dtype=torch.float64)
    alive = torch.ones(batch_size, 1, dtype=torch.bool)
    for _ in range(HORIZON):
        action = torch.zeros(batch_size, 1, 2) if policy == "no-move" else (goal - state).float()
        state, _, reward, ended = batch.step(state, action)
        total += alive * reward
        alive = alive & ~ended
    return total[:, 0].numpy()


@pytest.mark.parametrize(("policy", "published"), [("no-move", -38.26), ("oracle", -0.51)])
def test_the_references_are_what_the_environment_pays(policy: str, published: float) -> None:
    reference = {r.name: r.value for r in FAMILY.references}[policy]
    assert round(reference, 2) == published
    sampled = returns(4_000, policy)
    assert sampled.mean() == pytest.approx(reference, abs=4 * sampled.std() / math.sqrt(len(sampled)))


def test_the_closed_forms_agree_with_quadrature() -> None:
    """A midpoint grid over the quarter of goals, without the environment."""
    n = 1_000
    axis = (np.arange(n) + 0.5) / n * 0.5
    x, y = np.meshgrid(axis, axis)
    distance = np.hypot(x, y)
    steps = np.where((x < 0.01) & (y < 0.01), 1, HORIZON)
    assert no_move_return() == pytest.approx(-(steps * distance).mean(), abs=1e-4)
    left = sum(np.hypot(np.maximum(x - 0.1 * k, 0), np.maximum(y - 0.1 * k, 0)).mean() for k in range(1, HORIZON + 1))
    assert oracle_return() == pytest.approx(-left, abs=1e-4)
