from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.acrobot import AcrobotEnv
from gymnasium.wrappers import TimeLimit
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop_server.tasks.families.acrobot_dynamics import HORIZON, AcrobotDynamics, AcrobotDynamicsEnv
from innerloop_server.tasks.families.acrobot_dynamics_batch import _wrap
from innerloop_server.tasks.sampling import custom_task

FAMILY = AcrobotDynamics()
CPU = torch.device("cpu")
LOW, HIGH = (
    {name: float(getattr(space, end)) for name, space in FAMILY.parameter_space.spaces.items() if name != "torque_sign"}
    for end in ("low", "high")
)
PARAMETERS = st.fixed_dictionaries(
    {name: st.floats(LOW[name], HIGH[name]) for name in LOW} | {"torque_sign": st.sampled_from([0, 1])}
)
STATES = st.tuples(
    st.floats(-math.pi, math.pi),
    st.floats(-math.pi, math.pi),
    st.floats(-4 * math.pi, 4 * math.pi),
    st.floats(-9 * math.pi, 9 * math.pi),
)
PLAIN = {"mass_1": 1.0, "mass_2": 1.0, "length_1": 1.0, "length_2": 1.0}


def gymnasiums_own(p: dict[str, Any]) -> AcrobotEnv:
    """Gymnasium's class, its constants set here, as the family's description says them."""
    env = AcrobotEnv()
    env.LINK_MASS_1, env.LINK_MASS_2 = p["mass_1"], p["mass_2"]
    env.LINK_LENGTH_1, env.LINK_LENGTH_2 = p["length_1"], p["length_2"]
    env.LINK_COM_POS_1, env.LINK_COM_POS_2 = 0.5 * p["length_1"], 0.5 * p["length_2"]
    env.LINK_MOI = 0.5 * p["mass_1"] * p["length_1"] ** 2 + 0.5 * p["mass_2"] * p["length_2"] ** 2
    gain = p["torque_gain"] if p["torque_sign"] == 1 else -p["torque_gain"]
    env.AVAIL_TORQUE = [-gain, 0.0, gain]
    return env


@settings(max_examples=150, deadline=None)
@given(p=PARAMETERS, start=STATES, action=st.sampled_from([0, 1, 2]))
def test_one_step_from_any_state_is_gymnasiums_own(p: dict[str, Any], start: tuple[float, ...], action: int) -> None:
    """Both faces; from speeds up to the bounds, where angles wrap and speeds are cut."""
    own, env = gymnasiums_own(p), FAMILY.make(custom_task(FAMILY, {k: np.array(v) for k, v in p.items()}))
    batch = FAMILY.batch({k: np.array([v]) for k, v in p.items()}, CPU)
    env.reset(seed=0)
    own.state = np.array(start)  # type: ignore[assignment] # declared without its type
    env.unwrapped.state = np.array(start)  # type: ignore[attr-defined]
    expected, paid, ended, _, _ = own.step(action)  # type: ignore[no-untyped-call]
    seen, reward, terminated, truncated, info = env.step(action)
    np.testing.assert_allclose(seen, expected, rtol=1e-6, atol=1e-7)
    assert (reward, terminated, truncated, info) == (paid, ended, False, {"success": ended})
    state, observed, rewards, over = batch.step(torch.tensor([[start]], dtype=torch.float64), torch.tensor([[action]]))
    near = np.asarray(own.state)
    turned = (state[0, 0].numpy() - near)[:2] / (2 * math.pi)  # at an end of [-pi, pi] either end will do
    assert np.all(np.abs(state[0, 0, :2].numpy()) <= math.pi + 1e-12)
    np.testing.assert_allclose(turned, np.round(turned), atol=1e-10)
    np.testing.assert_allclose(state[0, 0, 2:].numpy(), near[2:], rtol=0, atol=1e-9)
    np.testing.assert_allclose(observed[0, 0].numpy(), expected, rtol=0, atol=1e-6)
    assert (rewards.item(), over.item(), batch.success(state).item()) == (paid, ended, ended)


def test_angles_wrap_by_whole_turns_and_the_ends_stay() -> None:
    ends_and_turns = [math.pi, -math.pi, math.pi + 0.5, -math.pi - 0.5, 3.5 * math.pi, -5.5 * math.pi, 0.0]
    angles = torch.tensor(ends_and_turns, dtype=torch.float64)
    expected = [math.pi, -math.pi, 0.5 - math.pi, math.pi - 0.5, -0.5 * math.pi, 0.5 * math.pi, 0.0]
    np.testing.assert_allclose(_wrap(angles).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("sign", [0, 1])
def test_plain_links_are_acrobot_v1_and_the_sign_swaps_its_actions(sign: int) -> None:
    """Through a whole swing-up: the torque follows the lower joint's speed, which pumps energy in."""
    env = TimeLimit(AcrobotDynamicsEnv((1.0, 1.0), (1.0, 1.0), 1.0 if sign else -1.0), HORIZON)
    theirs = gymnasium.make("Acrobot-v1")
    seen, _ = env.reset(seed=3)
    expected, _ = theirs.reset(seed=3)
    for _ in range(HORIZON):
        np.testing.assert_array_equal(seen, expected)
        pump = 2 if expected[5] > 0 else 0
        seen, *ours, info = env.step(pump if sign else 2 - pump)
        expected, *others, _ = theirs.step(pump)
        assert ours == others
        if ours[1] or ours[2]:
            break
    assert ours == [0.0, True, False]
    assert info["success"]


def test_the_wrong_sign_does_not_swing_up() -> None:
    """The controller of the test above damps instead of pumping; the time limit ends it."""
    parameters = {**PLAIN, "torque_gain": 0.8, "torque_sign": 0}
    env = FAMILY.make(custom_task(FAMILY, {k: np.array(v) for k, v in parameters.items()}))
    seen, _ = env.reset(seed=3)
    total = 0.0
    for _ in range(HORIZON):
        seen, reward, terminated, truncated, info = env.step(2 if seen[5] > 0 else 0)
        total += float(reward)
        assert not terminated
        assert not info["success"]
    assert truncated
    assert total == -HORIZON


def test_a_start_is_gymnasiums_to_the_bit() -> None:
    env = AcrobotEnv()
    env.reset(seed=8)
    batch = FAMILY.batch({k: np.array([v]) for k, v in {**PLAIN, "torque_gain": 0.8, "torque_sign": 1}.items()}, CPU)
    uniforms = gymnasium.utils.seeding.np_random(8)[0].random((1, 1, 4))
    state, _ = batch.reset(torch.tensor(uniforms))
    np.testing.assert_array_equal(state[0, 0].numpy(), np.asarray(env.state, np.float64))
