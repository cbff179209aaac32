"""What the MuJoCo families share: Gymnasium's robots, with a hidden part that the reward or the model holds."""

from __future__ import annotations

import abc
import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

from innerloop.arrays import Array, Arrays, Box
from innerloop_server.domain import Task
from innerloop_server.tasks.family import Extra, Family

HORIZON = 200
"""Steps in an episode, as in MAML, PEARL and VariBAD (Gymnasium's own limit is 1000)."""


class MujocoTask(gymnasium.Wrapper[Array, Array, Array, Array], abc.ABC):
    """A robot with hidden parameters. Actions are clipped, observations come as float32, and the reward is the sum of
    named terms, which ``info`` holds too.
    """

    def __init__(self, env: gymnasium.Env[Array, Array], parameters: Arrays) -> None:
        """A task with these parameters.

        Args:
            env: one of Gymnasium's MuJoCo environments.
            parameters: of the task, as the family names them.
        """
        super().__init__(env)
        actions, seen = env.action_space, env.observation_space
        assert isinstance(actions, gymnasium.spaces.Box)
        assert isinstance(seen, gymnasium.spaces.Box)
        self._low, self._high = actions.low.astype(np.float64), actions.high.astype(np.float64)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, seen.shape, np.float32)
        self.set_task(parameters)

    @abc.abstractmethod
    def set_task(self, parameters: Arrays) -> None:
        """Become another task, from the next reset on; spares compiling the model again (about 0.1 s)."""

    @abc.abstractmethod
    def terms(self, action: Array, info: Mapping[str, Any]) -> dict[str, float]:
        """The terms of a step's reward.

        Args:
            action: [A] float64, clipped.
            info: what Gymnasium's environment said of the step.
        """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """As Gymnasium's."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation.astype(np.float32), info

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """As Gymnasium's, with this task's reward."""
        action = np.clip(np.asarray(action, np.float64), self._low, self._high)
        observation, _, terminated, truncated, info = self.env.step(action)
        terms = self.terms(action, info)
        # Gymnasium's own terms would say what nobody is paid.
        info = {name: value for name, value in info.items() if not name.startswith("reward_")} | terms
        return observation.astype(np.float32), sum(terms.values()), bool(terminated), truncated, info


class DirectionReward(MujocoTask):
    """Go along a hidden direction: of Gymnasium's reward, the velocity in x becomes the velocity along it."""

    weight: ClassVar[float] = 1.0
    """Of the velocity, m/s."""

    def set_task(self, parameters: Arrays) -> None:
        """Point elsewhere: ``direction``, an angle in radians, 0 along x."""
        angle = float(parameters["direction"])
        self._along = np.cos(angle), np.sin(angle)

    def terms(self, action: Array, info: Mapping[str, Any]) -> dict[str, float]:  # noqa: ARG002 - the costs are Gymnasium's
        """Velocity along the direction; then Gymnasium's bonus and costs."""
        velocity = float(info["x_velocity"] * self._along[0] + info["y_velocity"] * self._along[1])
        return {"reward_forward": self.weight * velocity, **gymnasium_terms(info, "survive", "ctrl", "contact")}


def gymnasium_terms(info: Mapping[str, Any], *names: str) -> dict[str, float]:
    """Those of Gymnasium's reward terms, costs negative, as it keeps them in ``info``."""
    return {f"reward_{name}": float(info[f"reward_{name}"]) for name in names}


class MujocoFamily(Family):
    """One of Gymnasium's robots with something hidden. Runs on actors only."""

    horizon = HORIZON
    extra = Extra("mujoco", ("mujoco",))
    environments_change_task = True
    observation_size: ClassVar[int]
    action_size: ClassVar[int]
    action_limit: ClassVar[float] = 1.0
    task_type: ClassVar[type[MujocoTask]]

    @abc.abstractmethod
    def build(self) -> gymnasium.Env[Any, Any]:
        """Gymnasium's environment. The first to import MuJoCo."""

    @functools.cached_property
    def observation_space(self) -> Box:
        """What Gymnasium's environment shows, unbounded."""
        return Box.of(-np.inf, np.inf, (self.observation_size,))

    @functools.cached_property
    def action_space(self) -> Box:
        """Torques of the joints, in units of their motors' strength."""
        return Box.of(-self.action_limit, self.action_limit, (self.action_size,))

    @property
    def action_scale(self) -> tuple[float, ...]:
        """The motors' full strength."""
        return (self.action_limit,) * self.action_size

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """See ``task_type``.

        Raises:
            PreconditionFailed: MuJoCo is not installed; the message says how to get it.
        """
        self.extra.require(self.name)
        with quiet_compiler():
            env = self.build()
        return TimeLimit(self.task_type(env, task.parameters), self.horizon)


class DirectionFamily(MujocoFamily):
    """A robot that walks, with a hidden direction."""

    task_type = DirectionReward

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """``direction``: an angle, uniform on the whole circle."""
        return gymnasium.spaces.Dict({"direction": gymnasium.spaces.Box(0.0, 2 * np.pi, (), np.float64)})


@contextlib.contextmanager
def quiet_compiler() -> Iterator[None]:
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
