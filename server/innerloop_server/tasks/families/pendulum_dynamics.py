"""``pendulum-dynamics``: Gymnasium's Pendulum-v1 with hidden dynamics and a motor whose gain may be negative."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from gymnasium.wrappers import TimeLimit

from innerloop.arrays import Array, Arrays, Box, Space
from innerloop_server.domain import Features, Task
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.family import Family, space_of

if TYPE_CHECKING:
    import torch

HORIZON = 200
MAX_TORQUE = 2.0
"""Commands are clipped to this, before the gain."""
MAX_SPEED = 8.0


class PendulumDynamicsEnv(PendulumEnv):
    """``Pendulum-v1``, its own code, with other constants and a motor between the command and the torque."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium declares it so

    def __init__(self, mass: float, length: float, gravity: float, gain: float) -> None:
        """A task with these constants.

        Args:
            mass: in kilograms.
            length: in metres.
            gravity: in m/s^2.
            gain: torque for one unit of commanded torque; negative when the motor is wired backwards.
        """
        super().__init__(g=gravity)
        self.m = mass
        self.l = length
        self.gain = gain
        # The command is clipped here, before the gain; Gymnasium's own clip must not cut the torque after it.
        self.max_torque = math.inf

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Gymnasium's step under the torque ``gain * clip(action, -2, 2)``, which is also what the cost charges."""
        torque = self.gain * np.clip(np.asarray(action, np.float64), -MAX_TORQUE, MAX_TORQUE)
        observation, reward, terminated, truncated, info = super().step(torque)  # type: ignore[no-untyped-call]
        return observation, float(reward), terminated, truncated, info


class PendulumDynamics(Family):
    """Pendulum-v1 with hidden rod, gravity and motor."""

    name = "pendulum-dynamics"
    title = "Swing up a pendulum whose motor may turn the wrong way"
    description = (
        "The physics, observation (cos, sin, angular velocity), reward and start of Gymnasium's Pendulum-v1. Hidden: "
        "mass (0.7 to 1.3 kg), length (0.7 to 1.3 m), gravity (7 to 13 m/s^2), torque_gain (0.7 to 1.5), each uniform, "
        "and torque_sign: 1 as in Gymnasium, 0 when the motor is wired backwards, with equal probability. The command "
        "is clipped to [-2, 2] first; the torque that acts is sign * gain * command (so up to 3 N m), and the cost "
        "0.001 torque^2 charges the torque that acts. Never terminates; truncated after 200 steps; discount 0.96."
    )
    horizon = HORIZON
    discount = 0.96
    # Decides this family: with linear features adaptation does not start at all.
    baseline = Features("polynomial", degree=4)

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """Scalars; ``torque_sign`` is 0 (backwards) or 1 (forwards)."""
        box = gymnasium.spaces.Box
        return gymnasium.spaces.Dict(
            {
                "mass": box(0.7, 1.3, (), np.float64),
                "length": box(0.7, 1.3, (), np.float64),
                "gravity": box(7.0, 13.0, (), np.float64),
                "torque_gain": box(0.7, 1.5, (), np.float64),
                "torque_sign": gymnasium.spaces.Discrete(2),
            }
        )

    @functools.cached_property
    def observation_space(self) -> Space:
        """Cosine and sine of the angle (0: upright), angular velocity in rad/s."""
        return space_of(PendulumEnv().observation_space)

    @functools.cached_property
    def action_space(self) -> Box:
        """The commanded torque."""
        return Box.of(-MAX_TORQUE, MAX_TORQUE, (1,))

    @property
    def observation_scale(self) -> tuple[float, ...]:
        """All within [-1, 1]."""
        return (1.0, 1.0, MAX_SPEED)

    @property
    def action_scale(self) -> tuple[float, ...]:
        """One unit of raw action is the largest command."""
        return (MAX_TORQUE,)

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """See :class:`PendulumDynamicsEnv`."""
        p = task.parameters
        env = PendulumDynamicsEnv(
            mass=float(p["mass"]),
            length=float(p["length"]),
            gravity=float(p["gravity"]),
            gain=float(p["torque_gain"]) * (2 * int(p["torque_sign"]) - 1),
        )
        return TimeLimit(env, HORIZON)

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        """See :class:`~innerloop_server.tasks.families.pendulum_dynamics_batch.PendulumDynamicsBatch`."""
        from innerloop_server.tasks.families.pendulum_dynamics_batch import PendulumDynamicsBatch

        return PendulumDynamicsBatch(parameters, device)
