"""Supervised families that are quick to run: which corner of a turned polygon a point is near to, and a line.

Environment actors find them under ``supervised_support:registry``; torch is imported with the batch faces alone.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from innerloop.arrays import Array, Arrays, Box, Discrete, Space
from innerloop_server.domain import LearnerSpec, Supervision, Task
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.families.supervised import SupervisedEnv
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import Registry

if TYPE_CHECKING:
    import torch

    from innerloop_server.adaptation.orders import RevisionRef


class ToyLabels(Family):
    """Points near the corners of a polygon that is turned by a hidden angle; the corner is the label."""

    name = "toy-labels"
    title = "Which corner"
    description = "For tests."
    horizon = 1
    supervision = Supervision.CLASSIFICATION
    parameter_space = gymnasium.spaces.Dict({"angle": gymnasium.spaces.Box(0.0, 2 * math.pi, (), np.float64)})
    observation_space: Space = Box.of(-2.0, 2.0, (2,))
    action_space: Space = Discrete(2)

    def __init__(self, ways: int = 2) -> None:
        self.ways = ways
        self.action_space = Discrete(ways)

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        angle = float(task.parameters["angle"])

        def example(label: int, u: Array) -> tuple[Array, Array]:
            turned = angle + 2 * math.pi * label / self.ways + u[1] - 0.5
            radius = 0.5 + u[0]
            return np.array([radius * math.cos(turned), radius * math.sin(turned)], np.float32), np.float32([label])

        return SupervisedEnv(example, 2, self.observation_space, self.action_space)  # type: ignore[arg-type]

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        import torch

        from innerloop_server.tasks.families.supervised_batch import SupervisedBatch, labels_of

        angle = torch.tensor(parameters["angle"], dtype=torch.float64, device=device)[:, None]
        ways = self.ways

        class Labels(SupervisedBatch):
            reset_uniforms, labels, shape = 2, True, (2,)

            def examples(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                label = labels_of(uniforms.shape[1], ways, device)
                turned = angle + 2 * math.pi * label / ways + uniforms[..., 1] - 0.5
                point = (0.5 + uniforms[..., :1]) * torch.stack([turned.cos(), turned.sin()], -1)
                return point.float(), label[None, :, None].float().expand(*turned.shape, 1)

        return Labels()


class ToyLine(Family):
    """Two targets, both linear in x; the slope is hidden. Predictions are twice the raw action, shifted."""

    name = "toy-line"
    title = "Continue a line"
    description = "For tests."
    horizon = 1
    supervision = Supervision.REGRESSION
    parameter_space = gymnasium.spaces.Dict({"slope": gymnasium.spaces.Box(-2.0, 2.0, (), np.float64)})
    observation_space: Space = Box.of(-1.0, 1.0, (1,))
    action_space: Space = Box.of(-3.0, 3.0, (2,))
    action_shift = (0.5, 0.0)
    action_scale = (2.0, 1.0)

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        slope = float(task.parameters["slope"])

        def example(_: int, u: Array) -> tuple[Array, Array]:
            x = 2 * u[1] - 1
            return np.float32([x]), np.array([slope * x, slope], np.float32)

        return SupervisedEnv(example, 2, self.observation_space, self.action_space)  # type: ignore[arg-type]

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        import torch

        from innerloop_server.tasks.families.supervised_batch import SupervisedBatch

        slope = torch.tensor(parameters["slope"], dtype=torch.float64, device=device)[:, None]

        class Line(SupervisedBatch):
            reset_uniforms, labels, shape = 2, False, (1,)

            def examples(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                x = 2 * uniforms[..., 1] - 1
                targets = torch.stack([slope * x, slope.expand_as(x)], -1)
                return x[..., None].float(), targets.float()

        return Line()


FAMILIES: dict[str, Family] = {family.name: family for family in (ToyLabels(), ToyLine())}
TASKS = {
    "toy-labels": Task("toy-labels", {"angle": np.asarray(0.7)}),
    "toy-line": Task("toy-line", {"slope": np.asarray(1.5)}),
}


def registry() -> Registry:
    return Registry(dict(FAMILIES))


def spec(family: str, **settings: Any) -> LearnerSpec:
    """A small learner of a toy family."""
    from innerloop_server.training.specs import spec_for

    small = {"hidden_sizes": [8], "inner_steps": 2, "episodes_per_step": 4, "initial_rate": 0.1, "rates": "fixed"}
    return spec_for(FAMILIES[family], settings={**small, **settings})


def weights(of: LearnerSpec, seed: int = 0) -> bytes:
    import safetensors.torch

    from innerloop_server.learners.registry import build

    data: bytes = safetensors.torch.save(build(of).initial_meta(seed))
    return data


def revision(folder: Path, of: LearnerSpec) -> RevisionRef:
    """An untrained revision, on disk as the engine reads it."""
    from innerloop_server.adaptation.orders import RevisionRef

    data = weights(of)
    digest = hashlib.sha256(data).hexdigest()
    path = folder / digest
    path.write_bytes(data)
    return RevisionRef(f"learners/{of.name}/revisions/1", digest, str(path), of)
