"""The tensor-native face of ``bernoulli-bandit``."""

from __future__ import annotations

import torch

from innerloop.arrays import Array
from innerloop_server.tasks.batch import TaskBatch


class BernoulliBanditBatch(TaskBatch):
    """B bandits, N pulls each at a time. Nothing changes by pulling, so the state is empty: [B, N, 0] float64."""

    reset_uniforms = 0
    step_uniforms = 1

    def __init__(self, probabilities: Array, device: torch.device) -> None:
        """B tasks.

        Args:
            probabilities: [B, arms].
            device: where to step.
        """
        self._probabilities = torch.tensor(probabilities, dtype=torch.float64, device=device)

    def reset(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Nothing to see: a zero."""
        state = self._probabilities.new_zeros((*uniforms.shape[:-1], 0))
        return state, _nothing(state)

    def step(
        self, state: torch.Tensor, action: torch.Tensor, uniforms: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pull. A row pays where its uniform number is below the arm's probability."""
        assert uniforms is not None  # step_uniforms is 1
        paid = uniforms[..., 0] < self._probabilities.gather(1, action)
        return state, _nothing(state), paid.float(), torch.ones_like(paid)


def _nothing(state: torch.Tensor) -> torch.Tensor:
    return state.new_zeros((*state.shape[:-1], 1), dtype=torch.float32)
