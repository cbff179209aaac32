"""Exact numbers against what the environments pay, and against sums that know no environment."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from innerloop_server.domain import Split
from innerloop_server.evaluation.references import navigation
from innerloop_server.evaluation.references.catalog import references
from innerloop_server.tasks.families.point_maze import PointMaze, in_wall
from innerloop_server.tasks.families.point_maze_walls import GOAL_RADIUS, START, STEP, WALL_HALF, WALL_TIP
from innerloop_server.tasks.families.point_robot import PointRobotDense, PointRobotSparse
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.sampling import sample_task, stack_parameters

Policy = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(position, goal), each [B, N, 2] -> action [B, N, 2]."""


def stand(position: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(position)


def to_centre(position: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    return -position


def to_goal(position: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    return goal - position


def round_the_wall(position: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """To the goal where the way is free, else around the wall's tip as far as the goal's side of it."""
    (x, y), (gx, gy) = position.unbind(-1), goal.unbind(-1)
    side, of_goal = ((v >= WALL_HALF).long() - (v <= -WALL_HALF).long() for v in (y, gy))
    free = (side == of_goal) | ((x >= WALL_TIP) & (gx >= WALL_TIP))
    turn = torch.stack((torch.full_like(x, WALL_TIP), WALL_HALF * of_goal.double()), -1)
    return torch.where(free[..., None], goal, turn) - position


def returns(family: Family, policy: Policy, tasks: int, episodes: int) -> np.ndarray:
    """[tasks] mean undiscounted returns of test tasks on the batch face."""
    parameters = stack_parameters([sample_task(family, 11, Split.TEST, i) for i in range(tasks)])
    goals = family.goals(parameters) if hasattr(family, "goals") else parameters["goal"]
    goal = torch.tensor(goals)[:, None].expand(-1, episodes, -1)
    batch = family.batch(parameters, torch.device("cpu"))
    state, _ = batch.reset(torch.tensor(np.random.default_rng(0).random((tasks, episodes, batch.reset_uniforms))))
    total = torch.zeros(tasks, episodes, dtype=torch.float64)
    alive = torch.ones(tasks, episodes, dtype=torch.bool)
    for _ in range(family.horizon):
        state, _, reward, ended = batch.step(state, policy(state, goal).float())
        total += alive * reward
        alive &= ~ended
    return total.mean(1).numpy()


@pytest.mark.parametrize(
    ("family", "name", "policy", "rounded"),
    [
        (PointRobotDense(), "no-move", stand, -20.86),
        (PointRobotDense(), "memoryless", to_centre, -15.88),
        (PointRobotDense(), "oracle", to_goal, -5.19),
        (PointRobotSparse(), "no-move", stand, 0.0),
        (PointRobotSparse(), "oracle", to_goal, 13.38),
        (PointMaze(), "no-move", stand, 0.01),
        (PointMaze(), "oracle", round_the_wall, 1.0),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "name", ""),
)
def test_the_references_are_what_the_environment_pays(
    family: Family, name: str, policy: Policy, rounded: float
) -> None:
    reference = {r.name: r.value for r in references(family)}[name]
    assert round(reference, 2) == rounded
    sampled = returns(family, policy, 2_000, 3)
    error = sampled.std() / math.sqrt(len(sampled))
    assert sampled.mean() == pytest.approx(reference, abs=4 * error + 1e-6)


def grid(n: int) -> np.ndarray:
    """Midpoints of n equal parts of [-1, 1]."""
    return (np.arange(n) + 0.5) / n * 2 - 1


def test_the_dense_numbers_are_means_over_a_grid_of_starts_and_goals() -> None:
    start, goal = np.meshgrid(grid(300), grid(300), indexing="ij")  # the axes are alike and independent

    def mean_distance(difference: np.ndarray) -> float:
        """Of a point whose two coordinates are independent draws of ``difference``, by its quantiles."""
        quantiles = np.quantile(np.abs(difference), (np.arange(800) + 0.5) / 800)
        return float(np.hypot(quantiles[:, None], quantiles).mean())

    stand, centre, straight = 0.0, 0.0, 0.0
    for k in range(1, 21):
        stand -= mean_distance(start - goal)
        centre -= mean_distance(np.sign(start) * np.maximum(np.abs(start) - 0.1 * k, 0) - goal)
        straight -= mean_distance(np.maximum(np.abs(start - goal) - 0.1 * k, 0))
    assert navigation.dense_no_move() == pytest.approx(stand, abs=0.01)
    assert navigation.dense_memoryless() == pytest.approx(centre, abs=0.01)
    assert navigation.dense_oracle() == pytest.approx(straight, abs=0.01)


def test_the_sparse_oracle_walked_by_hand() -> None:
    """13.38 in PEARL's 20 steps, 93.38 in 100: once there, every further step pays 1."""
    angles = np.linspace(0, math.pi / 2, 5_001)
    paid = np.zeros_like(angles)
    for i, angle in enumerate(angles):
        left = np.array([math.cos(angle), math.sin(angle)])
        for _ in range(20):
            left = np.maximum(left - 0.1, 0)
            distance = math.hypot(*left)
            paid[i] += 1 - distance if distance <= GOAL_RADIUS else 0
    assert navigation.sparse_oracle() == pytest.approx(np.trapezoid(paid, angles) / (math.pi / 2), abs=2e-3)
    assert navigation.sparse_oracle(100) == pytest.approx(navigation.sparse_oracle() + 80, abs=1e-9)


def test_nobody_starts_within_reach_of_a_wall_or_of_a_sparse_goal() -> None:
    """What the two no-move numbers rest on."""
    angle = np.linspace(0, 2 * math.pi, 100)
    around = np.array(START) + 2 * GOAL_RADIUS * np.stack((np.cos(angle), np.sin(angle)), -1)
    assert not in_wall(around).any()
    assert np.all(np.abs(around) < (2.0, 1.5))
    assert GOAL_RADIUS + STEP < 1


def test_the_farthest_goal_of_the_maze_is_65_steps_away() -> None:
    """In the far corner: 2.5 along, 1 up and 3 back at 0.1 a step, the rest of y on the way; and 0.2 is near enough."""
    family = PointMaze()
    batch = family.batch({"goal": np.array([[-2.0, 1.5]])}, torch.device("cpu"))
    state, _ = batch.reset(torch.zeros(1, 1, 0))
    goal = torch.tensor([[[-2.0, 1.5]]], dtype=torch.float64)
    paid = []
    for _ in range(65):
        state, _, reward, _ = batch.step(state, round_the_wall(state, goal).float())
        paid.append(reward.item())
    assert sum(paid[:60]) == 0
    assert paid[-1] == 1
