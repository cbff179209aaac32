"""Any Gymnasium environment as a family::

    class Gravity(GymnasiumFamily):
        name = "pendulum-gravity"
        title = "Swing up on an unknown planet"
        description = "Pendulum-v1. Hidden: the gravity g, uniform on [2, 20] m/s^2."
        env_id = "Pendulum-v1"
        parameter_space = gymnasium.spaces.Dict({"g": gymnasium.spaces.Box(2.0, 20.0, (), np.float64)})
        horizon = 200

The environment is made when somebody asks what it is like or runs it, never at import.
"""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

from innerloop.arrays import Arrays, Box, Discrete, Space
from innerloop_server.domain import Task
from innerloop_server.errors import InvalidField, PreconditionFailed, say
from innerloop_server.tasks.conformed import Conformed, carried
from innerloop_server.tasks.family import Family

LARGEST_BOUND = 1e6
"""An observation's bound past this says "any number" rather than what to expect."""

Environment = gymnasium.Env[Any, Any]


class Apply(enum.StrEnum):
    """How a task's parameters reach the environment."""

    ARGUMENTS = "arguments"
    """As keyword arguments of its constructor."""
    ATTRIBUTES = "attributes"
    """As attributes of the unwrapped environment, set before its first reset. What an environment derived from one in
    its constructor (CartPole-v1: ``polemass_length`` from ``length``) does not follow: use FUNCTION there."""
    FUNCTION = "function"
    """By :meth:`GymnasiumFamily.configure`, which the family writes."""


class GymnasiumFamily(Family):
    """A family whose tasks are one Gymnasium environment with different parameters. Runs on actors.

    Besides what every family says (but for its observation and action space, which are the environment's), a subclass
    gives ``env_id`` and, where parameters are no constructor arguments, ``apply``. Scalars reach the environment as
    ``float`` and ``int``, everything else as arrays. A family with an ``extra`` had better name both spaces, so that it
    can be described where the extra is missing.
    """

    env_id: str | Callable[..., Environment]
    """Of a registered environment (``module:Name-v0`` imports a module first), or anything that makes one."""
    apply: Apply = Apply.ARGUMENTS

    def __init__(self) -> None:
        """Check what can be checked without making the environment.

        Raises:
            InvalidField: a parameter's name or space, or the horizon, cannot be.
        """
        # looked up on the class: a plain function there would come bound to this family
        source = vars(self).get("env_id") or inspect.getattr_static(type(self), "env_id")
        self._source: str | Callable[..., Environment] = getattr(source, "__func__", source)
        check_parameters(self.parameter_space.spaces, self.apply)
        if self.horizon < 1:
            raise InvalidField("horizon", f"{self.horizon} is too short; give at least 1")

    @functools.cached_property
    def observation_space(self) -> Space:
        """The environment's own; made once to be looked at.

        Raises:
            PreconditionFailed: it cannot be made, or has a space that cannot be carried.
        """
        return self._spaces[0]

    @functools.cached_property
    def action_space(self) -> Space:
        """The environment's own; see :attr:`observation_space`."""
        return self._spaces[1]

    @property
    def observation_shift(self) -> tuple[float, ...]:
        """The middle of every number that has bounds."""
        return _middle_and_half(self.observation_space)[0]

    @property
    def observation_scale(self) -> tuple[float, ...]:
        """Half the range of every number that has bounds."""
        return _middle_and_half(self.observation_space)[1]

    @property
    def action_shift(self) -> tuple[float, ...]:
        """The middle of every number that has bounds."""
        return () if isinstance(self.action_space, Discrete) else _middle_and_half(self.action_space)[0]

    @property
    def action_scale(self) -> tuple[float, ...]:
        """Half the range of every number that has bounds."""
        return () if isinstance(self.action_space, Discrete) else _middle_and_half(self.action_space)[1]

    def configure(self, environment: Environment, parameters: Mapping[str, Any]) -> None:
        """Make ``environment`` (fresh, not yet reset) the task with these parameters; for :attr:`Apply.FUNCTION`."""
        raise NotImplementedError(f"{type(self).__name__} applies its parameters by a function and must have configure")

    def make(self, task: Task) -> Environment:
        """The environment with the task's parameters, ended after ``horizon`` steps.

        Raises:
            PreconditionFailed: the family's extra is missing.
            InvalidField: an attribute that the environment does not have.
            Exception: whatever the environment raises.
        """
        if self.extra is not None:
            self.extra.require(self.name)
        parameters = plain(task.parameters)
        arguments = parameters if self.apply is Apply.ARGUMENTS else {}
        environment: Environment
        if isinstance(self._source, str):
            environment = gymnasium.make(
                self._source, max_episode_steps=self.horizon, disable_env_checker=True, **arguments
            )
        else:
            environment = TimeLimit(self._source(**arguments), self.horizon)
        if self.apply is Apply.ATTRIBUTES:
            set_attributes(environment, parameters)
        elif self.apply is Apply.FUNCTION:
            self.configure(environment, parameters)
        return Conformed.around(environment)

    @functools.cached_property
    def _spaces(self) -> tuple[Space, Space]:
        try:
            drawn = self.check(self.sample(np.random.default_rng(0)))
            environment = self.make(Task(self.name, drawn))
            try:
                observation = carried(environment.observation_space, "observation_space")
                return observation, carried(environment.action_space, "action_space")
            finally:
                environment.close()
        except PreconditionFailed:
            raise
        except (Exception, SystemExit) as error:  # foreign code may raise anything
            raise PreconditionFailed(
                f"family {self.name} cannot be used: {say(error)}", reason="FAMILY_BROKEN", facts={"family": self.name}
            ) from error


def check_parameters(parameters: Mapping[str, gymnasium.Space[Any]], apply: Apply) -> None:
    """Refuse parameters that no task can have.

    Raises:
        InvalidField: there are none; a name that is no public identifier, or that Gymnasium itself uses; a space that
            is neither Box nor Discrete from 0; a Box of numbers that are not float64; names ``parameters.<name>``.
    """
    if not parameters:
        raise InvalidField("parameters", "there are none: every task would be the same; name at least one")
    for name, space in parameters.items():
        field = f"parameters.{name}"
        if apply is not Apply.FUNCTION and (not name.isidentifier() or name.startswith("_")):
            raise InvalidField(field, "is no public name of Python; parameters are arguments or attributes")
        if name in _GYMNASIUMS.get(apply, ()):
            raise InvalidField(field, "belongs to Gymnasium, not to the environment; choose another")
        if isinstance(space, gymnasium.spaces.Box):
            if space.dtype != np.float64:
                raise InvalidField(field, f"is a Box of {space.dtype}; give its dtype as np.float64")
        elif not isinstance(space, gymnasium.spaces.Discrete) or space.start != 0:
            raise InvalidField(field, f"{space} is neither a Box nor a Discrete that starts at 0")


def plain(parameters: Arrays) -> dict[str, Any]:
    """Parameters as an environment's author would write them: numbers where they have no dimensions."""
    return {name: np.asarray(x).item() if np.ndim(x) == 0 else np.array(x) for name, x in parameters.items()}


def set_attributes(environment: Environment, values: Mapping[str, Any]) -> None:
    """Set attributes that the unwrapped environment has already.

    Raises:
        InvalidField: it has none of that name, or a method.
    """
    inner = environment.unwrapped
    for name, value in values.items():
        if not hasattr(inner, name) or callable(getattr(inner, name)):
            raise InvalidField(f"parameters.{name}", f"{type(inner).__name__} has no such attribute to set")
        setattr(inner, name, value)


def _middle_and_half(space: Space) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Shift and scale that bring what has bounds to [-1, 1] and leave the rest; of a Discrete, nothing."""
    if not isinstance(space, Box):
        return (0.0,) * space.n, (1.0,) * space.n
    low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
    bounded = (np.abs(low) < LARGEST_BOUND) & (np.abs(high) < LARGEST_BOUND) & (high > low)
    low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    return tuple(((low + high) / 2).tolist()), tuple(((high - low) / 2).tolist())


_GYMNASIUMS: Mapping[Apply, frozenset[str]] = {
    Apply.ARGUMENTS: frozenset({"render_mode"}),
    Apply.ATTRIBUTES: frozenset(name for name in dir(gymnasium.Env) if not callable(getattr(gymnasium.Env, name)))
    | frozenset(gymnasium.Env.__annotations__),
}
"""Names that Gymnasium gives a meaning of its own; methods are no attributes to set anyway."""
