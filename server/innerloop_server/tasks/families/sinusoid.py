"""``sinusoid``: regression of a sine wave from a few points (MAML, Finn et al. 2017, section 5.1)."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from innerloop.arrays import Array, Arrays, Box
from innerloop_server.domain import Reference, Supervision, Task
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.families.supervised import Example, supervised_env, whole
from innerloop_server.tasks.family import Family

if TYPE_CHECKING:
    import torch

AMPLITUDE = (0.1, 5.0)
PHASE = (0.0, math.pi)
REACH = 5.0
"""Inputs are uniform on [-REACH, REACH]; no target lies outside it either."""


class Sinusoid(Family):
    """MAML's sine waves. Hidden: amplitude and phase."""

    name = "sinusoid"
    title = "Continue a sine wave from a few of its points"
    description = (
        "An example is x, uniform on [-5, 5], and the action a prediction of amplitude * sin(x - phase). Hidden: "
        "amplitude, uniform on [0.1, 5], and phase, uniform on [0, pi]. Horizon 1: one example an episode; its "
        "feedback is the target, without noise. Reward: minus the squared error. As in MAML (Finn et al. 2017, "
        "section 5.1), but that predictions are clipped to [-5, 5], which no target leaves."
    )
    horizon = 1
    supervision = Supervision.REGRESSION

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """``amplitude`` and ``phase``."""
        box = gymnasium.spaces.Box
        return gymnasium.spaces.Dict(
            {"amplitude": box(*AMPLITUDE, (), np.float64), "phase": box(*PHASE, (), np.float64)}
        )

    @functools.cached_property
    def observation_space(self) -> Box:
        """One number, x."""
        return Box.of(-REACH, REACH, (1,))

    @functools.cached_property
    def action_space(self) -> Box:
        """The prediction."""
        return Box.of(-REACH, REACH, (1,))

    @functools.cached_property
    def references(self) -> tuple[Reference, ...]:
        """Minus mean squared errors over tasks and inputs, in closed form."""
        return (
            Reference("constant", -constant_error(), "closed form: the best single number"),
            Reference("memoryless", -memoryless_error(), "closed form: the mean wave, -(2 / pi) E[amplitude] cos x"),
            Reference("oracle", 0.0, "exact: the wave itself"),
        )

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """See :class:`~innerloop_server.tasks.families.supervised.SupervisedEnv`."""
        amplitude, phase = float(task.parameters["amplitude"]), float(task.parameters["phase"])

        def example(label: int, uniforms: Array) -> Example:  # noqa: ARG001 - regression knows no labels
            x = REACH * (2 * whole(uniforms[0]) - 1)
            return np.array([x], np.float32), np.array([amplitude * math.sin(x - phase)], np.float32)

        return supervised_env(self, example, 1)

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        """See :class:`~innerloop_server.tasks.families.sinusoid_batch.SinusoidBatch`."""
        from innerloop_server.tasks.families.sinusoid_batch import SinusoidBatch

        return SinusoidBatch(parameters["amplitude"], parameters["phase"], REACH, device)


def constant_error() -> float:
    """Mean squared error of the best constant: 4.155.

    The mean square of the targets is E[a^2] / 2: cos 2 phase and sin 2 phase average to nothing over half a turn. Their
    mean is E[a] (2 / pi) (-E[cos x]), because E[sin phase] = 2 / pi and E[cos phase] = 0.
    """
    mean = _mean_amplitude() * (2 / math.pi) * math.sin(REACH) / REACH
    return _mean_square() - mean**2


def memoryless_error() -> float:
    """Mean squared error of the best function of x alone, the mean wave: 3.006."""
    cos_square = (1 + math.sin(2 * REACH) / (2 * REACH)) / 2
    return _mean_square() - (_mean_amplitude() * 2 / math.pi) ** 2 * cos_square


def _mean_amplitude() -> float:
    return sum(AMPLITUDE) / 2


def _mean_square() -> float:
    """Of the targets."""
    low, high = AMPLITUDE
    return (high**3 - low**3) / (3 * (high - low)) / 2
