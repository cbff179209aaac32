"""Meta-World's environments as one Gymnasium environment that can become any of them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from innerloop.arrays import Array, Arrays
from innerloop_server.tasks.families.mujoco_tools import quiet_compiler

OBSERVATION_SIZE = 39
ACTION_SIZE = 4
WELD = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0)
"""Of the weld that moves the hand, as Meta-World sets it: anchor, relative place and orientation, torque scale."""


class ManipulationEnv(gymnasium.Env[Array, Array]):
    """A Sawyer arm with one of Meta-World's tasks and one of its goals, which it is not shown.

    Only the simulator of the task at hand is kept: compiling another takes some 50 ms, an episode half a second. Starts
    are fixed by the task, as Meta-World's are; seeds change nothing.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium declares it so

    def __init__(self, environments: Sequence[str], known: Sequence[str], parameters: Arrays) -> None:
        """A task with these parameters.

        Args:
            environments: names, such as ``reach-v3``, that the parameter ``environment`` counts.
            known: all names there are, in a fixed order: a goal depends on the position in it.
            parameters: ``goal``, and ``environment`` unless there is only one.
        """
        self._environments, self._known = tuple(environments), tuple(known)
        self._name = ""
        self._simulator: Any = None
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVATION_SIZE,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        self.set_task(parameters)

    def set_task(self, parameters: Arrays) -> None:
        """Become another task, from the next reset on.

        What a goal is (of a target, of where objects lie) is Meta-World's to draw, by rejection in some environments;
        here it draws from a stream of the environment's and the goal's own.
        """
        name = self._environments[int(parameters.get("environment", np.asarray(0)))]
        if name != self._name:
            self.close()
            with quiet_compiler():
                self._simulator = _simulator_type(name)()
            self._name = name
        simulator = self._simulator
        simulator.np_random = np.random.default_rng((self._known.index(name), int(parameters["goal"])))
        simulator.seeded_rand_vec = True
        simulator._set_task_called = True
        simulator._freeze_rand_vec = False
        simulator.reset()
        simulator._freeze_rand_vec = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Put the arm and the objects where the task has them."""
        super().reset(seed=seed, options=options)
        observation, info = self._simulator.reset()
        return observation.astype(np.float32), info

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Meta-World's step; ``info["success"]`` says whether it ended in success."""
        observation, reward, terminated, truncated, info = self._simulator.step(np.clip(action, -1.0, 1.0))
        return (
            observation.astype(np.float32),
            float(reward),
            terminated,
            truncated,
            info | {"success": info["success"] > 0},
        )

    def close(self) -> None:
        """Drop the simulator."""
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None
            self._name = ""


@functools.cache
def _simulator_type(name: str) -> type[Any]:
    """Meta-World's class, with one method that does not know the longer rows of MuJoCo 4."""
    import mujoco
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    def reset_mocap_welds(self: Any) -> None:
        welds = self.model.eq_type == mujoco.mjtEq.mjEQ_WELD
        self.model.eq_data[welds, : len(WELD)] = WELD

    cls = ALL_V3_ENVIRONMENTS[name]
    return type(cls.__name__, (cls,), {"reset_mocap_welds": reset_mocap_welds})
