"""``cartpole-dynamics``: Gymnasium's CartPole-v1 with hidden dynamics and a motor that may be wired backwards."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.wrappers import TimeLimit

from innerloop.arrays import Arrays, Discrete, Space
from innerloop_server.domain import Features, Task
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.family import Family, space_of

if TYPE_CHECKING:
    import torch

HORIZON = 500


class CartPoleDynamicsEnv(CartPoleEnv):
    """``CartPole-v1``, its own code, with other constants."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium declares it so

    def __init__(self, half_length: float, pole_mass: float, cart_mass: float, force: float) -> None:
        """A task with these constants.

        Args:
            half_length: of the pole, in metres (Gymnasium's ``length`` is the half length too).
            pole_mass: in kilograms.
            cart_mass: in kilograms.
            force: of action 1, in newtons; negative when the motor is wired backwards.
        """
        super().__init__()
        self.length = half_length
        self.masspole = pole_mass
        self.masscart = cart_mass
        self.force_mag = force
        # Gymnasium computes these two once, in its constructor.
        self.total_mass = self.masspole + self.masscart
        self.polemass_length = self.masspole * self.length


class CartPoleDynamics(Family):
    """CartPole-v1 with hidden pole, cart and motor."""

    name = "cartpole-dynamics"
    title = "Balance a pole whose motor may be wired backwards"
    description = (
        "The physics, observation, reward (1 a step) and termination of Gymnasium's CartPole-v1. Hidden: half length "
        "of the pole (0.25 to 1.5 m), pole mass (0.05 to 0.5 kg), cart mass (0.8 to 1.2 kg), force (5 to 15 N), each "
        "uniform, and force_sign: 1 as in Gymnasium, 0 when the motor is wired backwards (action 1 pushes left), with "
        "equal probability. So no single policy balances every task before it adapts. Truncated after 500 steps."
    )
    horizon = HORIZON
    discount = 0.99
    baseline = Features("linear")

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """Scalars; ``force_sign`` is 0 (backwards) or 1 (forwards)."""
        box = gymnasium.spaces.Box
        return gymnasium.spaces.Dict(
            {
                "half_length": box(0.25, 1.5, (), np.float64),
                "pole_mass": box(0.05, 0.5, (), np.float64),
                "cart_mass": box(0.8, 1.2, (), np.float64),
                "force": box(5.0, 15.0, (), np.float64),
                "force_sign": gymnasium.spaces.Discrete(2),
            }
        )

    @functools.cached_property
    def observation_space(self) -> Space:
        """Cart position and velocity, pole angle and angular velocity."""
        return space_of(CartPoleEnv().observation_space)

    @functools.cached_property
    def action_space(self) -> Discrete:
        """The two ends of the motor."""
        return Discrete(2)

    @property
    def observation_scale(self) -> tuple[float, ...]:
        """The angle lives within 0.21 rad, the rest around one."""
        return (1.0, 1.0, 0.2, 1.0)

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """See :class:`CartPoleDynamicsEnv`."""
        p = task.parameters
        env = CartPoleDynamicsEnv(
            half_length=float(p["half_length"]),
            pole_mass=float(p["pole_mass"]),
            cart_mass=float(p["cart_mass"]),
            force=float(p["force"]) * (2 * int(p["force_sign"]) - 1),
        )
        return TimeLimit(env, HORIZON)

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        """See :class:`~innerloop_server.tasks.families.cartpole_dynamics_batch.CartPoleDynamicsBatch`."""
        from innerloop_server.tasks.families.cartpole_dynamics_batch import CartPoleDynamicsBatch

        return CartPoleDynamicsBatch(parameters, device)
