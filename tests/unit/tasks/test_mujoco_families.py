from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from innerloop.arrays import Array, Arrays
from innerloop_server.domain import Split
from innerloop_server.tasks.families.ant_direction import AntDirection
from innerloop_server.tasks.families.ant_goal import RADIUS, AntGoal
from innerloop_server.tasks.families.halfcheetah_direction import HalfCheetahDirection
from innerloop_server.tasks.families.halfcheetah_velocity import HalfCheetahVelocity
from innerloop_server.tasks.families.hopper_parameters import HopperParameters
from innerloop_server.tasks.families.humanoid_direction import HumanoidDirection
from innerloop_server.tasks.families.mujoco_models import BASES, ScaledModelFamily
from innerloop_server.tasks.families.mujoco_tools import MujocoFamily
from innerloop_server.tasks.families.walker2d_parameters import Walker2DParameters
from innerloop_server.tasks.family import space_of
from innerloop_server.tasks.sampling import custom_task, sample_task

pytest.importorskip("mujoco", reason="MuJoCo is not installed: pip install 'innerloop[mujoco]'")

MODELS = (HopperParameters(), Walker2DParameters())
REWARDS = (HalfCheetahVelocity(), HalfCheetahDirection(), AntDirection(), AntGoal(), HumanoidDirection())
FAMILIES = (*REWARDS, *MODELS)
by_name = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
models_by_name = pytest.mark.parametrize("family", MODELS, ids=lambda family: family.name)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MuJoCo's log would go to the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(family: MujocoFamily, **parameters: Any) -> gymnasium.Env[Any, Any]:
    return family.make(custom_task(family, {name: np.asarray(value) for name, value in parameters.items()}))


def actions(family: MujocoFamily, steps: int, seed: int = 0) -> Array:
    """Some of them beyond the limits."""
    rng = np.random.default_rng(seed)
    return (family.action_limit * rng.standard_normal((steps, family.action_size))).astype(np.float32)


def rollout(env: gymnasium.Env[Any, Any], chosen: Array, seed: int = 0) -> list[Any]:
    """What was seen and paid, until the first end."""
    log: list[Any] = [env.reset(seed=seed)[0]]
    for action in chosen:
        seen, reward, terminated, truncated, _ = env.step(action)
        log += [seen, reward]
        if terminated or truncated:
            break
    return log


def equal(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@by_name
def test_describes_itself_as_it_is(family: MujocoFamily, empty_folder: Path) -> None:
    assert str(family.horizon) in family.description
    assert all(name in family.description for name in family.parameter_space.spaces)
    with family.make(sample_task(family, 0, Split.TRAIN, 0)) as env:
        assert space_of(env.observation_space) == family.observation_space
        assert space_of(env.action_space) == family.action_space
        seen, _ = env.reset(seed=0)
        _, reward, _, _, info = env.step(np.zeros(family.action_size, np.float32))
    assert seen.dtype == np.float32
    assert len(family.observation_scale) == len(family.observation_shift) == seen.size
    assert min(family.observation_scale) > 0
    terms = {name: value for name, value in info.items() if name.startswith("reward_")}
    assert reward == pytest.approx(sum(terms.values()), abs=1e-12)
    if family.name != "halfcheetah-velocity":  # which gives a formula
        assert all(name in family.description for name in terms)
    assert list(empty_folder.iterdir()) == []  # no log


@by_name
def test_gymnasiums_checker_is_content(family: MujocoFamily) -> None:
    with family.make(sample_task(family, 0, Split.TRAIN, 1)) as env, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*different from the unwrapped version")  # it is float64, and pays its own
        warnings.filterwarnings("ignore", ".*we recommend using a symmetric and normalized space")
        warnings.filterwarnings("ignore", ".*observation space m.*imum value is -?infinity")
        check_env(env, skip_render_check=True)


@by_name
def test_truncates_at_200_steps_or_ends_before(family: MujocoFamily) -> None:
    with family.make(sample_task(family, 0, Split.TRAIN, 2)) as env:
        env.reset(seed=0)
        for step in range(1, 201):
            _, _, terminated, truncated, _ = env.step(0 * env.action_space.low)
            if terminated:
                break
            assert truncated == (step == 200)
        assert terminated == (family.name in ("humanoid-direction", "hopper-parameters", "walker2d-parameters"))


@by_name
def test_becoming_a_task_is_being_made_as_it(family: MujocoFamily) -> None:
    first, second = (sample_task(family, 3, Split.TEST, index) for index in (0, 1))
    if family.splits_share_tasks:
        first, second = (custom_task(family, parameters) for parameters in family.enumerate(Split.TEST) or ())
    chosen = actions(family, 25)
    with family.make(first) as fresh:
        expected = rollout(fresh, chosen)
    with family.make(second) as env:
        other = rollout(env, actions(family, 10, seed=1), seed=5), rollout(env, chosen)
        for parameters in (second.parameters, first.parameters):  # nothing adds up
            env.get_wrapper_attr("set_task")(parameters)
        again = rollout(env, chosen)
    assert equal(again, expected)
    assert not equal(other[1], expected)


@pytest.mark.parametrize("direction", [0, 1])
def test_cheetahs_reward_by_hand(direction: int) -> None:
    family = HalfCheetahDirection()
    with make(family, direction=direction) as env:
        data = env.unwrapped.data  # type: ignore[attr-defined]
        env.reset(seed=0)
        for action in actions(family, 30):
            x = data.qpos[0]
            _, reward, *_ = env.step(action)
            cost = 0.05 * (np.clip(action.astype(np.float64), -1, 1) ** 2).sum()
            assert reward == pytest.approx((1 if direction else -1) * (data.qpos[0] - x) / 0.05 - cost, abs=1e-9)


@pytest.mark.parametrize("direction", [0.0, 2.5, 5.0])
def test_ants_reward_by_hand(direction: float) -> None:
    family = AntDirection()
    with make(family, direction=direction) as env:
        data = env.unwrapped.data  # type: ignore[attr-defined]
        env.reset(seed=0)
        for action in actions(family, 30):
            place = data.body("torso").xpos[:2].copy()
            seen, reward, terminated, _, _ = env.step(action)
            velocity = (data.body("torso").xpos[:2] - place) / 0.05
            along = velocity @ [np.cos(direction), np.sin(direction)]
            cost = 0.5 * (np.clip(action.astype(np.float64), -1, 1) ** 2).sum()
            contact = 5e-4 * (np.clip(data.cfrc_ext, -1, 1) ** 2).sum()
            assert reward == pytest.approx(along - cost - contact + (0.2 <= data.qpos[2] <= 1), abs=1e-9)
            assert terminated == (not 0.2 <= data.qpos[2] <= 1)
            np.testing.assert_array_equal(seen, np.float32([*data.qpos[2:], *data.qvel]))


def test_the_ant_that_seeks_a_goal_is_paid_by_hand() -> None:
    family = AntGoal()
    with make(family, goal=[1.0, -2.0]) as env:
        data = env.unwrapped.data  # type: ignore[attr-defined]
        env.reset(seed=0)
        for action in actions(family, 30):
            seen, reward, terminated, _, _ = env.step(action)
            cost = 0.1 * (np.clip(action.astype(np.float64), -1, 1) ** 2).sum()
            contact = 5e-4 * (np.clip(data.cfrc_ext, -1, 1) ** 2).sum()
            away = abs(data.qpos[0] - 1) + abs(data.qpos[1] + 2)
            assert reward == pytest.approx(-away - cost - contact, abs=1e-9)
            assert not terminated
            np.testing.assert_array_equal(seen[:2], data.qpos[:2].astype(np.float32))  # it knows where it is


@pytest.mark.parametrize("direction", [0.0, 4.0])
def test_humanoids_reward_by_hand(direction: float) -> None:
    family = HumanoidDirection()
    with make(family, direction=direction) as env:
        model, data = env.unwrapped.model, env.unwrapped.data  # type: ignore[attr-defined]

        def centre() -> Array:
            return np.asarray((model.body_mass[:, None] * data.xipos).sum(0)[:2] / model.body_mass.sum())

        env.reset(seed=0)
        for action in actions(family, 15):
            place = centre()
            _, reward, terminated, _, _ = env.step(action)
            along = (centre() - place) / 0.015 @ [np.cos(direction), np.sin(direction)]
            cost = 0.1 * (np.clip(action.astype(np.float64), -np.float32(0.4), np.float32(0.4)) ** 2).sum()
            contact = min(5e-7 * (data.cfrc_ext**2).sum(), 10)
            healthy = 1 < data.qpos[2] < 2
            assert reward == pytest.approx(1.25 * along - cost - contact + 5 * healthy, abs=1e-9)
            assert terminated == (not healthy)


@pytest.mark.parametrize("family", REWARDS, ids=lambda family: family.name)
def test_what_is_hidden_in_the_reward_shows_nowhere_else(family: MujocoFamily) -> None:
    if family.splits_share_tasks:
        tasks = [custom_task(family, parameters) for parameters in family.enumerate(Split.TEST) or ()]
    else:
        tasks = [sample_task(family, 3, Split.TEST, index) for index in (0, 1)]
    one, other = (rollout(family.make(task), actions(family, 15)) for task in tasks)
    assert equal(one[0::1][:1] + one[1::2], other[:1] + other[1::2])
    assert all(a != b for a, b in zip(one[2::2], other[2::2], strict=True))


def exponents(family: ScaledModelFamily, value: float = 0.0, **changed: Any) -> Arrays:
    filled = {name: np.full(part.shape, value) for name, part in family.parameter_space.spaces.items()}
    return filled | {name: np.asarray(given, np.float64) for name, given in changed.items()}


@models_by_name
def test_the_model_is_scaled_by_hand(family: ScaledModelFamily) -> None:
    task = sample_task(family, 0, Split.TRAIN, 0)
    with family.make(task) as env, family.build() as plain:
        model, compiled = env.unwrapped.model, plain.unwrapped.model  # type: ignore[attr-defined]
        p = task.parameters
        assert compiled.nbody == family.bodies + 1
        np.testing.assert_allclose(model.body_mass[1:], compiled.body_mass[1:] * 1.5 ** p["mass_exponent"], rtol=1e-12)
        np.testing.assert_allclose(
            model.body_inertia[1:], compiled.body_inertia[1:] * 1.5 ** p["inertia_exponent"][:, None], rtol=1e-12
        )
        np.testing.assert_allclose(model.dof_damping[3:], compiled.dof_damping[3:] * 1.3 ** p["damping_exponent"])
        assert compiled.dof_damping[:3].max() == 0  # those three are where it is, not joints
        assert compiled.dof_damping[3:].min() > 0
        np.testing.assert_allclose(model.geom_friction, compiled.geom_friction * 1.5 ** p["friction_exponent"][:, None])
        # What MuJoCo derives from masses is of these masses.
        assert model.body_subtreemass[0] == pytest.approx(model.body_mass.sum(), rel=1e-12)
        assert compiled.body_subtreemass[0] != pytest.approx(model.body_mass.sum(), rel=1e-2)


@models_by_name
def test_without_scaling_it_is_gymnasiums_own(family: ScaledModelFamily) -> None:
    chosen = actions(family, 20)
    with make(family, **exponents(family)) as ours, family.build() as theirs:
        seen = [ours.reset(seed=4)[0], theirs.reset(seed=4)[0].astype(np.float32)]
        for action in np.clip(chosen, -1, 1):
            np.testing.assert_array_equal(seen[0], seen[1])
            mine, gymnasiums = ours.step(action), theirs.step(action.astype(np.float64))
            seen = [mine[0], gymnasiums[0].astype(np.float32)]
            assert mine[1] == gymnasiums[1]
            assert mine[2] == gymnasiums[2]
            if mine[2]:
                break


@models_by_name
@pytest.mark.parametrize("name", BASES)
def test_every_factor_changes_how_it_moves(family: ScaledModelFamily, name: str) -> None:
    chosen = actions(family, 12)
    with make(family, **exponents(family)) as plain:
        expected = rollout(plain, chosen)
        changed = exponents(family, **{name: np.full(family.parameter_space[name].shape, -3.0)})
        plain.get_wrapper_attr("set_task")(changed)
        assert not equal(rollout(plain, chosen), expected)


def test_goals_are_uniform_on_the_disc() -> None:
    family = AntGoal()
    goals = np.array([sample_task(family, 0, Split.TRAIN, i).parameters["goal"] for i in range(400)])
    share = (goals**2).sum(1) / RADIUS**2  # uniform on [0, 1] where the goal is uniform on the disc
    assert share.max() <= 1
    assert share.mean() == pytest.approx(0.5, abs=5 * 0.2887 / 20)
    assert np.abs(goals.mean(0)).max() < 5 * RADIUS / 2 / 20


def test_random_actions_are_seen_at_about_one() -> None:
    for family in FAMILIES:
        with family.make(sample_task(family, 0, Split.TRAIN, 0)) as env:
            seen = []
            for seed in range(8):
                seen += rollout(env, actions(family, 60, seed), seed)[1::2]
        size = np.sqrt((((np.stack(seen) - family.observation_shift) / family.observation_scale) ** 2).mean(0))
        assert size.max() < 4, family.name
        assert np.median(size[size > 0]) > 0.1, family.name


def test_the_memoryless_bound_of_directions_is_what_both_pay_for_the_same_actions() -> None:
    family = HalfCheetahDirection()
    (bound,) = family.references
    still = np.zeros((40, family.action_size), np.float32)
    for chosen, cost in ((actions(family, 40), True), (still, False)):
        paid = []
        for direction in (0, 1):
            with make(family, direction=direction) as env:
                paid.append(sum(rollout(env, chosen)[2::2]))
        assert (sum(paid) / 2 < bound.value - 1) if cost else (sum(paid) / 2 == pytest.approx(bound.value, abs=1e-9))
