"""``walker2d-parameters``: walk on legs of unknown weight and friction (rand_param_envs, on Walker2d-v5)."""

from __future__ import annotations

from typing import Any

import gymnasium

from innerloop_server.tasks.families.mujoco_models import SCALING, ScaledModelFamily


class Walker2DParameters(ScaledModelFamily):
    """Walker2d-v5 with a hidden model."""

    name = "walker2d-parameters"
    title = "Walk with hidden masses, damping and friction (MuJoCo)"
    description = (
        "Gymnasium's Walker2d-v5 (MuJoCo, frame skip 4, 0.008 s a step, start noise 0.005). "
        f"{SCALING} "
        "Reward: reward_forward = v, the change of x over the step in m/s; reward_survive = 1 while upright (height in "
        "(0.8, 2) m, pitch within 1); reward_ctrl = -0.001 |a|^2, actions clipped to [-1, 1]. Observation: "
        "Walker2d-v5's 17 numbers, velocities clipped to [-10, 10]. Both feet have the friction 1.9, as Walker2d-v5 "
        "corrects it (0.9 on the right in the model of the sources). Terminates when it is not upright; truncated "
        "after 200 steps as in PEARL; discount 0.99."
    )
    observation_size = 17
    action_size = 6
    bodies, joints, geoms = 7, 6, 8

    @property
    def observation_shift(self) -> tuple[float, ...]:
        """The height that it stands at."""
        return (1.2, *(0.0,) * 16)

    @property
    def observation_scale(self) -> tuple[float, ...]:
        """Round numbers near the standard deviations that random actions give: height, pitch and six joint angles; then
        their velocities (x first).
        """
        return (0.1, 0.4, *(0.4,) * 6, 0.6, 1.0, 4.5, *(6.0,) * 6)

    def build(self) -> gymnasium.Env[Any, Any]:
        """Walker2d-v5."""
        from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv

        return Walker2dEnv()
