"""The tensor-native face of ``point-maze``."""

from __future__ import annotations

import torch

from innerloop.arrays import Array
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.families.point_maze_walls import (
    GOAL_RADIUS,
    HALF_HEIGHT,
    HALF_WIDTH,
    START,
    STEP,
    WALL_HALF,
    WALL_TIP,
)


class PointMazeBatch(TaskBatch):
    """B goals, N points each. State: the position, [B, N, 2] float64."""

    reset_uniforms = 0
    knows_success = True

    def __init__(self, goal: Array, device: torch.device) -> None:
        """B tasks.

        Args:
            goal: [B, 2], outside the wall.
            device: where to step.
        """
        self._goal = torch.tensor(goal, dtype=torch.float64, device=device)[:, None, :]
        self._start = torch.tensor(START, dtype=torch.float64, device=device)

    def reset(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every point at the start."""
        state = self._start.repeat(*uniforms.shape[:-1], 1)
        return state, state.float()

    def step(
        self, state: torch.Tensor, action: torch.Tensor, uniforms: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Move along x, then along y, then look; see ``point_maze_walls.moved``."""
        x, y = state.unbind(-1)
        dx, dy = action.double().clamp(-STEP, STEP).unbind(-1)
        x = (x + dx).clamp(-HALF_WIDTH, HALF_WIDTH)
        x = torch.where(y.abs() < WALL_HALF, x.clamp(min=WALL_TIP), x)
        to = (y + dy).clamp(-HALF_HEIGHT, HALF_HEIGHT)
        stopped = torch.where(y >= WALL_HALF, to.clamp(min=WALL_HALF), to.clamp(max=-WALL_HALF))
        state = torch.stack((x, torch.where(x < WALL_TIP, stopped, to)), -1)
        reached = self.success(state)
        return state, state.float(), reached.float(), reached

    def success(self, state: torch.Tensor) -> torch.Tensor:
        """Within ``GOAL_RADIUS`` of the goal."""
        dx, dy = (state - self._goal).unbind(-1)
        return torch.sqrt(dx * dx + dy * dy) <= GOAL_RADIUS
