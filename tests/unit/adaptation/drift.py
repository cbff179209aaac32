"""The drift family on the device: its batch face, learners on it, and engines that serve them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from drift_family import DIVERGES, HORIZON, RAISES, Drift, registry

from innerloop.arrays import Arrays
from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.orders import Answer, Attach, RevisionRef
from innerloop_server.domain import LearnerSpec, Simulator, Task
from innerloop_server.learners.registry import build
from innerloop_server.tasks.batch import TaskBatch

SOURCE = "drift_family:registry"
__all__ = ["DIVERGES", "HORIZON", "RAISES", "Drift", "registry"]


class DriftBatch(TaskBatch):
    """B tasks. Ends where the point leaves [-2, 2]; pays minus the distance from zero."""

    reset_uniforms = 1

    def __init__(self, parameters: Arrays, device: torch.device) -> None:
        self.speed = torch.from_numpy(parameters["speed"]).to(device)[:, None, None]
        self.fault = torch.from_numpy(parameters["fault"]).to(device)[:, None]

    def reset(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return uniforms - 0.5, (uniforms - 0.5).float()

    def step(
        self, state: torch.Tensor, action: torch.Tensor, uniforms: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        if bool((self.fault == RAISES).any()):
            raise RuntimeError("the motor is on fire")
        state = state + self.speed + 0.1 * action.double().reshape(state.shape)
        reward = -state[..., 0].abs().float()
        reward = torch.where(self.fault == DIVERGES, torch.nan * reward, reward)
        return state, state.float(), reward, state[..., 0].abs() > 2


def task(speed: float = 0.1, fault: int = 0) -> Task:
    return Task("drift", {"speed": np.asarray(speed), "fault": np.asarray(fault)})


REMEMBERING: dict[str, object] = {
    "encoder_sizes": [5],
    "memory_size": 6,
    "hidden_sizes": [4],
    "last_layer_scale": 1.0,
}
"""Settings of a small learner that remembers; its memory matters from the start."""


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


def drain(core: EngineCore) -> list[Answer]:
    """All that a core has to say until it is idle."""
    answers = []
    while not core.idle:
        answers += core.run()
    return answers
