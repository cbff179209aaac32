"""``halfcheetah-direction``: run forwards or backwards, nobody says which (MAML's, on HalfCheetah-v5)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from innerloop.arrays import Array, Arrays
from innerloop_server.domain import Reference
from innerloop_server.tasks.families.halfcheetah_velocity import CONTROL_COST, HalfCheetahFamily
from innerloop_server.tasks.families.mujoco_tools import MujocoTask


class SideReward(MujocoTask):
    """HalfCheetah paid for its velocity forwards or backwards: ``+-v - 0.05 |a|^2``, where v is the mean velocity of
    the torso over the step.
    """

    def set_task(self, parameters: Arrays) -> None:
        """Run the other way: ``direction`` 0 is backwards, 1 forwards."""
        self._sign = 2 * int(parameters["direction"]) - 1

    def terms(self, action: Array, info: Mapping[str, Any]) -> dict[str, float]:
        """Velocity the right way, and the control cost."""
        return {
            "reward_forward": self._sign * float(info["x_velocity"]),
            "reward_ctrl": -CONTROL_COST * float(np.square(action).sum()),
        }


class HalfCheetahDirection(HalfCheetahFamily):
    """HalfCheetah-v5 with a hidden direction."""

    name = "halfcheetah-direction"
    title = "Run forwards or backwards (MuJoCo)"
    description = (
        "Gymnasium's HalfCheetah-v5 (MuJoCo, frame skip 5, 0.05 s a step, start noise 0.1). Hidden: direction, 0 for "
        "backwards and 1 for forwards; with two tasks only, train, validation and test share them, as in MAML and "
        "PEARL. Reward: reward_forward = v or -v in m/s, v the change of x over the step; reward_ctrl = -0.05 |a|^2; "
        "actions clipped to [-1, 1]: PEARL's form and weights. Observation: HalfCheetah-v5's 17 numbers, without x "
        "(PEARL shows the torso's position too). Never terminates; truncated after 200 steps; discount 0.99. Not "
        "comparable number by number with results on older MuJoCo versions."
    )
    splits_share_tasks = True
    task_type = SideReward

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """``direction``: 0 backwards, 1 forwards."""
        return gymnasium.spaces.Dict({"direction": gymnasium.spaces.Discrete(2)})

    @functools.cached_property
    def references(self) -> tuple[Reference, ...]:
        """What is gained one way is lost the other, so both tasks together pay nobody who does the same in both."""
        return (
            Reference(
                "memoryless",
                0.0,
                "closed form: who cannot see the direction moves alike in both tasks, so what velocity pays cancels "
                "out; standing still saves the control cost",
            ),
        )
