from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop_server.tasks.families.cartpole_dynamics import HORIZON, CartPoleDynamics
from innerloop_server.tasks.sampling import custom_task, stack_parameters

FAMILY = CartPoleDynamics()
CPU = torch.device("cpu")
STANDARD = {"half_length": 0.5, "pole_mass": 0.1, "cart_mass": 1.0, "force": 10.0, "force_sign": 1}
PARAMETERS = st.fixed_dictionaries(
    {
        "half_length": st.floats(0.25, 1.5),
        "pole_mass": st.floats(0.05, 0.5),
        "cart_mass": st.floats(0.8, 1.2),
        "force": st.floats(5.0, 15.0),
        "force_sign": st.sampled_from([0, 1]),
    }
)


def gymnasiums_own(p: dict[str, Any]) -> CartPoleEnv:
    """Gymnasium's class, its constants set here and not by the family."""
    env = CartPoleEnv()
    env.length, env.masspole, env.masscart = p["half_length"], p["pole_mass"], p["cart_mass"]
    env.total_mass = p["pole_mass"] + p["cart_mass"]
    env.polemass_length = p["pole_mass"] * p["half_length"]
    env.force_mag = p["force"] if p["force_sign"] == 1 else -p["force"]
    return env


@settings(max_examples=15, deadline=None)
@given(p=PARAMETERS, seed=st.integers(0, 2**32))
def test_the_batch_steps_as_gymnasiums_own_code(p: dict[str, Any], seed: int) -> None:
    """A horizon's worth of steps, each from the same state; episodes that fall are started again."""
    env = gymnasiums_own(p)
    batch = FAMILY.batch({k: np.array([v]) for k, v in p.items()}, CPU)
    rng = np.random.default_rng(seed)
    state, _ = batch.reset(torch.tensor(rng.random((1, 1, 4))))
    for _ in range(HORIZON):
        action = int(rng.integers(2))
        env.state, env.steps_beyond_terminated = state[0, 0].numpy().copy(), None
        seen, reward, terminated, _, _ = env.step(action)  # type: ignore[no-untyped-call]
        state, observed, rewards, ended = batch.step(state, torch.tensor([[action]]))
        np.testing.assert_allclose(state[0, 0].numpy(), env.state, rtol=0, atol=1e-9)
        np.testing.assert_allclose(observed[0, 0].numpy(), seen, rtol=1e-6, atol=1e-9)
        assert rewards[0, 0].item() == reward == 1.0
        assert bool(ended[0, 0]) == terminated
        if terminated:
            state, _ = batch.reset(torch.tensor(rng.random((1, 1, 4))))


@settings(max_examples=15, deadline=None)
@given(p=PARAMETERS, seed=st.integers(0, 2**32))
def test_whole_episodes_agree_from_the_start_alone(p: dict[str, Any], seed: int) -> None:
    task = custom_task(FAMILY, {k: np.array(v) for k, v in p.items()})
    env, own = FAMILY.make(task), gymnasiums_own(p)
    batch = FAMILY.batch(stack_parameters([task]), CPU)
    env.reset(seed=seed)
    own.reset(seed=seed)
    uniforms = gymnasium.utils.seeding.np_random(seed)[0].random((1, 1, 4))
    state, _ = batch.reset(torch.tensor(uniforms))
    rng = np.random.default_rng(seed)
    for _ in range(HORIZON):
        assert own.state is not None
        np.testing.assert_allclose(state[0, 0].numpy(), own.state, rtol=0, atol=1e-9)
        action = int(rng.integers(2))
        seen, _, terminated, truncated, _ = env.step(action)
        expected, _, fell, _, _ = own.step(action)  # type: ignore[no-untyped-call]
        state, _, _, ended = batch.step(state, torch.tensor([[action]]))
        np.testing.assert_array_equal(seen, expected)
        assert terminated == fell == bool(ended[0, 0])
        if terminated or truncated:
            break


@pytest.mark.parametrize("sign", [0, 1])
def test_standard_parameters_are_cartpole_v1_and_the_sign_swaps_its_actions(sign: int) -> None:
    parameters = {k: np.array(v) for k, v in {**STANDARD, "force_sign": sign}.items()}
    env = FAMILY.make(custom_task(FAMILY, parameters))
    theirs = gymnasium.make("CartPole-v1")
    seen, _ = env.reset(seed=4)
    expected, _ = theirs.reset(seed=4)
    steps = 0
    while True:
        np.testing.assert_array_equal(seen, expected)
        push_right = int(expected[2] + 0.5 * expected[3] + 0.05 * expected[0] + 0.1 * expected[1] > 0)
        seen, *flags, _ = env.step(push_right if sign else 1 - push_right)
        expected, *their_flags, _ = theirs.step(push_right)
        assert flags == their_flags
        steps += 1
        if flags[1] or flags[2]:
            break
    assert (steps, flags) == (HORIZON, [1.0, False, True])  # balanced: the time limit truncates, nothing terminates


def test_the_wrong_sign_falls() -> None:
    """The controller of the test above, on a motor wired backwards."""
    env = FAMILY.make(custom_task(FAMILY, {k: np.array(v) for k, v in {**STANDARD, "force_sign": 0}.items()}))
    seen, _ = env.reset(seed=4)
    for _ in range(50):
        seen, reward, terminated, truncated, _ = env.step(int(seen[2] + 0.5 * seen[3] > 0))
        assert reward == 1.0
        if terminated:
            assert not truncated
            assert abs(seen[2]) > 12 * np.pi / 180 or abs(seen[0]) > 2.4
            return
    pytest.fail("50 steps and still upright")
