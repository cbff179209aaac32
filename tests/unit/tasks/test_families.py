"""What every family promises, ours and anybody's."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest

from innerloop.arrays import Discrete
from innerloop_server.domain import Simulator, Split
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.family import Family, space_of
from innerloop_server.tasks.registry import Registry, load_registry
from innerloop_server.tasks.sampling import custom_task, sample_task

FAMILIES = load_registry().families
TENSOR_NATIVE = sorted(name for name, family in FAMILIES.items() if Simulator.BATCH in family.simulators)


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> Family:
    family = FAMILIES[request.param]
    if family.extra is not None and family.extra.missing:
        pytest.skip(f"needs {family.extra.missing}: {family.extra.hint}")
    return family


def test_describes_itself(family: Family) -> None:
    assert family.title
    assert "idden" in family.description
    assert str(family.horizon) in family.description
    for parameter in family.parameter_space.spaces:
        words = parameter.replace("_", " ")
        assert words in family.description or parameter in family.description
    space = family.observation_space
    size = space.n if isinstance(space, Discrete) else space.size  # a state goes into a network one-hot
    assert len(family.observation_shift) == len(family.observation_scale) == size
    actions = 0 if isinstance(family.action_space, Discrete) else family.action_space.size
    assert len(family.action_shift) == len(family.action_scale) == actions
    assert 0 < family.discount < 1


def test_its_environment_has_its_spaces(family: Family) -> None:
    env = family.make(sample_task(family, 0, Split.TRAIN, 0))
    assert space_of(env.observation_space) == family.observation_space
    assert space_of(env.action_space) == family.action_space


def test_the_same_seed_gives_the_same_episode_and_the_time_limit_truncates_it(family: Family) -> None:
    task = sample_task(family, 0, Split.TRAIN, 1)

    def episode() -> list[Any]:
        env = family.make(task)
        env.action_space.seed(3)
        seen, _ = env.reset(seed=7)
        log: list[Any] = [seen]
        while True:
            seen, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            log += [seen, reward]
            assert seen.dtype == (np.int64 if isinstance(family.observation_space, Discrete) else np.float32)
            if terminated or truncated:
                assert terminated or len(log) // 2 == family.horizon
                return log

    for a, b in zip(episode(), episode(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_draws_lie_in_the_parameter_space_and_fill_it(family: Family) -> None:
    draws = [sample_task(family, 5, Split.TRAIN, i).parameters for i in range(400)]
    for name, space in family.parameter_space.spaces.items():
        values = np.array([d[name] for d in draws])
        assert all(space.contains(d[name]) for d in draws)
        if type(family).sample is not Family.sample:
            continue  # how it draws is its own affair, and its own test's
        if isinstance(space, gymnasium.spaces.Discrete):
            counts = np.bincount(values, minlength=int(space.n))
            assert np.all(np.abs(counts - 400 / space.n) < 4 * np.sqrt(400 / space.n))
        else:
            assert isinstance(space, gymnasium.spaces.Box)
            assert values.dtype == np.float64
            unit = (values - space.low) / (space.high - space.low)
            # five standard errors of the mean and standard deviation of a uniform
            np.testing.assert_allclose(unit.mean(0), 0.5, atol=5 * 0.2887 / 20)
            np.testing.assert_allclose(unit.std(0), 0.2887, atol=5 * 0.13 / 20)


def test_which_simulators_run_it(registry: Registry) -> None:
    for name in TENSOR_NATIVE:
        assert registry.get(name).simulators == (Simulator.BATCH, Simulator.ACTORS)
    cheetah = registry.get("halfcheetah-velocity")
    assert cheetah.simulators == (Simulator.ACTORS,)
    with pytest.raises(InvalidField, match="runs on actors only") as caught:
        cheetah.batch({}, None)  # type: ignore[arg-type] # refused before it is looked at
    assert caught.value.field == "simulator"


GOOD = {
    "half_length": np.array(0.5),
    "pole_mass": np.array(0.1),
    "cart_mass": np.array(1.0),
    "force": np.array(10.0),
    "force_sign": np.array(1),
}


@pytest.mark.parametrize(
    ("change", "field", "advice"),
    [
        ({"force": np.array(16.0)}, "force", "lies outside"),
        ({"force": np.array(np.nan)}, "force", "not finite"),
        ({"force": np.array(np.inf)}, "force", "not finite"),
        ({"force": np.array([10.0])}, "force", r"shape \[1\]"),
        ({"force": np.array("10")}, "force", "not numeric"),
        ({"force": np.array(10 + 0j)}, "force", "not numeric"),
        ({"force_sign": np.array(0.3)}, "force_sign", "lies outside"),
        ({"force_sign": np.array(-1)}, "force_sign", "lies outside"),
        ({"force_sign": np.array(2)}, "force_sign", "lies outside"),
        ({"force_sign": np.array(1e300)}, "force_sign", "lies outside"),
        ({"gravity": np.array(9.8)}, "gravity", "unknown"),
        ({"pole_mass": None}, "pole_mass", "missing"),
    ],
)
def test_check_names_the_field(registry: Registry, change: dict[str, Any], field: str, advice: str) -> None:
    parameters = {k: v for k, v in {**GOOD, **change}.items() if v is not None}
    with pytest.raises(InvalidField, match=advice) as caught:
        custom_task(registry.get("cartpole-dynamics"), parameters, "open.task.parameters")
    assert caught.value.field == f"open.task.parameters.{field}"


def test_check_brings_numbers_to_the_space_s_dtype(registry: Registry) -> None:
    family = registry.get("cartpole-dynamics")
    checked = family.check({**GOOD, "force": np.array(10, np.int32), "force_sign": np.array(1.0, np.float32)})
    assert checked["force"].dtype == np.float64
    assert checked["force"] == 10.0
    assert checked["force_sign"].dtype == np.int64
    assert checked["force_sign"] == 1


def test_a_space_without_bounds_asks_for_a_sample_method(registry: Registry) -> None:
    class Unbounded(type(registry.get("navigation-2d"))):  # type: ignore[misc]
        parameter_space = gymnasium.spaces.Dict({"goal": gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)})

    with pytest.raises(TypeError, match="must override sample"):
        Unbounded().sample(np.random.default_rng(0))


def test_environments_load_neither_torch_nor_mujoco() -> None:
    program = """
import sys
from innerloop_server.domain import Split
from innerloop_server.tasks import gymnasium, registry, sampling
from innerloop_server.tasks.generators import uniform
families = registry.load_registry()
for name in [name for name in families.names() if families.get(name).extra is None]:
    env = families.get(name).make(sampling.sample_task(families.get(name), 0, Split.TEST, 0))
    env.reset(seed=0)
    env.step(env.action_space.sample())
assert "halfcheetah-velocity" in families.names()
print(sorted({"torch", "mujoco", "grpc", "google.protobuf"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
