"""``hopper-parameters``: hop on a leg of unknown weight and friction (rand_param_envs, on Hopper-v5)."""

from __future__ import annotations

from typing import Any

import gymnasium

from innerloop_server.tasks.families.mujoco_models import SCALING, ScaledModelFamily


class HopperParameters(ScaledModelFamily):
    """Hopper-v5 with a hidden model."""

    name = "hopper-parameters"
    title = "Hop with hidden masses, damping and friction (MuJoCo)"
    description = (
        "Gymnasium's Hopper-v5 (MuJoCo, frame skip 4, 0.008 s a step, start noise 0.005). "
        f"{SCALING} "
        "Reward: reward_forward = v, the change of x over the step in m/s; reward_survive = 1 while upright (height "
        "above 0.7 m, pitch within 0.2); reward_ctrl = -0.001 |a|^2, actions clipped to [-1, 1]. Observation: "
        "Hopper-v5's 11 numbers, velocities clipped to [-10, 10]. Terminates when it is not upright; truncated after "
        "200 steps as in PEARL; discount 0.99."
    )
    observation_size = 11
    action_size = 3
    bodies, joints, geoms = 4, 3, 5

    @property
    def observation_shift(self) -> tuple[float, ...]:
        """The height that it stands at."""
        return (1.2, *(0.0,) * 10)

    @property
    def observation_scale(self) -> tuple[float, ...]:
        """Round numbers above the standard deviations that random actions give, which end in a fall at once: height,
        pitch and three joint angles; then their velocities (x first).
        """
        return (0.1, 0.1, 0.1, 0.1, 0.2, 0.7, 0.7, 2.0, 2.0, 2.0, 3.0)

    def build(self) -> gymnasium.Env[Any, Any]:
        """Hopper-v5."""
        from gymnasium.envs.mujoco.hopper_v5 import HopperEnv

        return HopperEnv()
