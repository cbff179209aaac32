"""The tensor-native face of ``pendulum-dynamics``: Gymnasium's equations, term by term, over tensors."""

from __future__ import annotations

import math

import torch
from gymnasium.envs.classic_control.pendulum import PendulumEnv

from innerloop.arrays import Arrays
from innerloop_server.tasks.batch import TaskBatch

START = (math.pi, 1.0)
"""The first angle and angular velocity are uniform on [-START, START)."""


class PendulumDynamicsBatch(TaskBatch):
    """B pendulums, N episodes each. State: theta, theta', [B, N, 2] float64."""

    reset_uniforms = 2

    def __init__(self, parameters: Arrays, device: torch.device) -> None:
        """B tasks.

        Args:
            parameters: [B] each, as the family names them.
            device: where to step.
        """
        p = {k: torch.tensor(v, dtype=torch.float64, device=device)[:, None] for k, v in parameters.items()}
        gymnasiums = PendulumEnv()  # the constants that are no parameters: one source
        self._dt = gymnasiums.dt
        self._max_torque = gymnasiums.max_torque
        self._max_speed = gymnasiums.max_speed
        self._start = torch.tensor(START, dtype=torch.float64, device=device)
        self._gravity_rate = 3 * p["gravity"] / (2 * p["length"])
        self._torque_rate = 3.0 / (p["mass"] * (p["length"] * p["length"]))
        self._gain = p["torque_gain"] * (2 * p["torque_sign"] - 1)

    def reset(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """At any angle, slowly turning."""
        state = -self._start + 2 * self._start * uniforms
        return state, _observe(state)

    def step(
        self, state: torch.Tensor, action: torch.Tensor, uniforms: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """One semi-implicit Euler step of 0.05 s; the cost is of the state before it."""
        theta, speed = state.unbind(-1)
        torque = self._gain * action[..., 0].double().clamp(-self._max_torque, self._max_torque)
        angle = torch.remainder(theta + math.pi, 2 * math.pi) - math.pi
        cost = angle * angle + 0.1 * (speed * speed) + 0.001 * (torque * torque)
        speed = speed + (self._gravity_rate * torch.sin(theta) + self._torque_rate * torque) * self._dt
        speed = speed.clamp(-self._max_speed, self._max_speed)
        state = torch.stack((theta + speed * self._dt, speed), -1)
        return state, _observe(state), -cost.float(), torch.zeros_like(cost, dtype=torch.bool)


def _observe(state: torch.Tensor) -> torch.Tensor:
    theta, speed = state.unbind(-1)
    return torch.stack((torch.cos(theta), torch.sin(theta), speed), -1).float()
