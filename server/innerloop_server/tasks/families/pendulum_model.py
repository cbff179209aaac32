"""``pendulum-model``: what a pendulum with hidden constants does next; a model to plan with, from a few transitions."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from innerloop.arrays import Array, Arrays, Box
from innerloop_server.domain import Reference, Supervision, Task
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.families.pendulum_dynamics import MAX_TORQUE, PendulumDynamics, PendulumDynamicsEnv
from innerloop_server.tasks.families.supervised import Example, supervised_env, whole
from innerloop_server.tasks.family import Family

if TYPE_CHECKING:
    import torch

SPEED = 5.0
"""Speeds are uniform on [-SPEED, SPEED] rad/s: no step from there reaches Gymnasium's clip at 8."""
DT = 0.05
"""Seconds of a step, as in Pendulum-v1."""


class PendulumModel(Family):
    """One step of ``pendulum-dynamics`` as regression."""

    name = "pendulum-model"
    title = "Predict the next state of a pendulum with hidden constants"
    description = (
        "An example is a state and a command: (cos, sin, angular velocity, command), the angle uniform on the circle, "
        "the velocity on [-5, 5] rad/s, the command on [-2, 2]. The action predicts by how much cos, sin and angular "
        "velocity change in one step of 0.05 s. Hidden, as in pendulum-dynamics and with the same ranges: mass, "
        "length, gravity, torque_gain and torque_sign. The physics is that of Gymnasium's Pendulum-v1. Horizon 1: one "
        "example an episode; its feedback is the change. Reward: minus the mean squared error over the three numbers, "
        "nearly all of which is about the velocity (in rad/s). The change is asked for instead of the next state "
        "because it alone depends on what is hidden."
    )
    horizon = 1
    supervision = Supervision.REGRESSION

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """Those of ``pendulum-dynamics``."""
        return PendulumDynamics().parameter_space

    @functools.cached_property
    def observation_space(self) -> Box:
        """Cosine and sine of the angle (0: upright), angular velocity in rad/s, commanded torque."""
        high = np.array([1.0, 1.0, SPEED, MAX_TORQUE])
        return Box.of(-high, high, (4,))

    @functools.cached_property
    def action_space(self) -> Box:
        """The change of the first three; bounds that no task reaches."""
        high = np.array([0.5, 0.5, 3.0])
        return Box.of(-high, high, (3,))

    @property
    def observation_scale(self) -> tuple[float, ...]:
        """All within [-1, 1]."""
        return (1.0, 1.0, SPEED, MAX_TORQUE)

    @property
    def action_scale(self) -> tuple[float, ...]:
        """About the standard deviations of the targets."""
        return (0.1, 0.1, 0.6)

    @functools.cached_property
    def references(self) -> tuple[Reference, ...]:
        """Minus mean squared errors over tasks and examples."""
        constant, memoryless = reference_errors()
        return (
            Reference("constant", -constant, "quadrature: the best three numbers"),
            Reference("memoryless", -memoryless, "quadrature: the change expected over all pendulums"),
            Reference("oracle", 0.0, "exact: the equations"),
        )

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """See :class:`~innerloop_server.tasks.families.supervised.SupervisedEnv`."""
        physics = PendulumDynamics().make(task).unwrapped
        assert isinstance(physics, PendulumDynamicsEnv)

        def example(label: int, uniforms: Array) -> Example:  # noqa: ARG001 - regression knows no labels
            theta = math.pi * (2 * whole(uniforms[0]) - 1)
            speed = SPEED * (2 * uniforms[1] - 1)
            command = MAX_TORQUE * (2 * uniforms[2] - 1)
            physics.state = np.array([theta, speed])
            physics.step(np.array([command]))
            next_theta, next_speed = physics.state
            change = (
                math.cos(next_theta) - math.cos(theta),
                math.sin(next_theta) - math.sin(theta),
                next_speed - speed,
            )
            seen = (math.cos(theta), math.sin(theta), speed, command)
            return np.array(seen, np.float32), np.array(change, np.float32)

        return supervised_env(self, example, 3)

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        """See :class:`~innerloop_server.tasks.families.pendulum_model_batch.PendulumModelBatch`."""
        from innerloop_server.tasks.families.pendulum_model_batch import PendulumModelBatch

        return PendulumModelBatch(parameters, device, speed=SPEED, command=MAX_TORQUE)


def reference_errors() -> tuple[float, float]:
    """Mean squared errors, over the three targets, of the best constant and of the best function of the example.

    Both predict means: the error of a mean is the mean of the squares less the square of the mean. The integrals are
    products of Gauss rules, the angle's of equal steps; integrands are smooth, and more nodes change no digit shown.
    """
    space = PendulumDynamics().parameter_space
    ranges = {
        name: (float(part.low), float(part.high))
        for name, part in space.items()
        if isinstance(part, gymnasium.spaces.Box)
    }
    (mass, mass_p), (length, length_p), (gravity, gravity_p), (gain, gain_p) = (
        _gauss(*ranges[name], nodes) for name, nodes in (("mass", 7), ("length", 7), ("gravity", 3), ("torque_gain", 3))
    )
    m, r, g, k = (x.ravel() for x in np.meshgrid(mass, length, gravity, np.append(-gain, gain), indexing="ij"))
    gain_p = np.append(gain_p, gain_p) / 2  # both signs are equally likely
    hidden_p = np.einsum("i,j,k,l->ijkl", mass_p, length_p, gravity_p, gain_p).ravel()
    speed, speed_p = _gauss(-SPEED, SPEED, 4)
    command, command_p = _gauss(-MAX_TORQUE, MAX_TORQUE, 4)
    angle = np.linspace(-math.pi, math.pi, 16, endpoint=False)
    theta, omega, u = (x.ravel()[:, None] for x in np.meshgrid(angle, speed, command, indexing="ij"))
    seen_p = np.einsum("i,j,k->ijk", np.full(len(angle), 1 / len(angle)), speed_p, command_p).ravel()

    faster = DT * (3 * g / (2 * r) * np.sin(theta) + 3 / (m * r**2) * k * u)  # [examples, pendulums]
    after = theta + DT * (omega + faster)
    targets = np.stack([np.cos(after) - np.cos(theta), np.sin(after) - np.sin(theta), faster])
    square = np.mean(targets**2 @ hidden_p @ seen_p)
    expected = targets @ hidden_p  # [3, examples]
    constant = square - np.mean((expected @ seen_p) ** 2)
    return float(constant), float(square - np.mean(expected**2 @ seen_p))


def _gauss(low: float, high: float, nodes: int) -> tuple[Array, Array]:
    """Points and probabilities of a Gauss-Legendre rule for a uniform variable."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return low + (high - low) * (points + 1) / 2, weights / 2
