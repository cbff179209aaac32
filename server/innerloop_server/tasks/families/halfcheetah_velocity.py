"""``halfcheetah-velocity``: run at a velocity nobody tells you (MAML / ProMP lineage, on HalfCheetah-v5)."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

from innerloop.arrays import Array, Arrays, Box
from innerloop_server.domain import Features, Task
from innerloop_server.tasks.family import Extra, Family

HORIZON = 200
MAX_VELOCITY = 3.0
"""Targets are uniform on [0, MAX_VELOCITY], in m/s."""
CONTROL_COST = 0.05
"""Weight of the squared action: 0.5 * 1e-1 in MAML and ProMP (Gymnasium's own default is 0.1)."""
OBSERVATION_SIZE = 17
ACTION_SIZE = 6


class VelocityReward(gymnasium.Wrapper[Array, Array, Array, Array]):
    """HalfCheetah with the lineage's reward, ``-|v - target| - 0.05 |a|^2``, where v is the mean velocity of the
    torso over the step (the change of x over 0.05 s). Observations come as float32.
    """

    def __init__(self, env: gymnasium.Env[Array, Array], target_velocity: float) -> None:
        """A task with this target.

        Args:
            env: Gymnasium's HalfCheetah.
            target_velocity: in m/s.
        """
        super().__init__(env)
        self.target_velocity = target_velocity
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVATION_SIZE,), np.float32)

    def set_task(self, parameters: Arrays) -> None:
        """Become another task from the next step on; spares compiling the model again (about 0.1 s)."""
        self.target_velocity = float(parameters["target_velocity"])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """As Gymnasium's."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation.astype(np.float32), info

    def step(self, action: Array) -> tuple[Array, SupportsFloat, bool, bool, dict[str, Any]]:
        """As Gymnasium's, with the other reward."""
        action = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        observation, _, terminated, truncated, info = self.env.step(action)
        run = -abs(float(info["x_velocity"]) - self.target_velocity)
        control = -CONTROL_COST * float(np.square(action).sum())
        info = {**info, "reward_forward": run, "reward_ctrl": control}
        return observation.astype(np.float32), run + control, terminated, truncated, info


class HalfCheetahVelocity(Family):
    """HalfCheetah-v5 with a hidden target velocity. Runs on actors only."""

    name = "halfcheetah-velocity"
    title = "Run at a hidden velocity (MuJoCo)"
    description = (
        "Gymnasium's HalfCheetah-v5 (MuJoCo, frame skip 5, 0.05 s a step, start noise 0.1). Hidden: target_velocity, "
        "uniform on [0, 3] m/s as in ProMP (MAML's paper draws from [0, 2]). Reward: -|v - target| - 0.05 |a|^2, "
        "actions clipped to [-1, 1], no scaling, no bonus: the form and control cost of MAML and ProMP; v is the "
        "change of x over the step, as in ProMP (MAML takes the velocity of the centre of mass). Observation: "
        "HalfCheetah-v5's 17 numbers, without x, as in ProMP. Never terminates; truncated after 200 steps as in MAML "
        "(ProMP: 100); discount 0.99. Not comparable number by number with results on older MuJoCo versions."
    )
    horizon = HORIZON
    discount = 0.99
    baseline = Features("linear")
    extra = Extra("mujoco", ("mujoco",))

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """``target_velocity``: a scalar."""
        return gymnasium.spaces.Dict({"target_velocity": gymnasium.spaces.Box(0.0, MAX_VELOCITY, (), np.float64)})

    @functools.cached_property
    def observation_space(self) -> Box:
        """Height, pitch and six joint angles; then nine velocities (x, z, pitch, joints)."""
        return Box.of(-np.inf, np.inf, (OBSERVATION_SIZE,))

    @functools.cached_property
    def action_space(self) -> Box:
        """Torques of the six joints, in units of their motors' strength."""
        return Box.of(-1.0, 1.0, (ACTION_SIZE,))

    @property
    def observation_scale(self) -> tuple[float, ...]:
        """Round numbers near the standard deviations that random actions give."""
        return (0.2, 0.5, *(0.4,) * 6, 1.0, 1.0, 2.0, *(7.0,) * 6)

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """See :class:`VelocityReward`.

        Raises:
            PreconditionFailed: MuJoCo is not installed; the message says how to get it.
        """
        self.extra.require(self.name)
        from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

        with _quiet_compiler():
            env = HalfCheetahEnv()
        return TimeLimit(VelocityReward(env, float(task.parameters["target_velocity"])), HORIZON)


@contextlib.contextmanager
def _quiet_compiler() -> Iterator[None]:
    """Drop MuJoCo's remarks on the model file while it is compiled.

    MuJoCo 4 calls an attribute of Gymnasium's half_cheetah.xml deprecated, and its default handler writes that to
    MUJOCO_LOG.TXT in the working directory, once an environment. Warnings of the simulation itself stay on.
    """
    import mujoco

    mujoco.set_mju_user_warning(lambda _: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)
