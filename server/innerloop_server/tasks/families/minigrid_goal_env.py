"""The environment of ``minigrid-goal``: MiniGrid's own, with a room, a reward and an observation."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from minigrid.core.constants import DIR_TO_VEC
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Goal
from minigrid.minigrid_env import MiniGridEnv

from innerloop.arrays import Array, Arrays
from innerloop_server.tasks.families.minigrid_goal_rules import (
    ACTIONS,
    COLORS,
    DIRECTIONS,
    VIEW,
    horizon_of,
    reward_at,
    touching,
)


def _offsets(direction: int) -> Array:
    """[2, VIEW, VIEW]: from the agent to each cell of its view, along x and y; rows from far to near, columns from left
    to right.
    """
    forward, right = DIR_TO_VEC[direction], DIR_TO_VEC[(direction + 1) % DIRECTIONS]
    far, aside = VIEW - 1 - np.arange(VIEW), np.arange(VIEW) - VIEW // 2
    offsets: Array = forward[:, None, None] * far[:, None] + right[:, None, None] * aside
    return offsets


_OFFSETS = [_offsets(direction) for direction in range(DIRECTIONS)]
_ONE_HOT = np.eye(DIRECTIONS, dtype=np.float32)


class MiniGridGoalEnv(MiniGridEnv):
    """A room with a goal of each colour, of which one pays. Steps, turns, walls and the view are MiniGrid's code."""

    def __init__(self, size: int, goals: int, paying: int, render_mode: str | None = None) -> None:
        """A task.

        Args:
            size: of the room with its walls.
            goals: how many.
            paying: which of them pays.
            render_mode: MiniGrid's: ``rgb_array``, ``human`` or ``None``.
        """
        self.goals = goals
        self.paying = paying
        super().__init__(
            MissionSpace(mission_func=_mission),
            grid_size=size,
            max_steps=horizon_of(size),
            agent_view_size=VIEW,
            render_mode=render_mode,
        )
        self._room = np.zeros((size + VIEW, size + VIEW, 1 + goals), np.float32)
        """[x, y]: wall, or a goal's colour, one-hot. Larger than the room, so that the view never leaves it: the end
        catches what lies beyond either side, because indices below 0 count from there."""
        size_of_view = VIEW * VIEW * (1 + goals) + DIRECTIONS
        self.observation_space = gymnasium.spaces.Box(0, 1, (size_of_view,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(ACTIONS)

    def set_task(self, parameters: Arrays) -> None:
        """Become another task of the same family from the next step on."""
        self.paying = int(parameters["paying"])

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As MiniGrid's."""
        observation, reward, terminated, truncated, info = super().step(action)
        success = terminated and float(reward) > 0
        return observation, float(reward), terminated, truncated, {**info, "success": success}

    def gen_obs(self) -> Array:
        """The view and the direction as numbers, see ``MiniGridGoal.observation_space``.

        What MiniGrid's own ``gen_obs`` shows, read from an array instead of from a grid of objects that is cut out and
        turned at each step. In a room without inner walls, all that lies in the view is seen, but nothing behind walls.
        """
        x, y = self.agent_pos
        along_x, along_y = _OFFSETS[self.agent_dir]
        cells = self._room[x + along_x, y + along_y]
        cells[-1, VIEW // 2] = 0  # MiniGrid shows what is carried at the agent's own cell, not what it stands on
        return np.concatenate((cells.ravel(), _ONE_HOT[self.agent_dir]))

    def _gen_grid(self, width: int, height: int) -> None:
        """Every placement of the goals in which none touches another, and every start, equally likely."""
        self.grid = Grid(width, height)
        self.grid.wall_rect(0, 0, width, height)
        inside = [(x, y) for x in range(1, width - 1) for y in range(1, height - 1)]
        while True:
            *cells, start = (inside[i] for i in self.np_random.permutation(len(inside))[: self.goals + 1])
            if not any(touching(a, b) for i, a in enumerate(cells) for b in cells[:i]):
                break
        self._room[:] = 0
        self._room[:width, :height, 0] = 1
        self._room[1 : width - 1, 1 : height - 1, 0] = 0
        for number, cell in enumerate(cells):
            goal = Goal()
            goal.color = COLORS[number]
            self.put_obj(goal, *cell)
            self._room[(*cell, 1 + number)] = 1
        self.agent_pos = start
        self.agent_dir = int(self.np_random.integers(DIRECTIONS))

    def _reward(self) -> float:
        """Asked by MiniGrid when a goal is entered."""
        entered = self.grid.get(*self.agent_pos)
        assert entered is not None
        return reward_at(self.step_count, self.max_steps) if entered.color == COLORS[self.paying] else 0.0


def _mission() -> str:
    """MiniGrid wants one; the policy does not see it."""
    return "enter the goal that pays"
