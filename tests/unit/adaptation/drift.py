"""A family that is quick to run: a point drifts by its task's own speed plus the action, for a few steps.

``fault`` makes a task that misbehaves: 1 raises, 2 pays rewards that no update survives. Its environment face sits
under the same registry, so that environment actors can run it (``module:registry``).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import safetensors.torch
import torch
from gymnasium.wrappers import TimeLimit

from innerloop.arrays import Arrays, Box, Space
from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.orders import Attach, RevisionRef
from innerloop_server.domain import Features, LearnerSpec, Simulator, Task
from innerloop_server.learners.registry import build
from innerloop_server.tasks.family import Family, TaskBatch
from innerloop_server.tasks.registry import Registry

HORIZON = 6
RAISES, DIVERGES = 1, 2


class DriftBatch:
    """B tasks. Ends where the point leaves [-2, 2]; pays minus the distance from zero."""

    reset_uniforms = 1

    def __init__(self, parameters: Arrays, device: torch.device) -> None:
        self.speed = torch.from_numpy(parameters["speed"]).to(device)[:, None, None]
        self.fault = torch.from_numpy(parameters["fault"]).to(device)[:, None]

    def reset(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return uniforms - 0.5, (uniforms - 0.5).float()

    def step(
        self, state: torch.Tensor, action: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        if bool((self.fault == RAISES).any()):
            raise RuntimeError("the motor is on fire")
        state = state + self.speed + 0.1 * action.double().reshape(state.shape)
        reward = -state[..., 0].abs().float()
        reward = torch.where(self.fault == DIVERGES, reward * 1e38, reward)
        return state, state.float(), reward, state[..., 0].abs() > 2


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
        return DriftBatch(parameters, device)


def registry() -> Registry:
    return Registry({"drift": Drift()})


def task(speed: float = 0.1, fault: int = 0) -> Task:
    return Task("drift", {"speed": np.asarray(speed), "fault": np.asarray(fault)})


def spec(name: str = "drift-maml", **settings: Any) -> LearnerSpec:
    family = Drift()
    return LearnerSpec(
        name=name,
        method="maml",
        family="drift",
        observation_space=family.observation_space,
        action_space=family.action_space,
        observation_shift=(0.0,),
        observation_scale=(1.0,),
        action_shift=(0.0,),
        action_scale=(1.0,),
        horizon=HORIZON,
        baseline=family.baseline,
        settings={"hidden_sizes": [4], "episodes_per_step": 3, "initial_rate": 0.1, **settings},
    )


def weights(of: LearnerSpec, seed: int = 0) -> bytes:
    data: bytes = safetensors.torch.save(build(of).initial_meta(seed))
    return data


def revision(folder: Path, of: LearnerSpec | None = None) -> RevisionRef:
    of = of or spec()
    data = weights(of)
    digest = hashlib.sha256(data).hexdigest()
    path = folder / digest
    path.write_bytes(data)
    return RevisionRef(f"learners/{of.name}/revisions/1", digest, str(path), of)


def attach(key: int, ref: RevisionRef, of: Task | None = None, **changes: Any) -> Attach:
    """A simulated session on ``of``; the client owns the environment where it is left out."""
    values: dict[str, Any] = {
        "seed": 7,
        "episodes_per_step": 3,
        "guard": False,
        "task": of,
        "simulator": Simulator.BATCH if of else None,
    }
    return Attach(key, ref, **{**values, **changes})


def core(**options: Any) -> EngineCore:
    return EngineCore(registry(), torch.device("cpu"), **{"device_rows": 64, **options})


def engine(**options: Any) -> LocalEngine:
    return LocalEngine(core(**options))
