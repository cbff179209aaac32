import gymnasium
import numpy as np
import pytest
import torch

from innerloop.arrays import Box
from innerloop_server.domain import Split
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import custom_task, sample_task, stack_parameters
from innerloop_server.training.batches import MergedBatch
from innerloop_server.training.visible import VisibleFamily, load_visible_registry, normalise

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
        }
    )
    shown = normalise(
        space, {"a": np.array([1.0, 2.5]), "b": np.array([[2.0, 0.0], [-2.0, 1.0]]), "c": np.array([0, 1])}
    )
    np.testing.assert_array_equal(shown, np.array([[-1, 1, 0, -1], [0.5, -1, 0.5, 1]], np.float32))


def test_a_parameter_without_bounds_cannot_be_shown() -> None:
    space = gymnasium.spaces.Dict({"a": gymnasium.spaces.Box(0, np.inf, (), np.float64)})
    with pytest.raises(InvalidField, match="a lives in"):
        normalise(space, {"a": np.zeros(1)})


@pytest.mark.parametrize("name", ["navigation-2d", "cartpole-dynamics", "pendulum-dynamics"])
def test_both_faces_show_the_same(name: str) -> None:
    hidden, seen = FAMILIES[name], VisibleFamily(FAMILIES[name])
    tasks = [sample_task(seen, 0, Split.TRAIN, index) for index in range(3)]
    for task, own in zip(tasks, (sample_task(hidden, 0, Split.TRAIN, index) for index in range(3)), strict=True):
        assert task.name == own.name
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
    action = torch.zeros(3, 2, dtype=torch.int64) if name.startswith("cartpole") else torch.zeros(3, 2, 2)
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


def test_the_visible_registry_is_a_source_for_actors() -> None:
    boxes = [name for name, family in FAMILIES.items() if isinstance(family.observation_space, Box)]
    assert load_visible_registry().names() == tuple(sorted(boxes))
    assert all(isinstance(family, VisibleFamily) for family in load_visible_registry().families.values())


def test_a_merged_batch_is_the_same_batch() -> None:
    family = FAMILIES["pendulum-dynamics"]
    parameters = stack_parameters([sample_task(family, 0, Split.TRAIN, index) for index in range(3)])
    plain, merged = family.batch(parameters, CPU), MergedBatch(family.batch(parameters, CPU), 3)
    rng = np.random.default_rng(0)
    uniforms = torch.from_numpy(rng.random((3, 2, 2)))
    action = torch.from_numpy(rng.uniform(-2, 2, (3, 2, 1)).astype(np.float32))
    state, observation = plain.reset(uniforms)
    one_state, one_observation = merged.reset(uniforms.reshape(1, 6, 2))
    assert torch.equal(one_observation, observation.reshape(1, 6, 3))
    expected = plain.step(state, action)
    for got, wanted in zip(merged.step(one_state, action.reshape(1, 6, 1)), expected, strict=True):
        assert torch.equal(got, wanted.reshape(1, 6, *wanted.shape[2:]))
