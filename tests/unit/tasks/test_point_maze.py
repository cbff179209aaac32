from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop_server.domain import Split
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.families.point_maze import HORIZON, PointMaze, in_wall
from innerloop_server.tasks.families.point_maze_walls import HALF_HEIGHT, HALF_WIDTH, START, STEP, moved
from innerloop_server.tasks.sampling import custom_task, sample_task, stack_parameters

FAMILY = PointMaze()
CPU = torch.device("cpu")


def goals(n: int, split: Split = Split.TRAIN) -> np.ndarray:
    return stack_parameters([sample_task(FAMILY, 0, split, i) for i in range(n)])["goal"]


@settings(max_examples=25, deadline=None)
@given(index=st.integers(0, 1_000), seed=st.integers(0, 2**32), drift=st.tuples(*[st.sampled_from([-0.1, 0, 0.1])] * 2))
def test_both_faces_are_the_same_to_the_bit(index: int, seed: int, drift: tuple[float, float]) -> None:
    """Noise around a drift that changes its direction now and then, so that walls and corners are run into."""
    task = sample_task(FAMILY, 0, Split.TRAIN, index)
    env, batch = FAMILY.make(task), FAMILY.batch(stack_parameters([task]), CPU)
    rng = np.random.default_rng(seed)
    seen, _ = env.reset(seed=0)
    state, observed = batch.reset(torch.zeros(1, 1, 0, dtype=torch.float64))
    way = np.array(drift)
    for t in range(1, HORIZON + 1):
        np.testing.assert_array_equal(state[0, 0].numpy(), env.unwrapped.state)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(observed[0, 0].numpy(), seen)
        assert env.observation_space.contains(seen)
        assert not in_wall(state.numpy()).any()
        if t % 25 == 0:
            way = rng.choice([-0.1, 0, 0.1], 2)
        action = (way + 0.05 * rng.standard_normal(2)).astype(np.float32)
        seen, reward, terminated, truncated, info = env.step(action)
        state, observed, rewards, ended = batch.step(state, torch.tensor(action)[None, None])
        assert rewards.item() == reward == terminated == ended.item() == info["success"] == batch.success(state).item()
        assert truncated == (t == HORIZON)
        if terminated or truncated:
            break


FREE = st.tuples(st.floats(-HALF_WIDTH, HALF_WIDTH), st.floats(-HALF_HEIGHT, HALF_HEIGHT)).filter(
    lambda point: not in_wall(np.array(point))
)
MOVE = st.tuples(st.floats(-STEP, STEP), st.floats(-STEP, STEP))


@settings(max_examples=500, deadline=None)
@given(start=FREE, move=MOVE)
def test_a_move_ends_free_and_no_farther_than_it_is_long(start: tuple[float, float], move: tuple[float, float]) -> None:
    x, y = moved(*start, *move)
    assert not in_wall(np.array([x, y]))
    assert abs(x) <= HALF_WIDTH
    assert abs(y) <= HALF_HEIGHT
    for now, before, by in zip((x, y), start, move, strict=True):
        assert min(before, before + by) <= now <= max(before, before + by)  # stopped, never pushed


@settings(max_examples=500, deadline=None)
@given(start=FREE.filter(lambda start: start[0] < 0.4), moves=st.lists(MOVE, max_size=5))
def test_nobody_passes_through_the_wall(start: tuple[float, float], moves: list[tuple[float, float]]) -> None:
    """Five moves cannot lead around the tip from further back than their length."""
    x, y = start
    for move in moves:
        x, y = moved(x, y, *move)
    assert (y >= 0.5) == (start[1] >= 0.5)


@pytest.mark.parametrize(
    ("start", "move", "rest"),
    [
        ((0.0, -0.55), (0.0, 0.1), (0.0, -0.5)),  # from below, stopped at the wall's face
        ((0.0, -0.5), (0.1, 0.1), (0.1, -0.5)),  # sliding along it
        ((0.0, 0.55), (-0.1, -0.1), (-0.1, 0.5)),  # from above
        ((1.05, 0.0), (-0.1, 0.05), (1.0, 0.05)),  # at the tip
        ((0.95, -0.5), (0.1, 0.1), (1.05, -0.4)),  # around the corner: along x first, and y is free
        ((1.05, 0.45), (-0.1, 0.1), (1.0, 0.55)),  # back around it takes two moves: x was stopped
        ((1.0, 0.55), (-0.1, 0.0), (0.9, 0.55)),
        ((-1.95, 1.45), (-0.1, 0.1), (-2.0, 1.5)),  # the arena's corner
    ],
)
def test_collisions_by_hand(start: tuple[float, float], move: tuple[float, float], rest: tuple[float, float]) -> None:
    assert moved(*start, *move) == pytest.approx(rest, abs=1e-12)


def test_arriving_pays_once_and_ends_the_episode() -> None:
    env = FAMILY.make(custom_task(FAMILY, {"goal": np.array([START[0] + 0.35, START[1]])}))
    env.reset(seed=0)
    right = np.array([9.0, 0.0], np.float32)  # clipped to 0.1
    assert env.step(right)[1:] == (0.0, False, False, {"success": False})
    assert env.step(right)[1:] == (1.0, True, False, {"success": True})


def test_goals_are_uniform_over_the_free_area() -> None:
    drawn = goals(1_800)
    assert not in_wall(drawn).any()
    # The nine unit squares of the corridor, 200 goals each on average.
    columns, rows = np.floor(drawn[:, 0] + 2).astype(int), np.floor(drawn[:, 1] + 1.5).astype(int)
    counts = np.zeros((3, 4))
    np.add.at(counts, (rows, columns), 1)
    assert counts[1, :3].sum() == 0
    assert np.all(np.abs(np.delete(counts.ravel(), [4, 5, 6]) - 200) < 5 * np.sqrt(200))


def test_a_goal_in_the_wall_is_refused() -> None:
    with pytest.raises(InvalidField, match="in the wall") as caught:
        custom_task(FAMILY, {"goal": np.array([0.0, 0.1])}, "open.task.parameters")
    assert caught.value.field == "open.task.parameters.goal"
    for touching in ([0.0, 0.5], [1.0, 0.0], [-2.0, -0.5]):
        custom_task(FAMILY, {"goal": np.array(touching)})


@pytest.mark.parametrize("policy", ["uniform", "gaussian"])
def test_a_random_policy_reaches_few_goals(policy: str) -> None:
    n = 1_000
    drawn = goals(n)
    batch = FAMILY.batch({"goal": drawn}, CPU)
    rng = np.random.default_rng(0)
    state, _ = batch.reset(torch.zeros(n, 1, 0, dtype=torch.float64))
    reached = torch.zeros(n, 1, dtype=torch.bool)
    for _ in range(HORIZON):
        noise = rng.uniform(-1, 1, (n, 1, 2)) if policy == "uniform" else rng.standard_normal((n, 1, 2))
        state, _, _, ended = batch.step(state, torch.tensor(STEP * noise, dtype=torch.float32))
        reached |= ended
    assert 0.03 < reached.double().mean() < 0.15
    far = torch.tensor(drawn[:, 1] > 0.5)  # the upper arm: four of the nine squares
    assert not reached[far].any()
