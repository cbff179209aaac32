"""The tensor-native face of ``cartpole-dynamics``: Gymnasium's equations, term by term, over tensors."""

from __future__ import annotations

import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from innerloop.arrays import Arrays
from innerloop_server.tasks.batch import TaskBatch

START = 0.05
"""Every number of the first state is uniform on [-START, START)."""


class CartPoleDynamicsBatch(TaskBatch):
    """B cart-poles, N episodes each. State: x, x', theta, theta', [B, N, 4] float64."""

    reset_uniforms = 4

    def __init__(self, parameters: Arrays, device: torch.device) -> None:
        """B tasks.

        Args:
            parameters: [B] each, as the family names them.
            device: where to step.
        """
        p = {k: torch.tensor(v, dtype=torch.float64, device=device)[:, None] for k, v in parameters.items()}
        gymnasiums = CartPoleEnv()  # the constants that are no parameters: one source
        self._gravity = gymnasiums.gravity
        self._tau = gymnasiums.tau
        self._x_threshold = gymnasiums.x_threshold
        self._theta_threshold = gymnasiums.theta_threshold_radians
        self._length = p["half_length"]
        self._pole_mass = p["pole_mass"]
        self._total_mass = p["pole_mass"] + p["cart_mass"]
        self._pole_mass_length = p["pole_mass"] * p["half_length"]
        self._force = p["force"] * (2 * p["force_sign"] - 1)

    def reset(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Near the middle, near upright, nearly at rest."""
        state = -START + 2 * START * uniforms
        return state, state.float()

    def step(
        self, state: torch.Tensor, action: torch.Tensor, uniforms: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """One Euler step of 0.02 s (Barto, Sutton and Anderson 1983, in Gymnasium's form)."""
        x, x_dot, theta, theta_dot = state.unbind(-1)
        force = torch.where(action == 1, self._force, -self._force)
        cos, sin = torch.cos(theta), torch.sin(theta)
        temp = (force + self._pole_mass_length * (theta_dot * theta_dot) * sin) / self._total_mass
        theta_acc = (self._gravity * sin - cos * temp) / (
            self._length * (4.0 / 3.0 - self._pole_mass * (cos * cos) / self._total_mass)
        )
        x_acc = temp - self._pole_mass_length * theta_acc * cos / self._total_mass
        state = torch.stack(
            (
                x + self._tau * x_dot,
                x_dot + self._tau * x_acc,
                theta + self._tau * theta_dot,
                theta_dot + self._tau * theta_acc,
            ),
            -1,
        )
        fallen = (state[..., 0].abs() > self._x_threshold) | (state[..., 2].abs() > self._theta_threshold)
        return state, state.float(), torch.ones_like(fallen, dtype=torch.float32), fallen
