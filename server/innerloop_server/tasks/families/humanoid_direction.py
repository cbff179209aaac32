"""``humanoid-direction``: walk along a direction nobody tells you, on two legs (PEARL's, on Humanoid-v5)."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium

from innerloop_server.tasks.families.mujoco_tools import DirectionFamily, DirectionReward

_LEG_ANGLES = (0.1, 0.2, 0.3, 1.0)
_LEG_SPEEDS = (2.5, 3.5, 6.0, 7.0)
_LEG_TORQUES = (25.0, 25.0, 70.0, 50.0)
_LEG_CONTACTS = (*(10.0,) * 6, *(30.0,) * 6, *(100.0,) * 6)
_INERTIA = (0.5, 0.5, 0.1, 0.05, 0.1, 0.1, 0.25, 0.25, 1.0, 4.0)
SCALE = (
    *(0.2, 1.0, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2, *_LEG_ANGLES * 2, *(0.3,) * 6),
    *(0.3, 0.3, 0.7, 1.0, 2.0, 2.0, 3.0, 4.5, 2.5, *_LEG_SPEEDS * 2, *(2.5,) * 6),
    *(2.0, 2.0, 0.1, 0.05, 0.2, 0.1, 0.5, 0.3, 4.0, 9.0, *_INERTIA * 12),
    *(2.0, 3.5, 2.5, 1.5, 0.8, 0.8) * 13,
    *(25.0, 25.0, 25.0, *_LEG_TORQUES * 2, *(6.0,) * 6),
    *((1.0,) * 12 + (20.0,) * 6 + _LEG_CONTACTS * 2 + (5.0,) * 24),
)
"""Round numbers near what random actions give (root mean square): positions, velocities, the bodies' inertia and
velocities, the joints' torques, contact forces."""


class HumanoidVelocity(DirectionReward):
    """Humanoid paid for the velocity of its centre of mass along a hidden direction."""

    weight: ClassVar[float] = 1.25


class HumanoidDirection(DirectionFamily):
    """Humanoid-v5 with a hidden direction."""

    name = "humanoid-direction"
    title = "Walk along a hidden direction, on two legs (MuJoCo)"
    description = (
        "Gymnasium's Humanoid-v5 (MuJoCo, frame skip 5, 0.015 s a step, start noise 0.01). Hidden: direction, an angle "
        "uniform on [0, 2 pi), as in PEARL (Humanoid-Direc-2D). Reward: reward_forward = 1.25 times the velocity of "
        "the centre of mass along the direction, m/s; reward_survive = 5 while the torso's height is in (1, 2); "
        "reward_ctrl = -0.1 |a|^2; reward_contact = -5e-7 |f|^2, at most 10, f the contact forces: PEARL's terms and "
        "weights. Actions clipped to [-0.4, 0.4]. Observation: Humanoid-v5's 348 numbers (PEARL's 376 hold 28 more "
        "that never change). Terminates when the height leaves its range (PEARL pays the bonus for that step too); "
        "truncated after 200 steps; discount 0.99. Not comparable number by number with results on older MuJoCo "
        "versions."
    )
    observation_size = 348
    action_size = 17
    action_limit = 0.4
    task_type = HumanoidVelocity

    @property
    def observation_shift(self) -> tuple[float, ...]:
        """The height that it stands at, and an upright orientation."""
        return (1.2, 1.0, *(0.0,) * (self.observation_size - 2))

    @property
    def observation_scale(self) -> tuple[float, ...]:
        """See ``SCALE``."""
        return SCALE

    def build(self) -> gymnasium.Env[Any, Any]:
        """Humanoid-v5."""
        from gymnasium.envs.mujoco.humanoid_v5 import HumanoidEnv

        return HumanoidEnv()
