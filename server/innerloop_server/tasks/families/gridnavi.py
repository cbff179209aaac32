"""``gridnavi``: find a hidden cell of a 5 x 5 grid, then go there again and again (VariBAD, Zintgraf et al. 2020)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

from innerloop.arrays import Array, Arrays, Box, Discrete
from innerloop_server.domain import Task
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.family import Family

if TYPE_CHECKING:
    import torch

HORIZON = 15
EPISODES = 4
SIZE = 5
"""Cells along a side; the start is (0, 0)."""
ON_GOAL = 1.0
ELSEWHERE = -0.1
MOVES = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))
"""What an action adds to (x, y): stay, up, right, down, left. A move off the grid stays."""
GOALS = tuple((x, y) for x in range(SIZE) for y in range(SIZE) if x > 1 or y > 1)
"""The 21 cells that can be the goal: all but the four around the start."""


class GridNaviEnv(gymnasium.Env[Array, np.int64]):
    """A walker on the grid. Nothing here is random."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium declares it so

    def __init__(self, goal: tuple[int, int]) -> None:
        """A task with this goal.

        Args:
            goal: (x, y), a cell.
        """
        self.observation_space = gymnasium.spaces.Box(0, SIZE - 1, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(MOVES))
        self.goal = goal
        self.cell = (0, 0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Go back to (0, 0)."""
        super().reset(seed=seed, options=options)
        self.cell = (0, 0)
        return np.array(self.cell, np.float32), {}

    def step(self, action: np.int64) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Move, then be paid for the new cell."""
        (x, y), (dx, dy) = self.cell, MOVES[action]
        self.cell = (min(max(x + dx, 0), SIZE - 1), min(max(y + dy, 0), SIZE - 1))
        success = self.cell == self.goal
        reward = ON_GOAL if success else ELSEWHERE
        return np.array(self.cell, np.float32), reward, False, False, {"success": success}


class GridNavi(Family):
    """VariBAD's grid world. Hidden: which cell pays."""

    name = "gridnavi"
    title = "Find a hidden cell of a grid, then go straight to it"
    description = (
        "A 5 x 5 grid, start (0, 0), five actions: stay, up, right, down, left. Hidden: the goal, one of the 21 cells "
        "outside the 2 x 2 corner of the start, given as its number in the order (0, 2), (0, 3), (0, 4), (1, 2), ..., "
        "(4, 4). Reward: +1 for every step that ends on the goal, -0.1 for every other. An episode never terminates "
        "and is truncated after 15 steps; a trial is 4 episodes with the same goal. The policy sees its cell (x, y). "
        "Success: on the goal. As in VariBAD (Zintgraf et al. 2020), discount 0.95. There are so few tasks that the "
        "splits share them."
    )
    horizon = HORIZON
    knows_success = True
    episodes_per_trial = EPISODES
    discount = 0.95
    splits_share_tasks = True

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """``goal``: a number into :data:`GOALS`."""
        return gymnasium.spaces.Dict({"goal": gymnasium.spaces.Discrete(len(GOALS))})

    @functools.cached_property
    def observation_space(self) -> Box:
        """The cell, (x, y)."""
        return Box.of(0, SIZE - 1, (2,))

    @functools.cached_property
    def action_space(self) -> Discrete:
        """See :data:`MOVES`."""
        return Discrete(len(MOVES))

    @property
    def observation_shift(self) -> tuple[float, ...]:
        """The middle of the grid."""
        return ((SIZE - 1) / 2,) * 2

    @property
    def observation_scale(self) -> tuple[float, ...]:
        """Half its width."""
        return ((SIZE - 1) / 2,) * 2

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """See :class:`GridNaviEnv`."""
        return TimeLimit(GridNaviEnv(GOALS[int(task.parameters["goal"])]), HORIZON)

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        """See :class:`~innerloop_server.tasks.families.gridnavi_batch.GridNaviBatch`."""
        from innerloop_server.tasks.families.gridnavi_batch import GridNaviBatch

        cells = np.array(GOALS)[parameters["goal"]]
        return GridNaviBatch(cells, device, size=SIZE, moves=MOVES, on_goal=ON_GOAL, elsewhere=ELSEWHERE)
