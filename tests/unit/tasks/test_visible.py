import gymnasium
import numpy as np
import pytest
import torch

from innerloop.arrays import Box
from innerloop_server.domain import Split
from innerloop_server.errors import InvalidField
from innerloop_server.evaluation.plan import fixed_plan
from innerloop_server.evaluation.references.catalog import references
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import custom_task, sample_task, stack_parameters
from innerloop_server.tasks.visible import VisibleFamily, normalise

FAMILIES = load_registry().families
CPU = torch.device("cpu")


class Settable(type(FAMILIES["navigation-2d"])):  # type: ignore[misc]
    """A family whose environment shows where it is and can become another task."""

    parameter_space = gymnasium.spaces.Dict({"at": gymnasium.spaces.Box(-5.0, 5.0, (), np.float64)})
    observation_space = Box.of(-10, 10, (1,))
    environments_change_task = True

    def make(self, task):
        return Place(task.parameters)


class Place(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-10, 10, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, parameters) -> None:
        self.set_task(parameters)

    def set_task(self, parameters) -> None:
        self.at = np.float32(parameters["at"])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full(1, self.at), {}


def test_parameters_are_mapped_to_the_unit_box_by_hand() -> None:
    space = gymnasium.spaces.Dict(
        {
            "a": gymnasium.spaces.Box(1.0, 3.0, (), np.float64),
            "b": gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float64),
            "c": gymnasium.spaces.Discrete(2),
            "d": gymnasium.spaces.Discrete(3, start=5),
        }
    )
    values = {"a": [1.0, 2.5], "b": [[2.0, 0.0], [-2.0, 1.0]], "c": [0, 1], "d": [5, 7]}
    shown = normalise(space, {name: np.array(value) for name, value in values.items()})
    wanted = [[-1, 1, 0, -1, 1, -1, -1], [0.5, -1, 0.5, 1, -1, -1, 1]]
    np.testing.assert_array_equal(shown, np.array(wanted, np.float32))


def test_a_parameter_without_bounds_cannot_be_shown() -> None:
    space = gymnasium.spaces.Dict({"a": gymnasium.spaces.Box(0, np.inf, (), np.float64)})
    with pytest.raises(InvalidField, match="a lives in"):
        normalise(space, {"a": np.zeros(1)})


@pytest.mark.parametrize("name", ["navigation-2d", "cartpole-dynamics", "pendulum-dynamics", "gridnavi"])
def test_both_faces_show_the_same(name: str) -> None:
    hidden, seen = FAMILIES[name], VisibleFamily(FAMILIES[name])
    tasks = [sample_task(seen, 0, Split.TRAIN, index) for index in range(3)]
    for task, own in zip(tasks, (sample_task(hidden, 0, Split.TRAIN, index) for index in range(3)), strict=True):
        assert (task.split, task.seed, task.index) == (own.split, own.seed, own.index)
        for parameter, value in own.parameters.items():
            np.testing.assert_array_equal(task.parameters[parameter], value)
    shown = normalise(seen.parameter_space, stack_parameters(tasks))
    batch = seen.batch(stack_parameters(tasks), CPU)
    state, observation = batch.reset(torch.full((3, 2, batch.reset_uniforms), 0.5, dtype=torch.float64))
    box, own_box = seen.observation_space, hidden.observation_space
    assert isinstance(box, Box)
    assert isinstance(own_box, Box)
    assert observation.shape == (3, 2, box.size)
    assert len(seen.observation_scale) == len(seen.observation_shift) == box.size
    np.testing.assert_array_equal(observation[:, 1, own_box.size :], shown)
    action = torch.zeros(3, 2, dtype=torch.int64) if name in ("cartpole-dynamics", "gridnavi") else torch.zeros(3, 2, 2)
    _, observation, _, _ = batch.step(state, action[..., :1] if name.startswith("pendulum") else action)
    np.testing.assert_array_equal(observation[:, 0, own_box.size :], shown)
    for index, task in enumerate(tasks):
        env = seen.make(task)
        for one in (env.reset(seed=0)[0], env.step(env.action_space.sample())[0]):
            assert one.dtype == np.float32
            assert env.observation_space.contains(one)
            np.testing.assert_array_equal(one[own_box.size :], shown[index])


def test_what_is_shown_changes_with_the_task() -> None:
    seen = VisibleFamily(Settable())
    first, second = (custom_task(seen, {"at": np.array(at)}) for at in (-1.0, 3.0))
    env = seen.make(first)
    np.testing.assert_array_equal(env.reset(seed=0)[0], np.float32([-1, -0.2]))
    env.get_wrapper_attr("set_task")(second.parameters)
    np.testing.assert_array_equal(env.reset(seed=0)[0], np.float32([3, 0.6]))
    assert (
        not VisibleFamily(FAMILIES["navigation-2d"])
        .make(sample_task(FAMILIES["navigation-2d"], 0, Split.TRAIN, 0))
        .has_wrapper_attr("set_task")
    )


def test_tasks_and_references_are_those_of_the_family() -> None:
    registry = load_registry()
    for name in ("gridnavi", "bernoulli-bandit", "navigation-2d", "cartpole-dynamics"):
        hidden, seen = registry.get(name), registry.get(f"{name}.parameters-shown")
        assert references(seen) == references(hidden)
        assert fixed_plan(seen) == fixed_plan(hidden)
        assert seen.enumerate(Split.TEST) == hidden.enumerate(Split.TEST)


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(InvalidField, match="Discrete observations"):
        load_registry().get("tabular-mdp.parameters-shown")
    unbounded = Settable()
    unbounded.parameter_space = gymnasium.spaces.Dict({"at": gymnasium.spaces.Box(0, np.inf, (), np.float64)})
    with pytest.raises(InvalidField, match="no bounds"):
        VisibleFamily(unbounded)
