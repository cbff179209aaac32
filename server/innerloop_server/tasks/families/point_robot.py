"""``point-robot-dense`` and ``point-robot-sparse``: the point robots of PEARL (Rakelly et al. 2019).

Both are one robot: a point in the plane that moves by its action. They differ in where it starts, where goals lie, and
in how far away a goal can be felt.
"""

from __future__ import annotations

import abc
import functools
import math
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

from innerloop.arrays import Array, Arrays, Box
from innerloop_server.domain import Task
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.family import Family

if TYPE_CHECKING:
    import torch

HORIZON = 20
STEP = 0.1
"""Farthest move along one axis in one step."""
GOAL_RADIUS = 0.2
"""A step that ends this near to the goal is a success; the sparse robot is paid for nothing else."""
EXTENT = 1.0
"""The dense robot's starts and goals are uniform on [-EXTENT, EXTENT]^2; the sparse robot's goals are this far away."""


class PointRobotEnv(gymnasium.Env[Array, Array]):
    """A point moves by ``clip(action, -0.1, 0.1)`` and is paid for where it then is.

    The reward is minus the distance from the goal (dense), or one minus that distance within ``GOAL_RADIUS`` and zero
    outside (sparse). ``info["success"]`` says whether the step ended within ``GOAL_RADIUS``.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium declares it so

    def __init__(self, goal: Array, *, sparse: bool) -> None:
        """A task with this goal.

        Args:
            goal: [2] float64.
            sparse: start at the origin and reward the neighbourhood of the goal alone; else start anywhere.
        """
        reach = _reach(sparse)
        self.observation_space = gymnasium.spaces.Box(-reach, reach, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-STEP, STEP, (2,), np.float32)
        self.goal = np.asarray(goal, np.float64)
        self.state = np.zeros(2)
        """[2] float64: where the point is."""
        self._sparse = sparse

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Put the point at its start."""
        super().reset(seed=seed, options=options)
        self.state = np.zeros(2) if self._sparse else EXTENT * (2 * self.np_random.random(2) - 1)
        return self.state.astype(np.float32), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Move, then measure."""
        self.state = self.state + np.clip(np.asarray(action, np.float64), -STEP, STEP)
        dx, dy = self.state - self.goal
        distance = math.sqrt(dx * dx + dy * dy)
        near = distance <= GOAL_RADIUS
        reward = (1.0 - distance if near else 0.0) if self._sparse else -distance
        return self.state.astype(np.float32), reward, False, False, {"success": near}


class _PointRobot(Family):
    """What the two robots share."""

    horizon = HORIZON
    knows_success = True
    _sparse: bool

    @functools.cached_property
    def observation_space(self) -> Box:
        """The position; it cannot leave the box within the horizon."""
        return Box.of(-_reach(self._sparse), _reach(self._sparse), (2,))

    @functools.cached_property
    def action_space(self) -> Box:
        """The move."""
        return Box.of(-STEP, STEP, (2,))

    @property
    def action_scale(self) -> tuple[float, ...]:
        """One unit of raw action is the farthest move."""
        return (STEP, STEP)

    @abc.abstractmethod
    def goals(self, parameters: Arrays) -> Array:
        """Where the goals of B tasks lie, [B, 2] float64; ``parameters`` are [B, *shape]."""

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """See :class:`PointRobotEnv`."""
        goal = self.goals({name: value[None] for name, value in task.parameters.items()})[0]
        return TimeLimit(PointRobotEnv(goal, sparse=self._sparse), HORIZON)

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        """See :class:`~innerloop_server.tasks.families.point_robot_batch.PointRobotBatch`."""
        from innerloop_server.tasks.families.point_robot_batch import PointRobotBatch

        return PointRobotBatch(
            self.goals(parameters), device, sparse=self._sparse, step=STEP, radius=GOAL_RADIUS, extent=EXTENT
        )


class PointRobotDense(_PointRobot):
    """PEARL's point robot, rewarded everywhere. Hidden: the goal."""

    name = "point-robot-dense"
    title = "Walk to a hidden goal, from anywhere"
    description = (
        "A point starts anywhere, uniform on [-1, 1]^2, and moves by at most 0.1 along each axis a step. Hidden: the "
        "goal, uniform on [-1, 1]^2. Reward: minus the distance from the goal after the move. Success: a step that "
        "ends within 0.2 of the goal. Never terminates; truncated after 20 steps; 3 episodes a trial; discount 0.99. "
        "PEARL's point-robot (Rakelly et al. 2019) with fresh goals for every task, where PEARL draws 100 once; its "
        "limit of 0.1 on a move is part of the dynamics here, as it is by the action bounds there; success is ours."
    )
    episodes_per_trial = 3
    _sparse = False

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """``goal``: [2]."""
        return gymnasium.spaces.Dict({"goal": gymnasium.spaces.Box(-EXTENT, EXTENT, (2,), np.float64)})

    def goals(self, parameters: Arrays) -> Array:
        """The parameter itself."""
        return np.asarray(parameters["goal"], np.float64)


class PointRobotSparse(_PointRobot):
    """PEARL's sparse point robot: the goal is felt from nearby alone. Hidden: in which direction it lies."""

    name = "point-robot-sparse"
    title = "Find a hidden goal on a half circle that is felt from nearby alone"
    description = (
        "A point starts at (0, 0) and moves by at most 0.1 along each axis a step. Hidden: the angle of the goal, "
        "which lies at (cos angle, sin angle), uniform on [0, pi]. Reward: 1 minus the distance from the goal after "
        "the move where that is at most 0.2 (a success), else 0. Never terminates; truncated after 20 steps; 20 "
        "episodes a trial; discount 0.9. PEARL's sparse-point-robot (Rakelly et al. 2019), whose meta-training is "
        "shown the dense reward and only its adaptation the sparse one; here both get the sparse reward. Its 100 "
        "goals are evenly spaced; ours are uniform."
    )
    discount = 0.9
    episodes_per_trial = 20
    _sparse = True

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """``angle``, in radians: an even cover of it is an even cover of the goals."""
        return gymnasium.spaces.Dict({"angle": gymnasium.spaces.Box(0.0, math.pi, (), np.float64)})

    def goals(self, parameters: Arrays) -> Array:
        """On the half circle."""
        angle = np.asarray(parameters["angle"], np.float64)
        return EXTENT * np.stack((np.cos(angle), np.sin(angle)), -1)


def _reach(sparse: bool) -> float:
    return HORIZON * STEP + (0.0 if sparse else EXTENT)
