"""A family that is quick to run: a point drifts by its task's own speed plus the action, for a few steps.

``fault`` makes a task that misbehaves: 1 raises, 2 pays rewards that are no numbers. Environment actors find it under
``drift_family:registry``; torch is imported with the batch face alone, so that they start fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

from innerloop.arrays import Arrays, Box, Space
from innerloop_server.domain import Features, Task
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import Registry

if TYPE_CHECKING:
    import torch

HORIZON = 6
RAISES, DIVERGES = 1, 2


class DriftEnv(gymnasium.Env[Any, Any]):
    """One task."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, speed: float, fault: int) -> None:
        self.speed, self.fault = speed, fault

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = float(self.np_random.random()) - 0.5
        return np.float32([self.state]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.fault == RAISES:
            raise RuntimeError("the motor is on fire")
        self.state += self.speed + 0.1 * float(action[0])
        return np.float32([self.state]), -abs(self.state), abs(self.state) > 2, False, {}


class Drift(Family):
    name = "drift"
    title = "Stay at zero"
    description = "For tests."
    horizon = HORIZON
    baseline = Features()
    observation_space: Space = Box.of(-np.inf, np.inf, (1,))
    action_space: Space = Box.of(-1.0, 1.0, (1,))
    parameter_space = gymnasium.spaces.Dict(
        {"speed": gymnasium.spaces.Box(-1.0, 1.0, (), np.float64), "fault": gymnasium.spaces.Discrete(3)}
    )

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        return TimeLimit(DriftEnv(float(task.parameters["speed"]), int(task.parameters["fault"])), HORIZON)

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        from drift import DriftBatch

        return DriftBatch(parameters, device)


def registry() -> Registry:
    return Registry({"drift": Drift()})
