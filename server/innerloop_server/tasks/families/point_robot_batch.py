"""The tensor-native face of ``point-robot-dense`` and ``point-robot-sparse``."""

from __future__ import annotations

import torch

from innerloop.arrays import Array
from innerloop_server.tasks.batch import TaskBatch


class PointRobotBatch(TaskBatch):
    """B goals, N points each. State: the position, [B, N, 2] float64."""

    knows_success = True

    def __init__(
        self, goal: Array, device: torch.device, *, sparse: bool, step: float, radius: float, extent: float
    ) -> None:
        """B tasks.

        Args:
            goal: [B, 2].
            device: where to step.
            sparse: start at the origin and reward the neighbourhood of the goal alone; else start anywhere.
            step: farthest move along one axis.
            radius: of the neighbourhood, which is success.
            extent: who starts anywhere starts on [-extent, extent]^2.
        """
        self._goal = torch.tensor(goal, dtype=torch.float64, device=device)[:, None, :]
        self._sparse = sparse
        self._step = step
        self._radius = radius
        self._extent = extent
        self.reset_uniforms = 0 if sparse else 2

    def reset(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every point at the origin (sparse), or anywhere."""
        state = uniforms.new_zeros((*uniforms.shape[:-1], 2)) if self._sparse else self._extent * (2 * uniforms - 1)
        return state, state.float()

    def step(
        self, state: torch.Tensor, action: torch.Tensor, uniforms: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Move, then measure."""
        state = state + action.double().clamp(-self._step, self._step)
        distance = self._distance(state)
        near = distance <= self._radius
        reward = torch.where(near, 1.0 - distance, 0.0) if self._sparse else -distance
        return state, state.float(), reward.float(), torch.zeros_like(near)

    def success(self, state: torch.Tensor) -> torch.Tensor:
        """Within ``radius`` of the goal."""
        return self._distance(state) <= self._radius

    def _distance(self, state: torch.Tensor) -> torch.Tensor:
        dx, dy = (state - self._goal).unbind(-1)
        return torch.sqrt(dx * dx + dy * dy)
