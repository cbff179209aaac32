"""``halfcheetah-velocity``: run at a velocity nobody tells you (MAML / ProMP lineage, on HalfCheetah-v5)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from innerloop.arrays import Array, Arrays
from innerloop_server.tasks.families.mujoco_tools import MujocoFamily, MujocoTask

MAX_VELOCITY = 3.0
"""Targets are uniform on [0, MAX_VELOCITY], in m/s."""
CONTROL_COST = 0.05
"""Weight of the squared action: 0.5 * 1e-1 in MAML and ProMP (Gymnasium's own default is 0.1)."""


class HalfCheetahFamily(MujocoFamily):
    """HalfCheetah-v5 with something hidden."""

    observation_size = 17
    action_size = 6

    @property
    def observation_scale(self) -> tuple[float, ...]:
        """Round numbers near the standard deviations that random actions give: height, pitch and six joint angles; then
        nine velocities (x, z, pitch, joints).
        """
        return (0.2, 0.5, *(0.4,) * 6, 1.0, 1.0, 2.0, *(7.0,) * 6)

    def build(self) -> gymnasium.Env[Any, Any]:
        """HalfCheetah-v5."""
        from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

        return HalfCheetahEnv()


class VelocityReward(MujocoTask):
    """HalfCheetah with the lineage's reward, ``-|v - target| - 0.05 |a|^2``, where v is the mean velocity of the
    torso over the step (the change of x over 0.05 s).
    """

    def set_task(self, parameters: Arrays) -> None:
        """Want another ``target_velocity``, in m/s."""
        self.target_velocity = float(parameters["target_velocity"])

    def terms(self, action: Array, info: Mapping[str, Any]) -> dict[str, float]:
        """How far the velocity is from the target, and the control cost."""
        return {
            "reward_forward": -abs(float(info["x_velocity"]) - self.target_velocity),
            "reward_ctrl": -CONTROL_COST * float(np.square(action).sum()),
        }


class HalfCheetahVelocity(HalfCheetahFamily):
    """HalfCheetah-v5 with a hidden target velocity."""

    name = "halfcheetah-velocity"
    title = "Run at a hidden velocity (MuJoCo)"
    description = (
        "Gymnasium's HalfCheetah-v5 (MuJoCo, frame skip 5, 0.05 s a step, start noise 0.1). Hidden: target_velocity, "
        "uniform on [0, 3] m/s as in ProMP (MAML's paper draws from [0, 2]). Reward: -|v - target| - 0.05 |a|^2, "
        "actions clipped to [-1, 1], no scaling, no bonus: the form and control cost of MAML and ProMP; v is the "
        "change of x over the step, as in ProMP (MAML takes the velocity of the centre of mass). Observation: "
        "HalfCheetah-v5's 17 numbers, without x, as in ProMP. Never terminates; truncated after 200 steps as in MAML "
        "(ProMP: 100); discount 0.99. Not comparable number by number with results on older MuJoCo versions."
    )
    task_type = VelocityReward

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """``target_velocity``: a scalar."""
        return gymnasium.spaces.Dict({"target_velocity": gymnasium.spaces.Box(0.0, MAX_VELOCITY, (), np.float64)})
