import subprocess
import sys

import numpy as np
import pytest
import toy_families as toy

from innerloop.arrays import Array
from innerloop_server.actors.environments import EnvironmentCache, load_source, parameters_hash


def _task(drift: float) -> tuple[dict[str, Array], str]:
    parameters = {"drift": np.asarray(drift)}
    return parameters, parameters_hash(parameters)


def test_equal_parameters_hash_equal_and_others_do_not() -> None:
    one = {"a": np.zeros(2), "b": np.ones(1)}
    assert parameters_hash(one) == parameters_hash({"b": np.ones(1), "a": np.zeros(2)})
    assert parameters_hash(one) != parameters_hash({"a": np.zeros(2), "b": np.ones((1, 1))})
    assert parameters_hash(one) != parameters_hash({"a": np.zeros(2, np.float32), "b": np.ones(1)})


def test_an_environment_of_the_same_task_comes_back() -> None:
    cache = EnvironmentCache(toy.SOURCE, capacity=2)
    same = cache.take("walk", *_task(0.1))
    cache.put("walk", _task(0.1)[1], same)
    other = cache.take("walk", *_task(0.2))
    assert other is not same
    assert cache.take("walk", *_task(0.1)) is same
    assert cache.take("walk", *_task(0.1)) is not same


def test_set_task_turns_an_idle_environment_into_any_task() -> None:
    cache = EnvironmentCache(toy.SOURCE, capacity=2)
    environment = cache.take("retargetable", *_task(0.1))
    cache.put("retargetable", _task(0.1)[1], environment)
    assert cache.take("retargetable", *_task(0.7)) is environment
    assert environment.unwrapped.drift == 0.7  # type: ignore[attr-defined]


def test_a_set_task_that_the_family_does_not_speak_of_is_left_alone() -> None:
    cache = EnvironmentCache(toy.SOURCE, capacity=2)
    environment = cache.take("set-task-of-its-own", *_task(0.1))
    cache.put("set-task-of-its-own", _task(0.1)[1], environment)
    assert cache.take("set-task-of-its-own", *_task(0.7)) is not environment


def test_the_least_recently_used_is_closed_first() -> None:
    cache = EnvironmentCache(toy.SOURCE, capacity=2)
    environments = [cache.take("walk", *_task(drift)) for drift in (0.1, 0.2, 0.3)]
    closed: list[int] = []
    for i, environment in enumerate(environments):
        environment.close = lambda i=i: closed.append(i)  # type: ignore[method-assign, misc]
        cache.put("walk", _task((0.1, 0.2, 0.3)[i])[1], environment)
    assert closed == [0]
    cache.close()
    assert sorted(closed) == [0, 1, 2]


def test_a_source_names_a_module_and_a_callable() -> None:
    assert load_source(toy.SOURCE).get("walk").name == "walk"
    with pytest.raises(ValueError, match="module:callable"):
        load_source("toy_families")


INSTALLED_FAMILIES = """
import sys
import numpy as np
from innerloop_server.actors import actor
from innerloop_server.actors.environments import INSTALLED, EnvironmentCache, load_source, parameters_hash

for name in ("navigation-2d", "cartpole-dynamics", "pendulum-dynamics"):
    parameters = load_source(INSTALLED).get(name).sample(np.random.default_rng(0))
    env = EnvironmentCache(INSTALLED, 1).take(name, parameters, parameters_hash(parameters))
    env.reset(seed=0)
    env.step(env.action_space.sample())
print([name for name in ("torch", "grpc", "sqlalchemy") if name in sys.modules])
"""


def test_installed_families_step_without_anything_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", INSTALLED_FAMILIES], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
