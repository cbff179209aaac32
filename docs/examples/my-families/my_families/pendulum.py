"""``pendulum-planets``: Gymnasium's pendulum where nobody says how strong gravity is, nor how heavy the rod."""

import gymnasium
import numpy as np

from innerloop_server.tasks.gymnasium_family import Apply, GymnasiumFamily


class PendulumPlanets(GymnasiumFamily):
    """The ten lines that any Gymnasium environment takes."""

    name = "pendulum-planets"
    title = "Swing up on a planet nobody names"
    description = "Pendulum-v1. Hidden: gravity g, uniform on [3, 25] m/s^2, and mass m, uniform on [0.5, 1.5] kg."
    env_id = "Pendulum-v1"
    parameter_space = gymnasium.spaces.Dict(
        {
            "g": gymnasium.spaces.Box(3.0, 25.0, (), np.float64),
            "m": gymnasium.spaces.Box(0.5, 1.5, (), np.float64),
        }
    )
    apply = Apply.ATTRIBUTES
    horizon = 200
