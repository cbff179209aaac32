"""The tensor-native face of ``gridnavi``."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from innerloop.arrays import Array
from innerloop_server.tasks.batch import TaskBatch


class GridNaviBatch(TaskBatch):
    """B goals, N walkers each. State: the cell (x, y), [B, N, 2] float64."""

    reset_uniforms = 0
    knows_success = True

    def __init__(
        self,
        goal: Array,
        device: torch.device,
        *,
        size: int,
        moves: Sequence[tuple[int, int]],
        on_goal: float,
        elsewhere: float,
    ) -> None:
        """B tasks.

        Args:
            goal: [B, 2] cells.
            device: where to step.
            size: cells along a side.
            moves: what each action adds to the cell.
            on_goal: reward of a step that ends on the goal.
            elsewhere: reward of every other.
        """
        self._goal = torch.tensor(goal, dtype=torch.float64, device=device)[:, None, :]
        self._moves = torch.tensor(moves, dtype=torch.float64, device=device)
        self._last = size - 1
        self._on_goal = on_goal
        self._elsewhere = elsewhere

    def reset(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every walker at (0, 0)."""
        state = self._goal.new_zeros((*uniforms.shape[:-1], 2))
        return state, state.float()

    def step(
        self, state: torch.Tensor, action: torch.Tensor, uniforms: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Move, then be paid for the new cell."""
        state = (state + self._moves[action]).clamp(0, self._last)
        there = self.success(state)
        reward = torch.where(there, self._on_goal, self._elsewhere)
        return state, state.float(), reward, torch.zeros_like(there)

    def success(self, state: torch.Tensor) -> torch.Tensor:
        """On the goal."""
        return (state == self._goal).all(-1)
