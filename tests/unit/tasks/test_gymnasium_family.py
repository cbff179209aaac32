from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv
from gymnasium.utils.env_checker import check_env

from innerloop.arrays import Box, Discrete
from innerloop_server.domain import Simulator, Split, Task
from innerloop_server.errors import InvalidField, PreconditionFailed
from innerloop_server.tasks.conformed import Conformed
from innerloop_server.tasks.family import Extra
from innerloop_server.tasks.gymnasium_family import Apply, GymnasiumFamily, plain
from innerloop_server.tasks.sampling import custom_task, sample_task

NUMBER = gymnasium.spaces.Box(0.5, 2.0, (), np.float64)


class Base(GymnasiumFamily):
    name = "some-family"
    title = "For tests"
    description = "For tests."
    horizon = 7
    parameter_space = gymnasium.spaces.Dict({"g": gymnasium.spaces.Box(2.0, 20.0, (), np.float64)})
    env_id: Any = "Pendulum-v1"


class Attributes(Base):
    parameter_space = gymnasium.spaces.Dict({"length": NUMBER, "masscart": NUMBER})
    env_id = "CartPole-v1"
    apply = Apply.ATTRIBUTES


class Function(Base):
    """What attributes cannot do: keep what CartPole derives from them."""

    parameter_space = gymnasium.spaces.Dict({"length": NUMBER})
    env_id = CartPoleEnv
    apply = Apply.FUNCTION

    def configure(self, environment: gymnasium.Env[Any, Any], parameters: Mapping[str, Any]) -> None:
        inner: Any = environment.unwrapped
        inner.length = parameters["length"]
        inner.polemass_length = inner.masspole * inner.length


class Odd(gymnasium.Env[Any, Any]):
    """Spaces that are whatever a test wants, in dtypes that policies do not speak."""

    def __init__(self, sees: Any = None, does: Any = None, level: int = 0) -> None:
        self.observation_space = sees or gymnasium.spaces.Box(0, 255, (2, 3), np.uint8)
        self.action_space = does or gymnasium.spaces.Box(-0.1, 0.1, (1,), np.float64)
        self.level = level
        self.taken: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.full((2, 3), 7, np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.taken = action
        return np.full((2, 3), 9, np.uint8), 0.0, False, False, {"success": True}


class Levels(Base):
    parameter_space = gymnasium.spaces.Dict({"level": gymnasium.spaces.Discrete(3)})
    env_id = Odd


def odd(sees: Any, does: Any) -> type[Base]:
    class Family(Levels):
        env_id = staticmethod(lambda level: Odd(sees, does, level))

    return Family


def test_constructor_arguments() -> None:
    family = Base()
    env = family.make(custom_task(family, {"g": np.array(3.25)}))
    assert type(env.unwrapped.g) is float  # type: ignore[attr-defined]
    assert env.unwrapped.g == 3.25  # type: ignore[attr-defined]
    assert family.simulators == (Simulator.ACTORS,)
    assert family.observation_space == Box.of(np.array([-1, -1, -8]), np.array([1, 1, 8]), (3,))
    assert family.action_space == Box.of(-2, 2, (1,))


def test_attributes() -> None:
    family = Attributes()
    env = family.make(custom_task(family, {"length": np.array(1.5), "masscart": np.array(0.75)}))
    inner: Any = env.unwrapped
    assert (inner.length, inner.masscart) == (1.5, 0.75)
    assert inner.polemass_length == 0.1 * 0.5  # the default's: it was derived before
    assert family.action_space == Discrete(2)


def test_a_function_and_a_class() -> None:
    family = Function()
    env = family.make(custom_task(family, {"length": np.array(1.5)}))
    assert env.unwrapped.polemass_length == pytest.approx(0.1 * 1.5)  # type: ignore[attr-defined]


def test_its_steps_are_the_environments_own() -> None:
    family = Base()
    env = family.make(custom_task(family, {"g": np.array(5.0)}))
    twin = PendulumEnv(g=5.0)
    np.testing.assert_array_equal(env.reset(seed=3)[0], twin.reset(seed=3)[0])
    for action in np.float32([[0.5], [-2.0], [1.25]]):
        mine, its = env.step(action), twin.step(action)
        np.testing.assert_array_equal(mine[0], its[0])
        assert mine[1] == its[1]


@pytest.mark.parametrize("kind", [Base, Attributes, Function, Levels])
def test_episodes_end_at_the_horizon_and_gymnasiums_checker_is_content(kind: type[Base]) -> None:
    family = kind()
    env = family.make(sample_task(family, 0, Split.TRAIN, 0))
    env.reset(seed=0)
    steps = 1
    while not any(env.step(np.zeros(1, np.float32) if isinstance(family.action_space, Box) else steps % 2)[2:4]):
        steps += 1
    assert steps == family.horizon
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(A Box observation space m|is different from the unwrapped|we recommend)")
        check_env(family.make(sample_task(family, 0, Split.TRAIN, 1)), skip_render_check=True)


def test_numbers_are_cast_both_ways() -> None:
    family = Levels()
    env = family.make(custom_task(family, {"level": np.array(2)}))
    assert isinstance(env, Conformed)
    inner: Any = env.unwrapped
    assert inner.level == 2
    assert type(inner.level) is int
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (2, 3), np.float32)
    assert env.action_space.dtype == np.float32
    seen, _ = env.reset(seed=0)
    assert seen.dtype == np.float32
    np.testing.assert_array_equal(seen, np.full((2, 3), 7))
    seen, _, _, _, info = env.step(env.action_space.high)  # float32(0.1) is more than 0.1
    assert inner.taken == 0.1
    assert inner.taken.dtype == np.float64
    np.testing.assert_array_equal(seen, np.full((2, 3), 9))
    assert info == {"success": True}


def test_what_needs_no_cast_is_not_wrapped() -> None:
    assert not isinstance(Base().make(sample_task(Base(), 0, Split.TRAIN, 0)), Conformed)


def test_normalisers_come_from_bounds_where_there_are_any() -> None:
    assert Base().observation_scale == (1.0, 1.0, 8.0)
    assert Base().action_scale == (2.0,)
    cartpole = Attributes()
    assert cartpole.observation_scale == pytest.approx((4.8, 1.0, 0.41887903, 1.0))
    assert cartpole.observation_shift == (0.0,) * 4
    assert (cartpole.action_scale, cartpole.action_shift) == ((), ())
    assert (Levels().observation_shift, Levels().observation_scale) == ((127.5,) * 6, (127.5,) * 6)
    seen = odd(gymnasium.spaces.Discrete(4), gymnasium.spaces.Box(np.float32([0.0]), np.float32([3e38])))()
    assert (seen.observation_scale, seen.action_scale, seen.action_shift) == ((1.0,) * 4, (1.0,), (0.0,))

    class Own(Base):
        observation_scale = (3.0, 3.0, 3.0)

    assert Own().observation_scale == (3.0, 3.0, 3.0)


@pytest.mark.parametrize(
    ("sees", "does", "told"),
    [
        (gymnasium.spaces.MultiBinary(3), None, "observation_space: MultiBinary\\(3\\) cannot be carried; wrap the"),
        (gymnasium.spaces.Discrete(3, start=1), None, "observation_space: .* cannot be carried; wrap"),
        (gymnasium.spaces.Dict(a=NUMBER), None, "observation_space: Dict\\(.*FlattenObservation"),
        (gymnasium.spaces.Box(0, 1, (), np.float32), None, "observation_space: .* has no dimensions"),
        (None, gymnasium.spaces.MultiDiscrete([2, 3]), "action_space: MultiDiscrete.* cannot be carried"),
        (None, gymnasium.spaces.Box(0, 9, (2,), np.int64), "action_space: .* takes whole numbers"),
    ],
)
def test_spaces_that_cannot_be_carried(sees: Any, does: Any, told: str) -> None:
    family = odd(sees, does)()
    with pytest.raises(PreconditionFailed, match=f"family some-family cannot be used: {told}") as caught:
        assert family.observation_space
    assert caught.value.reason == "FAMILY_BROKEN"


class Unregistered(Base):
    env_id = "NoSuchThing-v0"


class Wrongheaded(Attributes):
    parameter_space = gymnasium.spaces.Dict({"wheels": NUMBER})


class Method(Attributes):
    parameter_space = gymnasium.spaces.Dict({"step": NUMBER})


class Forgetful(Base):
    apply = Apply.FUNCTION


class Needy(Base):
    extra = Extra("sim", ("no_such_module",), "theirs")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (Unregistered, "NameNotFound: Environment `NoSuchThing`"),
        (Wrongheaded, "parameters.wheels: CartPoleEnv has no such attribute to set"),
        (Method, "parameters.step: CartPoleEnv has no such attribute to set"),
        (Forgetful, "NotImplementedError: Forgetful .* must have configure"),
        (Needy, "some-family needs no_such_module: pip install 'theirs\\[sim\\]'"),
    ],
)
def test_an_environment_that_cannot_be_made_is_told_when_it_is_asked_for(kind: type[Base], told: str) -> None:
    family = kind()
    with pytest.raises(PreconditionFailed, match=told):
        assert family.observation_space


@pytest.mark.parametrize(
    ("spaces", "field"),
    [
        ({}, "parameters"),
        ({"_g": NUMBER}, "parameters._g"),
        ({"no name": NUMBER}, "parameters.no name"),
        ({"g": gymnasium.spaces.Box(0, 1, (), np.float32)}, "parameters.g"),
        ({"g": gymnasium.spaces.Discrete(2, start=1)}, "parameters.g"),
        ({"g": gymnasium.spaces.MultiBinary(2)}, "parameters.g"),
    ],
)
def test_parameters_that_no_task_can_have(spaces: dict[str, Any], field: str) -> None:
    class Family(Base):
        parameter_space = gymnasium.spaces.Dict(spaces)

    with pytest.raises(InvalidField) as caught:
        Family()
    assert caught.value.field == field


def test_what_is_not_said_is_missed_when_it_is_loaded() -> None:
    class Nothing(GymnasiumFamily):
        name = "nothing"
        parameter_space = gymnasium.spaces.Dict({"g": NUMBER})

    with pytest.raises(AttributeError, match="env_id"):
        Nothing()

    class Short(Base):
        horizon = 0

    with pytest.raises(InvalidField, match="horizon"):
        Short()


def test_a_plain_function_does_not_come_bound_to_its_family() -> None:
    def made(g: float) -> gymnasium.Env[Any, Any]:
        return PendulumEnv(g=g)

    class Family(Base):
        env_id = made

    assert Family().make(Task("some-family", {"g": np.array(3.0)})).unwrapped.g == 3.0  # type: ignore[attr-defined]


def test_numbers_reach_the_environment_as_python_writes_them() -> None:
    values = plain({"a": np.float64(1.5), "b": np.array(2), "c": np.array([1.0, 2.0])})
    assert [type(value) for value in values.values()] == [float, int, np.ndarray]
