"""The tensor-native face of a family whose parameters are in view."""

from __future__ import annotations

import torch

from innerloop.arrays import Array
from innerloop_server.tasks.batch import TaskBatch

Step = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class VisibleBatch(TaskBatch):
    """Appends each task's parameters to its flattened observations."""

    def __init__(self, batch: TaskBatch, shown: Array, device: torch.device) -> None:
        """Args:
        batch: B tasks.
        shown: [B, P] float32 what to append.
        device: of ``batch``.
        """
        self._batch = batch
        self._shown = torch.from_numpy(shown).to(device)[:, None]
        self.reset_uniforms = batch.reset_uniforms
        self.step_uniforms = batch.step_uniforms
        self.knows_success = batch.knows_success

    def reset(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``batch``, with observations [B, N, O + P]."""
        state, observation = self._batch.reset(uniforms)
        return state, self._show(observation)

    def step(self, state: torch.Tensor, action: torch.Tensor, uniforms: torch.Tensor | None = None) -> Step:
        """As ``batch``, with observations [B, N, O + P]."""
        state, observation, reward, terminated = self._batch.step(state, action, uniforms)
        return state, self._show(observation), reward, terminated

    def feedback(self, state: torch.Tensor) -> torch.Tensor:
        """As ``batch``."""
        return self._batch.feedback(state)

    def success(self, state: torch.Tensor) -> torch.Tensor:
        """As ``batch``."""
        return self._batch.success(state)

    def _show(self, observation: torch.Tensor) -> torch.Tensor:
        flat = observation.flatten(2)
        return torch.cat([flat, self._shown.expand(-1, flat.shape[1], -1)], -1)
