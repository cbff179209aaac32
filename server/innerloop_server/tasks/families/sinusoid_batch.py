"""The tensor-native face of ``sinusoid``."""

from __future__ import annotations

import torch

from innerloop.arrays import Array
from innerloop_server.tasks.families.supervised_batch import SupervisedBatch, whole


class SinusoidBatch(SupervisedBatch):
    """B waves, N points each."""

    reset_uniforms = 1
    labels = False
    shape = (1,)

    def __init__(self, amplitude: Array, phase: Array, reach: float, device: torch.device) -> None:
        """B tasks.

        Args:
            amplitude: [B].
            phase: [B].
            reach: inputs are uniform on [-reach, reach).
            device: where to compute.
        """
        self._amplitude = torch.tensor(amplitude, dtype=torch.float64, device=device)[:, None, None]
        self._phase = torch.tensor(phase, dtype=torch.float64, device=device)[:, None, None]
        self._reach = reach

    def examples(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points of the waves."""
        x = self._reach * (2 * whole(uniforms) - 1)
        return x.float(), (self._amplitude * torch.sin(x - self._phase)).float()
