"""A picture of what a learner does by now: how it adapts to tasks of the validation stream, for TensorBoard.

It adapts as sessions do, on streams of its own, so a training's numbers are the same with and without it.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors.torch
import torch

from innerloop.arrays import Array, Box
from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.domain import Simulator, Split, Task
from innerloop_server.evaluation.plan import Plan, draw_tasks, fixed_plan
from innerloop_server.evaluation.protocol import EvaluationResult, evaluate
from innerloop_server.learners.learner import Learner, Tensors
from innerloop_server.learners.registry import remembers
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import Registry

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURES = 10
"""In a training, evenly, the last at its end: enough to see it learn, at a cost that is not felt."""
FEWEST_UPDATES = 5
"""Between two pictures: fewer change nothing that can be seen."""
TASKS = 6
EPISODES = 3
"""Fresh ones of each task at each k."""
MOST_STEPS = 20
"""Adaptation steps that are shown at most."""
_SIZE, _DPI = (9.0, 3.2), 100


def due(update: int, updates: int) -> bool:
    """Whether a picture is wanted after ``update`` of ``updates``."""
    every = max(FEWEST_UPDATES, math.ceil(updates / PICTURES))
    return update % every == 0 or (update == updates and updates > every)


def shows(family: Family) -> bool:
    """Whether there is anything to see without environment actors, whom a trainer has no time for."""
    return Simulator.BATCH in family.simulators


def picture(registry: Registry, learner: Learner, meta: Tensors) -> Array:
    """How the learner adapts to a few validation tasks.

    Where an observation is two numbers, the paths before and after adaptation are beside the returns.

    Args:
        registry: where the learner's family is.
        learner: the method, bound to it.
        meta: its meta-parameters as they are now.

    Returns:
        [H, W, 3] uint8.
    """
    family = registry.get(learner.spec.family)
    plan = _plan(family, learner)
    tasks = draw_tasks(family, plan)
    return draw(family, tasks, _adapted(registry, learner, meta, plan, tasks))


def draw(family: Family, tasks: Sequence[Task], result: EvaluationResult) -> Array:
    """[H, W, 3] uint8.

    Args:
        family: whose tasks they are.
        tasks: M of them.
        result: with the trajectories of all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # heavy, and nobody else here draws
    from matplotlib.figure import Figure

    paths = isinstance(family.observation_space, Box) and family.observation_space.shape == (2,)
    figure = Figure(figsize=_SIZE if paths else (_SIZE[0] / 3, _SIZE[1]), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3 if paths else 1, squeeze=False)[0]
    _returns(panels[0], result.returns)
    last = result.returns.shape[1] - 1
    if paths:
        for ax, k in zip(panels[1:], (0, last), strict=True):
            _paths(ax, tasks, result, k)
        _same_limits(panels[1:])
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def _plan(family: Family, learner: Learner) -> Plan:
    fixed = fixed_plan(family, Split.VALIDATION, remembers=remembers(learner.spec))
    return replace(
        fixed,
        tasks=TASKS,
        steps=min(learner.inner_steps, MOST_STEPS),
        episodes_per_step=learner.episodes_per_step,
        evaluation_episodes=fixed.evaluation_episodes if family.supervision else EPISODES,
        guard=False,
        simulator=Simulator.BATCH,
    )


def _adapted(
    registry: Registry, learner: Learner, meta: Tensors, plan: Plan, tasks: Sequence[Task]
) -> EvaluationResult:
    device = next(iter(meta.values())).device
    weights = safetensors.torch.save({name: value.detach().cpu() for name, value in meta.items()})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "meta.safetensors"
        path.write_bytes(weights)
        ref = RevisionRef(learner.spec.name, hashlib.sha256(weights).hexdigest(), str(path), learner.spec)
        engine = LocalEngine(EngineCore(registry, torch.device(device), device_rows=plan.tasks))
        return asyncio.run(evaluate(engine, plan, tasks, ref, trajectories=plan.tasks))


def _returns(ax: Axes, returns: Array) -> None:
    steps = np.arange(returns.shape[1])
    ax.plot(steps, returns.T, color="0.75", linewidth=0.9, marker="." if len(steps) == 1 else None)
    ax.plot(steps, returns.mean(0), color="tab:blue", marker="o", linewidth=2)
    ax.set(title="return", xlabel="adaptation step", xticks=steps[:: math.ceil(len(steps) / 6)])


def _same_limits(panels: Sequence[Axes]) -> None:
    limits = np.array([(*ax.get_xlim(), *ax.get_ylim()) for ax in panels])
    low, high = limits.min(0), limits.max(0)
    for ax in panels:
        ax.set(xlim=(low[0], high[1]), ylim=(low[2], high[3]))


def _paths(ax: Axes, tasks: Sequence[Task], result: EvaluationResult, k: int) -> None:
    """The episodes of each task after ``k`` steps, the task's goal where it has one in the plane."""
    for index, task in enumerate(tasks):
        episodes = result.trajectories[index, k]
        colour = f"C{index}"
        for row, length in enumerate(episodes.lengths[0]):
            way = episodes.observations[0, row, :length]
            ax.plot(way[:, 0], way[:, 1], color=colour, alpha=0.7, linewidth=1.0)
        goal = np.asarray(task.parameters.get("goal", ()), np.float64)
        if goal.shape == (2,):
            ax.plot(*goal, marker="*", color=colour, markersize=11, markeredgecolor="black", markeredgewidth=0.6)
    steps = "1 step" if k == 1 else f"{k} steps"
    ax.set(title="before" if k == 0 else f"after {steps}")
    ax.set_aspect("equal", adjustable="box")
