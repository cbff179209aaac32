"""``ant-goal``: walk to a place nobody tells you (ProMP's and PEARL's, on Ant-v5)."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from innerloop.arrays import Array, Arrays
from innerloop_server.domain import Split
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.families import ant_direction
from innerloop_server.tasks.families.mujoco_tools import MujocoFamily, MujocoTask, gymnasium_terms

RADIUS = 3.0
"""Goals are uniform on the disc of this radius, in m."""
CONTROL_COST = 0.1


class GoalReward(MujocoTask):
    """Ant paid for being near a goal: minus the L1 distance, minus Gymnasium's costs."""

    def set_task(self, parameters: Arrays) -> None:
        """Want to be elsewhere: ``goal`` [2], in m."""
        self._goal = np.array(parameters["goal"], np.float64)

    def terms(self, action: Array, info: Mapping[str, Any]) -> dict[str, float]:  # noqa: ARG002 - the costs are Gymnasium's
        """Distance from the goal; then Gymnasium's costs."""
        away = abs(info["x_position"] - self._goal[0]) + abs(info["y_position"] - self._goal[1])
        return {"reward_goal": -float(away), **gymnasium_terms(info, "ctrl", "contact")}


class AntGoal(MujocoFamily):
    """Ant-v5 with a hidden goal."""

    name = "ant-goal"
    title = "Walk to a hidden place, on four legs (MuJoCo)"
    description = (
        "Gymnasium's Ant-v5 (MuJoCo, frame skip 5, 0.05 s a step, start noise 0.1). Hidden: goal, uniform on the disc "
        "of radius 3 m around the start, as in ProMP and PEARL. Reward: reward_goal = -(|x - goal_x| + |y - goal_y|), "
        "the torso's position after the step; reward_ctrl = -0.1 |a|^2; reward_contact = -0.0005 |f|^2, f the contact "
        "forces clipped to [-1, 1]; no bonus: PEARL's terms and weights. Actions clipped to [-1, 1]. Observation: 107 "
        "numbers, positions with x and y, velocities, contact forces (PEARL's 113 hold six more that are always zero). "
        "Never terminates; truncated after 200 steps; discount 0.99. The position is that of the observation (PEARL's "
        "lags one simulation step of 0.01 s behind); contact forces were zero in the MuJoCo versions that PEARL ran "
        "on."
    )
    observation_size = 107
    action_size = 8
    task_type = GoalReward

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """``goal``: [2], in the disc."""
        return gymnasium.spaces.Dict({"goal": gymnasium.spaces.Box(-RADIUS, RADIUS, (2,), np.float64)})

    def sample(self, rng: np.random.Generator, split: Split = Split.TRAIN) -> dict[str, Array]:  # noqa: ARG002
        """Uniform on the disc."""
        radius, angle = RADIUS * math.sqrt(rng.random()), 2 * math.pi * rng.random()
        return {"goal": radius * np.array([math.cos(angle), math.sin(angle)])}

    def check(self, parameters: Mapping[str, Array], field: str = "task.parameters") -> dict[str, Array]:
        """As any family's, and the goal lies on the disc.

        Raises:
            InvalidField: as ``Family.check``; or the goal lies off the disc.
        """
        checked = super().check(parameters, field)
        if float(np.hypot(*checked["goal"])) > RADIUS * (1 + 1e-12):
            raise InvalidField(f"{field}.goal", f"lies farther than {RADIUS:g} m from the start")
        return checked

    @property
    def observation_scale(self) -> tuple[float, ...]:
        """Round numbers near what random actions give (root mean square): the place, what ``ant-direction`` sees, and
        the contact forces.
        """
        return (1.7, 1.7, *ant_direction.SCALE, *(0.2,) * 78)

    def build(self) -> gymnasium.Env[Any, Any]:
        """Ant-v5 that knows where it is and may lie on its back."""
        from gymnasium.envs.mujoco.ant_v5 import AntEnv

        return AntEnv(
            ctrl_cost_weight=CONTROL_COST,
            terminate_when_unhealthy=False,
            exclude_current_positions_from_observation=False,
        )
