"""``ant-direction``: walk along a direction nobody tells you (PEARL's, on Ant-v5)."""

from __future__ import annotations

from typing import Any

import gymnasium

from innerloop_server.tasks.families.mujoco_tools import DirectionFamily

SCALE = (0.2, 0.5, 0.2, 0.3, 0.5, *(0.4, 0.9) * 4, *(0.8,) * 3, *(1.7,) * 3, *(4.5,) * 8)
"""Round numbers near what random actions give (root mean square): height, orientation, the legs' angles; velocities."""


class AntDirection(DirectionFamily):
    """Ant-v5 with a hidden direction."""

    name = "ant-direction"
    title = "Walk along a hidden direction, on four legs (MuJoCo)"
    description = (
        "Gymnasium's Ant-v5 (MuJoCo, frame skip 5, 0.05 s a step, start noise 0.1). Hidden: direction, an angle "
        "uniform on [0, 2 pi), as PEARL's code draws it (its paper's figure has two tasks, forwards and backwards; "
        "VariBAD takes +-1 for an angle). Reward: reward_forward = velocity of the torso along the direction, m/s; "
        "reward_survive = 1 while the torso's height is in [0.2, 1]; reward_ctrl = -0.5 |a|^2; reward_contact = "
        "-0.0005 |f|^2, f the contact forces clipped to [-1, 1]: PEARL's terms and weights. Actions clipped to [-1, "
        "1]. Observation: positions without x and y, then velocities, 27 numbers, as in PEARL. Terminates when the "
        "height leaves its range; truncated after 200 steps; discount 0.99. Contact forces were zero in the MuJoCo "
        "versions that PEARL ran on: not comparable number by number."
    )
    observation_size = 27
    action_size = 8

    @property
    def observation_scale(self) -> tuple[float, ...]:
        """See ``SCALE``."""
        return SCALE

    def build(self) -> gymnasium.Env[Any, Any]:
        """Ant-v5 without contact forces in view."""
        from gymnasium.envs.mujoco.ant_v5 import AntEnv

        return AntEnv(include_cfrc_ext_in_observation=False)
