"""The tensor-native face of ``acrobot-dynamics``: Gymnasium's equations over tensors."""

from __future__ import annotations

import math

import torch
from gymnasium.envs.classic_control.acrobot import AcrobotEnv

from innerloop.arrays import Array, Arrays
from innerloop_server.tasks.batch import TaskBatch

START = 0.1
"""Every number of the first state is uniform on [-START, START)."""
GRAVITY = 9.8
"""Gymnasium's, which it keeps inside a function."""


class AcrobotDynamicsBatch(TaskBatch):
    """B acrobots, N episodes each. State: theta1, theta2, theta1', theta2', [B, N, 4] float64."""

    reset_uniforms = 4
    knows_success = True

    def __init__(self, parameters: Arrays, moment: Array, device: torch.device) -> None:
        """B tasks.

        Args:
            parameters: [B] each, as the family names them.
            moment: [B] moment of inertia of both links.
            device: where to step.
        """
        p = {k: torch.tensor(v, dtype=torch.float64, device=device)[:, None] for k, v in parameters.items()}
        m1, m2, l1, l2 = (p[name] for name in ("mass_1", "mass_2", "length_1", "length_2"))
        c1, c2 = l1 / 2, l2 / 2  # centres of mass
        inertia = torch.tensor(moment, dtype=torch.float64, device=device)[:, None]
        self._dt = AcrobotEnv.dt  # the constants that are no parameters: one source
        self._fastest = torch.tensor((AcrobotEnv.MAX_VEL_1, AcrobotEnv.MAX_VEL_2), dtype=torch.float64, device=device)
        self._torque = p["torque_gain"] * (2 * p["torque_sign"] - 1)
        # Constant parts of the mass matrix and of gravity, named for the angle or speed that they multiply.
        self._lower = m2 * (c2 * c2) + inertia
        self._upper = m1 * (c1 * c1) + m2 * (l1 * l1 + c2 * c2) + 2 * inertia
        self._cross = m2 * l1 * c2
        self._weight_1 = (m1 * c1 + m2 * l1) * GRAVITY
        self._weight_2 = m2 * c2 * GRAVITY

    def reset(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hanging, nearly at rest. Gymnasium rounds the start to float32."""
        state = (-START + 2 * START * uniforms).float().double()
        return state, _observe(state)

    def step(
        self, state: torch.Tensor, action: torch.Tensor, uniforms: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """One fourth-order Runge-Kutta step of 0.2 s; then angles are wrapped and speeds bounded."""
        torque = (action - 1).double() * self._torque
        k1 = self._rates(state, torque)
        k2 = self._rates(state + self._dt / 2 * k1, torque)
        k3 = self._rates(state + self._dt / 2 * k2, torque)
        k4 = self._rates(state + self._dt * k3, torque)
        state = state + self._dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        speeds = state[..., 2:].clamp(-self._fastest, self._fastest)
        state = torch.cat((_wrap(state[..., :2]), speeds), -1)
        up = self.success(state)
        return state, _observe(state), up.float() - 1.0, up

    def success(self, state: torch.Tensor) -> torch.Tensor:
        """The tip is high enough."""
        theta1, theta2 = state[..., 0], state[..., 1]
        return -torch.cos(theta1) - torch.cos(theta1 + theta2) > 1.0

    def _rates(self, state: torch.Tensor, torque: torch.Tensor) -> torch.Tensor:
        """Time derivative of ``state`` [B, N, 4] (Sutton and Barto, Reinforcement Learning: An Introduction; the form
        that Gymnasium calls "book").
        """
        theta1, theta2, speed1, speed2 = state.unbind(-1)
        cos2, sin2 = torch.cos(theta2), torch.sin(theta2)
        d1 = self._upper + 2 * self._cross * cos2
        d2 = self._lower + self._cross * cos2
        phi2 = self._weight_2 * torch.sin(theta1 + theta2)
        phi1 = phi2 + self._weight_1 * torch.sin(theta1) - self._cross * sin2 * speed2 * (speed2 + 2 * speed1)
        acceleration2 = (torque + d2 / d1 * phi1 - self._cross * (speed1 * speed1) * sin2 - phi2) / (
            self._lower - d2 * d2 / d1
        )
        acceleration1 = -(d2 * acceleration2 + phi1) / d1
        return torch.stack((speed1, speed2, acceleration1, acceleration2), -1)


def _wrap(angle: torch.Tensor) -> torch.Tensor:
    """Angles brought to [-pi, pi] by whole turns; both ends stay as they are."""
    over = torch.ceil((angle - math.pi) / (2 * math.pi)).clamp(min=0)
    under = torch.floor((angle + math.pi) / (2 * math.pi)).clamp(max=0)
    return angle - 2 * math.pi * (over + under)


def _observe(state: torch.Tensor) -> torch.Tensor:
    angles, speeds = state[..., :2], state[..., 2:]
    cos, sin = torch.cos(angles), torch.sin(angles)
    return torch.cat((torch.stack((cos, sin), -1).flatten(-2), speeds), -1).float()
