from __future__ import annotations

import importlib.util
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from innerloop_server.domain import Split
from innerloop_server.errors import PreconditionFailed
from innerloop_server.tasks.families.halfcheetah_velocity import HalfCheetahVelocity
from innerloop_server.tasks.families.mujoco_tools import HORIZON
from innerloop_server.tasks.family import Extra
from innerloop_server.tasks.sampling import custom_task, sample_task

FAMILY = HalfCheetahVelocity()
needs_mujoco = pytest.mark.skipif(
    importlib.util.find_spec("mujoco") is None, reason="MuJoCo is not installed: pip install 'innerloop[mujoco]'"
)


@needs_mujoco
@pytest.mark.parametrize("target", [0.0, 1.7, 3.0])
def test_reward_by_hand_from_positions(target: float) -> None:
    env = FAMILY.make(custom_task(FAMILY, {"target_velocity": np.array(target)}))
    data = env.unwrapped.data  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    seen, _ = env.reset(seed=0)
    for t in range(1, HORIZON + 1):
        action = (1.5 * rng.standard_normal(6)).astype(np.float32)
        x = float(data.qpos[0])
        seen, reward, terminated, truncated, _ = env.step(action)
        velocity = (float(data.qpos[0]) - x) / 0.05
        clipped = np.clip(action.astype(np.float64), -1, 1)
        assert reward == pytest.approx(-abs(velocity - target) - 0.05 * (clipped**2).sum(), abs=1e-9)
        np.testing.assert_array_equal(seen, np.concatenate((data.qpos[1:], data.qvel)).astype(np.float32))
        assert not terminated
        assert truncated == (t == HORIZON)


@needs_mujoco
def test_the_motion_is_gymnasiums_and_the_target_shows_in_the_reward_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo's log about Gymnasium's own model file goes to the working directory
    slow, fast = (FAMILY.make(custom_task(FAMILY, {"target_velocity": np.array(v)})) for v in (0.5, 2.5))
    theirs = gymnasium.make("HalfCheetah-v5")
    theirs.action_space.seed(0)
    observations = [env.reset(seed=3)[0] for env in (slow, fast, theirs)]
    different = 0
    for _ in range(50):
        np.testing.assert_array_equal(observations[0], observations[1])
        np.testing.assert_array_equal(observations[0], observations[2].astype(np.float32))
        action = theirs.action_space.sample()
        steps = [env.step(action) for env in (slow, fast, theirs)]
        observations = [step[0] for step in steps]
        different += steps[0][1] != steps[1][1]
    assert different == 50


@needs_mujoco
def test_making_one_writes_no_log_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    FAMILY.make(sample_task(FAMILY, 0, Split.TEST, 0)).reset(seed=0)
    assert list(tmp_path.iterdir()) == []


@needs_mujoco
def test_the_scale_brings_observations_near_one() -> None:
    env = FAMILY.make(sample_task(FAMILY, 0, Split.TRAIN, 0))
    env.action_space.seed(0)
    env.reset(seed=0)
    seen = np.stack([env.step(env.action_space.sample())[0] for _ in range(HORIZON)]) / FAMILY.observation_scale
    assert np.all(seen.std(0) > 0.1)
    assert np.all(seen.std(0) < 3)


def test_without_mujoco_it_can_be_described_and_sampled_and_says_what_to_install() -> None:
    class Without(HalfCheetahVelocity):
        extra = Extra("mujoco", ("no_such_module",))

    task = sample_task(Without(), 0, Split.TEST, 0)
    assert 0 <= task.parameters["target_velocity"] <= 3
    with pytest.raises(PreconditionFailed, match=r"needs no_such_module: pip install 'innerloop\[mujoco\]'") as caught:
        Without().make(task)
    assert caught.value.reason == "EXTRA_MISSING"
