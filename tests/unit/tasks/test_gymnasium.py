from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import innerloop_server.tasks.gymnasium as registration
from innerloop_server.domain import Split
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.families.navigation_2d import Navigation2D
from innerloop_server.tasks.registry import Registry
from innerloop_server.tasks.sampling import sample_task

IDS = {
    "innerloop/CartPoleDynamics-v0": "cartpole-dynamics",
    "innerloop/HalfCheetahVelocity-v0": "halfcheetah-velocity",
    "innerloop/Navigation2D-v0": "navigation-2d",
    "innerloop/PendulumDynamics-v0": "pendulum-dynamics",
}
ADVICE = (
    "A Box observation space m",  # minimum / maximum value is infinite: so are Gymnasium's own
    "The environment .* is different from the unwrapped version",  # the raw one is checked first
    "For Box action spaces, we recommend",  # a move of 0.1 and a torque of 2 are these environments' units
)


def test_every_family_is_registered_once() -> None:
    assert set(IDS) <= set(registration.register())
    assert set(IDS) <= set(gymnasium.registry)


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasiums_checker_is_content(env_id: str, registry: Registry) -> None:
    extra = registry.get(IDS[env_id]).extra
    if extra is not None and extra.missing:
        pytest.skip(f"needs {extra.missing}: {extra.hint}")
    with gymnasium.make(env_id) as env, warnings.catch_warnings():
        for advice in ADVICE:
            warnings.filterwarnings("ignore", f".*{advice}")
        check_env(env.unwrapped, skip_render_check=True)  # families offer no rendering
        check_env(env, skip_render_check=True)


def test_a_task_can_be_given_as_a_value_a_name_or_parameters() -> None:
    env_id = "innerloop_server.tasks.gymnasium:innerloop/Navigation2D-v0"
    task = sample_task(Navigation2D(), 5, Split.TEST, 6)
    for form in (task, task.name, task.parameters):
        env = gymnasium.make(env_id, task=form)
        np.testing.assert_array_equal(env.unwrapped.goal, task.parameters["goal"])  # type: ignore[attr-defined]
    default = gymnasium.make(env_id)
    first = sample_task(Navigation2D(), 0, Split.TRAIN, 0)
    np.testing.assert_array_equal(default.unwrapped.goal, first.parameters["goal"])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("task", "field"),
    [
        ("families/pendulum-dynamics/tasks/test-0-0", "task"),
        ("nonsense", "task"),
        ({"goal": np.array([0.7, 0.0])}, "task.goal"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(task: object, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        gymnasium.make("innerloop/Navigation2D-v0", task=task)
    assert caught.value.field == field


def test_an_unknown_argument_is_an_error() -> None:
    with pytest.raises(TypeError, match="goal"):
        gymnasium.make("innerloop/Navigation2D-v0", goal=np.zeros(2))
