"""The tensor-native face of ``pendulum-model``: one step of ``pendulum-dynamics``' own."""

from __future__ import annotations

import math

import torch

from innerloop.arrays import Arrays
from innerloop_server.tasks.families.pendulum_dynamics_batch import PendulumDynamicsBatch
from innerloop_server.tasks.families.supervised_batch import SupervisedBatch, whole


class PendulumModelBatch(SupervisedBatch):
    """B pendulums, N transitions each."""

    reset_uniforms = 3
    labels = False
    shape = (4,)

    def __init__(self, parameters: Arrays, device: torch.device, *, speed: float, command: float) -> None:
        """B tasks.

        Args:
            parameters: [B] each, as the family names them.
            device: where to compute.
            speed: speeds are uniform on [-speed, speed).
            command: and commands on [-command, command).
        """
        self._physics = PendulumDynamicsBatch(parameters, device)
        self._speed = speed
        self._command = command

    def examples(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Transitions."""
        first, second, third = uniforms.unbind(-1)
        theta = math.pi * (2 * whole(first) - 1)
        speed = self._speed * (2 * second - 1)
        command = self._command * (2 * third - 1)
        after, *_ = self._physics.step(torch.stack((theta, speed), -1), command[..., None])
        next_theta, next_speed = after.unbind(-1)
        change = (
            torch.cos(next_theta) - torch.cos(theta),
            torch.sin(next_theta) - torch.sin(theta),
            next_speed - speed,
        )
        seen = (torch.cos(theta), torch.sin(theta), speed, command)
        return torch.stack(seen, -1).float(), torch.stack(change, -1).float()
