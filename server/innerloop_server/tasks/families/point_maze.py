"""``point-maze``: a point in a U-shaped corridor looks for a goal that pays on arrival (Florensa et al. 2018)."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

from innerloop.arrays import Array, Arrays, Box
from innerloop_server.domain import Split, Task
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.families.point_maze_walls import (
    GOAL_RADIUS,
    HALF_HEIGHT,
    HALF_WIDTH,
    START,
    STEP,
    WALL_HALF,
    WALL_TIP,
    moved,
)
from innerloop_server.tasks.family import Family

if TYPE_CHECKING:
    import torch

HORIZON = 100


class PointMazeEnv(gymnasium.Env[Array, Array]):
    """A point moves by ``clip(action, -0.1, 0.1)``, along x and then along y; a wall stops the move along an axis at
    its face. Reaching the goal pays 1 and ends the episode; all else pays 0. Nothing here is random.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium declares it so

    def __init__(self, goal: Array) -> None:
        """A task with this goal.

        Args:
            goal: [2] float64, outside the wall.
        """
        size = np.array([HALF_WIDTH, HALF_HEIGHT], np.float32)
        self.observation_space = gymnasium.spaces.Box(-size, size, dtype=np.float32)
        self.action_space = gymnasium.spaces.Box(-STEP, STEP, (2,), np.float32)
        self.goal = np.asarray(goal, np.float64)
        self.state = np.array(START)
        """[2] float64: where the point is."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Put the point back at the start."""
        super().reset(seed=seed, options=options)
        self.state = np.array(START)
        return self.state.astype(np.float32), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Move, then look."""
        move = np.clip(np.asarray(action, np.float64), -STEP, STEP)
        self.state = np.array(moved(float(self.state[0]), float(self.state[1]), float(move[0]), float(move[1])))
        dx, dy = self.state - self.goal
        reached = bool(math.sqrt(dx * dx + dy * dy) <= GOAL_RADIUS)
        return self.state.astype(np.float32), float(reached), reached, False, {"success": reached}


def in_wall(points: Array) -> Array:
    """Which of ``points`` [..., 2] lie inside the wall: [...] bool."""
    inside: Array = (points[..., 0] < WALL_TIP) & (np.abs(points[..., 1]) < WALL_HALF)
    return inside


class PointMaze(Family):
    """A U-shaped maze whose goals, most of them, no random walk finds. Hidden: the goal."""

    name = "point-maze"
    title = "Find a hidden goal in a U-shaped maze"
    description = (
        "A point starts near the end of the lower arm of a U-shaped corridor (arena [-2, 2] x [-1.5, 1.5], wall "
        "[-2, 1] x [-0.5, 0.5]) and moves by at most 0.1 along each axis a step; walls stop it. Hidden: the goal, "
        "uniform over the free area. Reward: 1 on coming within 0.2 of the goal, which is success and terminates the "
        "episode, so that a return is a success and its mean a coverage; else 0. Truncated after 100 steps; discount "
        "0.99. The way to the farthest goal takes 65 steps, and a random policy reaches few goals. After the "
        "point-mass mazes of Florensa et al. 2018 (Automatic Goal Generation), which have momentum and other shapes."
    )
    horizon = HORIZON
    knows_success = True

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """``goal``: [2]. The box has the wall in it, where no goal may lie (:meth:`check`)."""
        size = np.array([HALF_WIDTH, HALF_HEIGHT])
        return gymnasium.spaces.Dict({"goal": gymnasium.spaces.Box(-size, size, dtype=np.float64)})

    @functools.cached_property
    def observation_space(self) -> Box:
        """The position."""
        size = np.array([HALF_WIDTH, HALF_HEIGHT], np.float32)
        return Box(-size, size)

    @functools.cached_property
    def action_space(self) -> Box:
        """The move."""
        return Box.of(-STEP, STEP, (2,))

    @property
    def observation_scale(self) -> tuple[float, ...]:
        """All within [-1, 1]."""
        return (HALF_WIDTH, HALF_HEIGHT)

    @property
    def action_scale(self) -> tuple[float, ...]:
        """One unit of raw action is the farthest move."""
        return (STEP, STEP)

    def sample(self, rng: np.random.Generator, split: Split = Split.TRAIN) -> dict[str, Array]:
        """Uniform over the free area: draws inside the wall are thrown away."""
        while True:
            drawn = super().sample(rng, split)
            if not in_wall(drawn["goal"]):
                return drawn

    def check(self, parameters: Mapping[str, Array], field: str = "task.parameters") -> dict[str, Array]:
        """As every family, and the goal must not lie in the wall.

        Raises:
            InvalidField: it does (``<field>.goal``), or whatever else is wrong.
        """
        checked = super().check(parameters, field)
        if in_wall(checked["goal"]):
            raise InvalidField(
                f"{field}.goal",
                f"{checked['goal'].tolist()} lies in the wall, x < {WALL_TIP} and |y| < {WALL_HALF}; give a free point",
            )
        return checked

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """See :class:`PointMazeEnv`."""
        return TimeLimit(PointMazeEnv(task.parameters["goal"]), HORIZON)

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        """See :class:`~innerloop_server.tasks.families.point_maze_batch.PointMazeBatch`."""
        from innerloop_server.tasks.families.point_maze_batch import PointMazeBatch

        return PointMazeBatch(parameters["goal"], device)
