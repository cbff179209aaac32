"""``navigation-2d``: a point that has to find a goal it cannot see (MAML, Finn et al. 2017, section 5.3)."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

from innerloop.arrays import Array, Arrays, Box
from innerloop_server.domain import Reference, Task
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.family import Family

if TYPE_CHECKING:
    import torch

HORIZON = 100
GOAL_RANGE = 0.5
"""Goals are uniform on the square [-GOAL_RANGE, GOAL_RANGE]^2."""
STEP = 0.1
"""Farthest move along one axis in one step."""
TOLERANCE = 0.01
"""The goal is reached when both coordinates are closer than this."""


class Navigation2DEnv(gymnasium.Env[Array, Array]):
    """A point starts at the origin and moves by ``clip(action, -0.1, 0.1)``; the reward is minus its distance
    from the goal after the move. Nothing here is random.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium declares it so

    def __init__(self, goal: Array) -> None:
        """A task with this goal.

        Args:
            goal: [2] float64.
        """
        reach = HORIZON * STEP
        self.observation_space = gymnasium.spaces.Box(-reach, reach, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-STEP, STEP, (2,), np.float32)
        self.goal = np.asarray(goal, np.float64)
        self.state = np.zeros(2)
        """[2] float64: where the point is."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Put the point back at the origin."""
        super().reset(seed=seed, options=options)
        self.state = np.zeros(2)
        return self.state.astype(np.float32), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Move, then measure."""
        self.state = self.state + np.clip(np.asarray(action, np.float64), -STEP, STEP)
        dx, dy = self.state - self.goal
        reached = bool(abs(dx) < TOLERANCE and abs(dy) < TOLERANCE)
        return self.state.astype(np.float32), -math.sqrt(dx * dx + dy * dy), reached, False, {}


class Navigation2D(Family):
    """MAML's point navigation. Hidden: the goal."""

    name = "navigation-2d"
    title = "Find a hidden goal in the plane"
    description = (
        "A point starts at (0, 0) and moves by at most 0.1 along each axis a step. Hidden: the goal, uniform on "
        "[-0.5, 0.5]^2. Reward: minus the distance from the goal after the move. An episode terminates when both "
        "coordinates are within 0.01 of the goal and is truncated after 100 steps; discount 0.99. As in MAML "
        "(Finn et al. 2017), whose policies see the position alone."
    )
    horizon = HORIZON
    discount = 0.99

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """``goal``: [2]."""
        return gymnasium.spaces.Dict({"goal": gymnasium.spaces.Box(-GOAL_RANGE, GOAL_RANGE, (2,), np.float64)})

    @functools.cached_property
    def observation_space(self) -> Box:
        """The position; it cannot leave the box within the horizon."""
        return Box.of(-HORIZON * STEP, HORIZON * STEP, (2,))

    @functools.cached_property
    def action_space(self) -> Box:
        """The move."""
        return Box.of(-STEP, STEP, (2,))

    @property
    def action_scale(self) -> tuple[float, ...]:
        """One unit of raw action is the farthest move."""
        return (STEP, STEP)

    @functools.cached_property
    def references(self) -> tuple[Reference, ...]:
        """Both are expectations over goals, undiscounted, in closed form."""
        return (
            Reference("no-move", no_move_return(), "closed form: mean distance from the centre of a square"),
            Reference("oracle", oracle_return(), "closed form: along each axis straight to the known goal"),
        )

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """See :class:`Navigation2DEnv`."""
        return TimeLimit(Navigation2DEnv(task.parameters["goal"]), HORIZON)

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        """See :class:`~innerloop_server.tasks.families.navigation_2d_batch.Navigation2DBatch`."""
        from innerloop_server.tasks.families.navigation_2d_batch import Navigation2DBatch

        return Navigation2DBatch(parameters["goal"], device, step=STEP, tolerance=TOLERANCE)


CORNER_DISTANCE = (math.sqrt(2) + math.asinh(1)) / 3
"""Mean distance of a uniform point of the unit square from one of its corners (0.7652)."""


def no_move_return() -> float:
    """Expected return of a policy that never moves: -38.26.

    By symmetry a goal is as far from the origin as a uniform point of a square of side 0.5 from its corner. Goals
    already within the tolerance end the episode after one step.
    """
    distance = GOAL_RANGE * CORNER_DISTANCE
    near = (TOLERANCE / GOAL_RANGE) ** 2 * (TOLERANCE * CORNER_DISTANCE)
    return -(HORIZON * distance - (HORIZON - 1) * near)


def oracle_return() -> float:
    """Expected return of the best policy that knows the goal: -0.51.

    Moving 0.1 along each axis until it is closed makes every distance as small as it can be. After k steps an axis
    has u = 0.5 - 0.1 k of its range left: with probability p = u / 0.5 it is still open and what remains is uniform
    on [0, u]. Both open: p^2 u CORNER_DISTANCE; one open: 2 p (1 - p) u / 2.
    """
    total = 0.0
    for k in range(1, math.ceil(GOAL_RANGE / STEP)):
        u = GOAL_RANGE - STEP * k
        p = u / GOAL_RANGE
        total += p * p * u * CORNER_DISTANCE + p * (1 - p) * u
    return -total
