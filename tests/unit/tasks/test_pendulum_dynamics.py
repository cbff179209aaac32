from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop_server.tasks.families.pendulum_dynamics import HORIZON, PendulumDynamics
from innerloop_server.tasks.sampling import custom_task, stack_parameters

FAMILY = PendulumDynamics()
CPU = torch.device("cpu")
PARAMETERS = st.fixed_dictionaries(
    {
        "mass": st.floats(0.7, 1.3),
        "length": st.floats(0.7, 1.3),
        "gravity": st.floats(7.0, 13.0),
        "torque_gain": st.floats(0.7, 1.5),
        "torque_sign": st.sampled_from([0, 1]),
    }
)


def gymnasiums_own(p: dict[str, Any]) -> PendulumEnv:
    """Gymnasium's class, its constants set here and not by the family; wide enough a clip for any torque."""
    env = PendulumEnv(g=p["gravity"])
    env.m, env.l, env.max_torque = p["mass"], p["length"], 100.0
    return env


def torque(p: dict[str, Any], action: np.ndarray) -> np.ndarray:
    """The motor, as the description of the family says it."""
    gain: float = p["torque_gain"] if p["torque_sign"] else -p["torque_gain"]
    return gain * np.clip(action.astype(np.float64), -2, 2)


@settings(max_examples=20, deadline=None)
@given(p=PARAMETERS, seed=st.integers(0, 2**32))
def test_both_faces_step_as_gymnasiums_own_code(p: dict[str, Any], seed: int) -> None:
    """Whole episodes of commands that often reach past the clip; every step from the same state."""
    task = custom_task(FAMILY, {k: np.array(v) for k, v in p.items()})
    env, own = FAMILY.make(task), gymnasiums_own(p)
    batch = FAMILY.batch(stack_parameters([task]), CPU)
    env.reset(seed=seed)
    own.reset(seed=seed)
    state, observed = batch.reset(torch.tensor(gymnasium.utils.seeding.np_random(seed)[0].random((1, 1, 2))))
    np.testing.assert_allclose(state[0, 0].numpy(), own.state, rtol=0, atol=1e-12)
    rng = np.random.default_rng(seed)
    for t in range(1, HORIZON + 1):
        action = (3 * rng.standard_normal(1)).astype(np.float32)
        own.state = state[0, 0].numpy().copy()
        env.unwrapped.state = own.state.copy()  # type: ignore[attr-defined]
        expected, cost, _, _, _ = own.step(torque(p, action))  # type: ignore[no-untyped-call]
        seen, reward, terminated, truncated, _ = env.step(action)
        state, observed, rewards, ended = batch.step(state, torch.tensor(action)[None, None])
        np.testing.assert_array_equal(seen, expected)
        assert reward == pytest.approx(float(cost), abs=1e-12)
        np.testing.assert_allclose(state[0, 0].numpy(), own.state, rtol=0, atol=1e-9)
        np.testing.assert_allclose(observed[0, 0].numpy(), expected, rtol=0, atol=1e-6)
        assert rewards[0, 0].item() == pytest.approx(float(cost), rel=1e-6, abs=1e-6)
        assert not terminated
        assert not ended.any()
        assert truncated == (t == HORIZON)


@pytest.mark.parametrize("sign", [0, 1])
def test_standard_parameters_are_pendulum_v1_and_the_sign_turns_its_torque(sign: int) -> None:
    p = {"mass": 1.0, "length": 1.0, "gravity": 10.0, "torque_gain": 1.0, "torque_sign": sign}
    env = FAMILY.make(custom_task(FAMILY, {k: np.array(v) for k, v in p.items()}))
    theirs = gymnasium.make("Pendulum-v1")
    seen, _ = env.reset(seed=9)
    expected, _ = theirs.reset(seed=9)
    rng = np.random.default_rng(9)
    for _ in range(HORIZON):
        np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-3)  # they add the torque in float32
        action = rng.uniform(-2, 2, 1).astype(np.float32)
        seen, reward, *flags, _ = env.step(action if sign else -action)
        expected, their_reward, *their_flags, _ = theirs.step(action)
        assert reward == pytest.approx(float(their_reward), abs=1e-2)
        assert flags == their_flags


def test_the_gain_acts_after_the_clip_and_the_cost_charges_what_acts() -> None:
    p = {"mass": 1.0, "length": 1.0, "gravity": 10.0, "torque_gain": 1.5, "torque_sign": 0}
    env = FAMILY.make(custom_task(FAMILY, {k: np.array(v) for k, v in p.items()}))
    env.reset(seed=0)
    env.unwrapped.state = np.array([math.pi / 2, 0.0])  # type: ignore[attr-defined]
    _, reward, *_ = env.step(np.array([50.0], np.float32))
    assert reward == pytest.approx(-((math.pi / 2) ** 2 + 0.001 * 3.0**2), abs=1e-12)
    _, speed = env.unwrapped.state  # type: ignore[attr-defined]
    assert speed == pytest.approx((15.0 * 1.0 - 3.0 * 3.0) * 0.05, abs=1e-12)  # gravity and the torque of -3


def test_what_the_environment_is_given_is_not_changed() -> None:
    env = FAMILY.make(
        custom_task(
            FAMILY,
            {k: np.array(v) for k, v in {"mass": 1.0, "length": 1.0, "gravity": 10.0, "torque_gain": 1.5}.items()}
            | {"torque_sign": np.array(0)},
        )
    )
    env.reset(seed=0)
    action = np.array([1.0], np.float32)
    env.step(action)
    assert action[0] == 1.0
