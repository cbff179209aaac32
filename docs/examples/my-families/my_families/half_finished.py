"""A family whose simulator is not installed: importing it fails."""

import a_simulator_that_nobody_has  # type: ignore[import-not-found]

from innerloop_server.tasks.gymnasium_family import GymnasiumFamily


class HalfFinished(GymnasiumFamily):
    """Never gets this far."""

    name = "half-finished"
    env_id = a_simulator_that_nobody_has.Simulator
