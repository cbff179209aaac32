"""``acrobot-dynamics``: Gymnasium's Acrobot-v1 with hidden links and a motor that may be wired backwards."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control.acrobot import AcrobotEnv
from gymnasium.wrappers import TimeLimit

from innerloop.arrays import Array, Arrays, Discrete, Space
from innerloop_server.domain import Features, Task
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.family import Family, space_of

if TYPE_CHECKING:
    import torch

HORIZON = 500
USUAL_SPEEDS = (4.0, 8.0)
"""What the angular velocities reach in a good swing-up, in rad/s; their bounds are three times that."""


class AcrobotDynamicsEnv(AcrobotEnv):
    """``Acrobot-v1``, its own code, with other constants."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium declares it so

    def __init__(self, masses: tuple[float, float], lengths: tuple[float, float], torque: float) -> None:
        """A task with these constants.

        Args:
            masses: of the upper and the lower link, in kilograms.
            lengths: of the upper and the lower link, in metres.
            torque: of action 2, in newton metres; negative when the motor is wired backwards.
        """
        super().__init__()
        self.LINK_MASS_1, self.LINK_MASS_2 = masses
        self.LINK_LENGTH_1, self.LINK_LENGTH_2 = lengths
        self.LINK_COM_POS_1, self.LINK_COM_POS_2 = (length / 2 for length in lengths)
        self.LINK_MOI = moment(*masses, *lengths)
        self.AVAIL_TORQUE = [-torque, 0.0, torque]

    def step(self, action: int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Gymnasium's step; success is its only way to terminate."""
        observation, reward, terminated, truncated, _ = super().step(int(action))  # type: ignore[no-untyped-call]
        return observation, reward, terminated, truncated, {"success": terminated}


def moment(mass_1: Any, mass_2: Any, length_1: Any, length_2: Any) -> Any:
    """The one moment of inertia that Gymnasium gives both links: the mean of their ``mass * length**2``, which is
    Gymnasium's 1 for its own links. Numbers or arrays.
    """
    return (mass_1 * (length_1 * length_1) + mass_2 * (length_2 * length_2)) / 2


class AcrobotDynamics(Family):
    """Acrobot-v1 with hidden links and motor."""

    name = "acrobot-dynamics"
    title = "Swing up two links whose motor may turn the wrong way"
    description = (
        "The physics (Runge-Kutta, 0.2 s a step), observation, reward (-1 a step, 0 for the last, if it succeeds) and "
        "start of Gymnasium's Acrobot-v1; it terminates on success. Hidden: mass_1, mass_2 (0.8 to 1.2 kg), "
        "length_1, length_2 (0.8 to 1.2 m), torque_gain (0.4 to 0.8 N m, Gymnasium's is 1), each uniform, and "
        "torque_sign: 1 as in Gymnasium, 0 when the motor is wired backwards, with equal probability. The motor is "
        "weak on purpose: the stronger it is, the less a swing-up needs to know its sign. The centre of mass is in the "
        "middle of a link, and both links have the moment of inertia (mass_1 length_1^2 + mass_2 length_2^2) / 2, for "
        "Gymnasium has one for both. The height to reach is Gymnasium's -cos(theta_1) - cos(theta_1 + theta_2) > 1 "
        "whatever the lengths: it asks the same angles of every task. Truncated after 500 steps; discount 0.99."
    )
    horizon = HORIZON
    knows_success = True
    baseline = Features("polynomial", degree=2)

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """Scalars; ``torque_sign`` is 0 (backwards) or 1 (forwards)."""
        box = gymnasium.spaces.Box
        return gymnasium.spaces.Dict(
            {
                "mass_1": box(0.8, 1.2, (), np.float64),
                "mass_2": box(0.8, 1.2, (), np.float64),
                "length_1": box(0.8, 1.2, (), np.float64),
                "length_2": box(0.8, 1.2, (), np.float64),
                "torque_gain": box(0.4, 0.8, (), np.float64),
                "torque_sign": gymnasium.spaces.Discrete(2),
            }
        )

    @functools.cached_property
    def observation_space(self) -> Space:
        """Cosine and sine of both angles (hanging: 0, 0; the second relative to the first), then their velocities."""
        return space_of(AcrobotEnv().observation_space)

    @functools.cached_property
    def action_space(self) -> Discrete:
        """Torque one way, none, the other way."""
        return Discrete(3)

    @property
    def observation_scale(self) -> tuple[float, ...]:
        """Speeds around one."""
        return (1.0, 1.0, 1.0, 1.0, *USUAL_SPEEDS)

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """See :class:`AcrobotDynamicsEnv`."""
        p = task.parameters
        env = AcrobotDynamicsEnv(
            masses=(float(p["mass_1"]), float(p["mass_2"])),
            lengths=(float(p["length_1"]), float(p["length_2"])),
            torque=float(p["torque_gain"]) * (2 * int(p["torque_sign"]) - 1),
        )
        return TimeLimit(env, HORIZON)

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        """See :class:`~innerloop_server.tasks.families.acrobot_dynamics_batch.AcrobotDynamicsBatch`."""
        from innerloop_server.tasks.families.acrobot_dynamics_batch import AcrobotDynamicsBatch

        links = (parameters[name] for name in ("mass_1", "mass_2", "length_1", "length_2"))
        return AcrobotDynamicsBatch(parameters, moment(*links), device)
