"""The tensor-native face of ``navigation-2d``."""

from __future__ import annotations

import torch

from innerloop.arrays import Array
from innerloop_server.tasks.batch import TaskBatch


class Navigation2DBatch(TaskBatch):
    """B goals, N points each. State: the position, [B, N, 2] float64."""

    reset_uniforms = 0

    def __init__(self, goal: Array, device: torch.device, *, step: float, tolerance: float) -> None:
        """B tasks.

        Args:
            goal: [B, 2].
            device: where to step.
            step: farthest move along one axis.
            tolerance: the goal is reached when both coordinates are closer than this.
        """
        self._goal = torch.tensor(goal, dtype=torch.float64, device=device)[:, None, :]
        self._step = step
        self._tolerance = tolerance

    def reset(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every point at the origin."""
        state = torch.zeros(*uniforms.shape[:-1], 2, dtype=torch.float64, device=self._goal.device)
        return state, state.float()

    def step(
        self, state: torch.Tensor, action: torch.Tensor, uniforms: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Move, then measure."""
        state = state + action.double().clamp(-self._step, self._step)
        dx, dy = (state - self._goal).unbind(-1)
        reward = -torch.sqrt(dx * dx + dy * dy)
        reached = (dx.abs() < self._tolerance) & (dy.abs() < self._tolerance)
        return state, state.float(), reward.float(), reached
