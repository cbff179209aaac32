from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from innerloop.arrays import Array, Arrays
from innerloop_server.domain import Split, Task
from innerloop_server.errors import InvalidField, PreconditionFailed
from innerloop_server.tasks.families.metaworld import (
    ENVIRONMENTS,
    ML10_TEST,
    ML10_TRAIN,
    ML45_TEST,
    ML45_TRAIN,
    MetaWorldML1,
    MetaWorldML10,
    MetaWorldML45,
)
from innerloop_server.tasks.family import Extra, Family, space_of
from innerloop_server.tasks.sampling import custom_task, sample_task

metaworld = pytest.importorskip("metaworld", reason="Meta-World is not installed: pip install 'innerloop[metaworld]'")
mujoco = pytest.importorskip("mujoco")

FAMILIES = (MetaWorldML1(), MetaWorldML10(), MetaWorldML45())
by_name = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@pytest.fixture(autouse=True)
def no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MuJoCo's log would go to the working directory."""
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


def task_of(family: Family, **parameters: int) -> Task:
    return custom_task(family, {name: np.array(value) for name, value in parameters.items()})


def actions(steps: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, 4)).astype(np.float32)


def rollout(env: gymnasium.Env[Any, Any], chosen: Array) -> list[Any]:
    log: list[Any] = [env.reset(seed=0)[0]]
    for action in chosen:
        log += env.step(action)[:2]
    return log


def equal(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_official_splits() -> None:
    official = metaworld.env_dict
    assert {split: tuple(one) for split, one in official.ML10_V3.items()} == {"train": ML10_TRAIN, "test": ML10_TEST}
    assert {split: tuple(one) for split, one in official.ML45_V3.items()} == {"train": ML45_TRAIN, "test": ML45_TEST}
    assert set(ENVIRONMENTS) == set(official.ALL_V3_ENVIRONMENTS)


@by_name
def test_describes_itself_as_it_is(family: Family) -> None:
    for word in ("Hidden", "500", *family.parameter_space.spaces):
        assert word in family.description
    with family.make(sample_task(family, 0, Split.TRAIN, 0)) as env:
        assert space_of(env.observation_space) == family.observation_space
        assert space_of(env.action_space) == family.action_space
        log = rollout(env, actions(50))
    seen = np.stack(log[0::2][:1] + log[1::2])
    assert seen.dtype == np.float32
    assert np.all(seen[:, -3:] == 0)  # the goal is hidden
    assert np.all(seen[:, :3] != 0)
    assert np.abs((seen - family.observation_shift) / family.observation_scale).max() < 4


def test_every_environment_of_ml1_can_be_chosen() -> None:
    push = MetaWorldML1("push-v3")
    assert push.name == "metaworld-ml1.task-push-v3"
    assert MetaWorldML1().name == MetaWorldML1("reach-v3").name == "metaworld-ml1"
    one, other = (family.make(task_of(family, goal=0)) for family in (push, MetaWorldML1()))
    assert not equal(rollout(one, actions(3)), rollout(other, actions(3)))
    with pytest.raises(InvalidField, match=r"'push' is none of Meta-World's: assembly-v3, .*, push-v3") as caught:
        MetaWorldML1("push")
    assert caught.value.field == "options.task"


@by_name
def test_splits_meet_in_no_task(family: Any) -> None:
    for split, goals in ((Split.TRAIN, (0, 50)), (Split.VALIDATION, (50, 100)), (Split.TEST, (100, 150))):
        listed = [(int(one.get("environment", 0)), int(one["goal"])) for one in family.enumerate(split)]
        names = [family.environments[environment] for environment, _ in listed]
        expected = family._test if split is Split.TEST else family._train
        assert names == list(expected) * 50  # so that whoever takes the first has as many of each
        assert [goal for _, goal in listed] == [goal for goal in range(*goals) for _ in expected]
        drawn = [sample_task(family, 1, split, index).parameters for index in range(400)]
        places = [(int(one.get("environment", 0)), int(one["goal"])) for one in drawn]
        assert set(places) <= set(listed)
        for axis in (0, 1):
            values, counts = np.unique([place[axis] for place in places], return_counts=True)
            expected_count = 400 / len({place[axis] for place in listed})
            assert len(values) == len({place[axis] for place in listed})
            assert np.all(np.abs(counts - expected_count) < 5 * np.sqrt(expected_count))


@pytest.mark.parametrize("name", ["reach-v3", "pick-place-v3", "sweep-into-v3", "lever-pull-v3", "basketball-v3"])
def test_it_is_meta_worlds_own_environment(name: str) -> None:
    """Given the goal in Meta-World's way, its own class does the same, to the bit."""
    family = MetaWorldML1(name)
    env = family.make(task_of(family, goal=17))
    ours = rollout(env, actions(40))
    simulator = env.unwrapped._simulator  # type: ignore[attr-defined]
    theirs = type(simulator)()
    data = {
        "env_cls": metaworld.ALL_V3_ENVIRONMENTS[name],
        "rand_vec": simulator._last_rand_vec.copy(),
        "partially_observable": True,
    }
    theirs.set_task(metaworld.Task(env_name=name, data=pickle.dumps(data)))
    log: list[Any] = [theirs.reset()[0].astype(np.float32)]
    for action in actions(40):
        seen, reward, *_ = theirs.step(action)
        log += [seen.astype(np.float32), reward]
    assert equal(ours, log)


def test_the_hand_is_welded_as_meta_world_does_it() -> None:
    weld = int(mujoco.mjtEq.mjEQ_WELD)
    rows = SimpleNamespace(nmocap=1, eq_data=np.full((2, 11), 9.0), eq_type=np.array([weld, weld + 1]))
    metaworld.sawyer_xyz_env.SawyerMocapBase.reset_mocap_welds(SimpleNamespace(model=rows))
    model = FAMILIES[0].make(task_of(FAMILIES[0], goal=0)).unwrapped._simulator.model  # type: ignore[attr-defined]
    welds = model.eq_data[model.eq_type == weld]
    assert len(welds) == 1
    np.testing.assert_array_equal(welds[0, :11], rows.eq_data[0])
    assert np.all(welds[0, 11:] == 1)  # as compiled


def test_a_goal_is_the_same_in_every_benchmark_and_no_two_are_alike() -> None:
    def vector(family: Family, **parameters: int) -> Array:
        env: Any = family.make(task_of(family, **parameters)).unwrapped
        return np.asarray(env._simulator._last_rand_vec)

    environment = MetaWorldML10().environments.index("push-v3")
    push = [vector(MetaWorldML1("push-v3"), goal=goal) for goal in range(4)]
    np.testing.assert_array_equal(vector(MetaWorldML10(), environment=environment, goal=3), push[3])
    assert len({one.tobytes() for one in push}) == 4
    assert not np.any(vector(MetaWorldML1("reach-v3"), goal=3)[:2] == push[3][:2])


def test_becoming_a_task_is_being_made_as_it() -> None:
    family, chosen = MetaWorldML10(), actions(25)
    first, near, far = (task_of(family, environment=e, goal=g) for e, g in ((1, 3), (1, 4), (12, 3)))
    expected = rollout(family.make(first), chosen)
    env = family.make(near)
    assert not equal(rollout(env, chosen), expected)
    for parameters in (first.parameters, far.parameters, first.parameters):
        become(env, parameters)
        assert equal(rollout(env, chosen), expected) == (parameters is first.parameters)
    assert equal(rollout(env, chosen), expected)  # and once more in the same environment


def become(env: gymnasium.Env[Any, Any], parameters: Arrays) -> None:
    env.get_wrapper_attr("set_task")(parameters)


@pytest.mark.parametrize("name", ["reach-v3", "drawer-open-v3", "push-v3"])
def test_meta_worlds_scripted_policy_succeeds(name: str) -> None:
    """The physics are as they should be: whoever knows how, and sees the goal, solves the task."""
    from metaworld.policies import ENV_POLICY_MAP

    family = MetaWorldML1(name)
    env = family.make(task_of(family, goal=100))
    policy, simulator = ENV_POLICY_MAP[name](), env.unwrapped._simulator  # type: ignore[attr-defined]
    seen, _ = env.reset(seed=0)
    successes = []
    for step in range(1, 501):
        told = np.concatenate([seen[:-3], simulator._target_pos]).astype(np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for more than the limits and says so
            action = np.clip(policy.get_action(told), -1, 1).astype(np.float32)
        seen, reward, terminated, truncated, info = env.step(action)
        successes.append(info["success"])
        assert isinstance(info["success"], bool)
        assert 0 <= reward <= 10
        assert not terminated
        assert truncated == (step == 500)
    assert any(successes)
    assert not successes[0]


def test_gymnasiums_checker_is_content() -> None:
    with MetaWorldML10().make(sample_task(MetaWorldML10(), 0, Split.TEST, 0)) as env, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*different from the unwrapped version")
        warnings.filterwarnings("ignore", ".*observation space m.*imum value is -?infinity")
        check_env(env.unwrapped, skip_render_check=True)


def test_without_meta_world_it_can_be_described_and_sampled_and_says_what_to_install() -> None:
    class Without(MetaWorldML10):
        extra = Extra("metaworld", ("no_such_module",))

    task = sample_task(Without(), 0, Split.TEST, 0)
    with pytest.raises(PreconditionFailed, match=r"pip install 'innerloop\[metaworld\]'"):
        Without().make(task)
