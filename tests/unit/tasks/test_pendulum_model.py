from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.pendulum import PendulumEnv

from innerloop_server.domain import Split
from innerloop_server.tasks.families.pendulum_dynamics import PendulumDynamics
from innerloop_server.tasks.families.pendulum_model import DT, PendulumModel, reference_errors
from innerloop_server.tasks.sampling import custom_task, sample_task, stack_parameters

FAMILY = PendulumModel()
CPU = torch.device("cpu")
STANDARD = {"mass": 1.0, "length": 1.0, "gravity": 10.0, "torque_gain": 1.0, "torque_sign": 1}


def test_with_gymnasiums_constants_it_predicts_pendulum_v1() -> None:
    env = FAMILY.make(custom_task(FAMILY, {name: np.array(value) for name, value in STANDARD.items()}))
    own = PendulumEnv()
    for seed in range(20):
        seen, _ = env.reset(seed=seed, options={"query": seed % 2 == 1})
        cos, sin, speed, command = seen.astype(np.float64)
        own.reset(seed=0)
        own.state = np.array([math.atan2(sin, cos), speed])
        after, *_ = own.step(np.array([command]))  # type: ignore[no-untyped-call]
        _, reward, _, _, info = env.step(np.zeros(3, np.float32))
        np.testing.assert_allclose(info["feedback"], after - seen[:3], atol=2e-6)
        assert reward == pytest.approx(-np.mean(info["feedback"].astype(np.float64) ** 2), rel=1e-9)


def test_numbers_worked_by_hand() -> None:
    p = {"mass": 0.7, "length": 1.3, "gravity": 7.0, "torque_gain": 1.5, "torque_sign": 0}
    batch = FAMILY.batch({name: np.array([value]) for name, value in p.items()}, CPU)
    # A quarter turn from upright, at rest, commanded 1: 0.375 of a half is 0.75 of the circle.
    state, seen = batch.reset(torch.tensor([[[0.375, 0.5, 0.75]]], dtype=torch.float64))
    np.testing.assert_allclose(seen[0, 0].numpy(), [0, 1, 0, 1], atol=1e-7)
    speed = (3 * 7.0 / (2 * 1.3) * 1 + 3 / (0.7 * 1.3**2) * -1.5) * 0.05
    turn = speed * 0.05
    expected = [-math.sin(turn), math.cos(turn) - 1, speed]
    np.testing.assert_allclose(batch.feedback(state)[0, 0].numpy(), expected, rtol=1e-6, atol=1e-9)


def test_no_pendulum_reaches_a_bound_or_gymnasiums_clip() -> None:
    corners = [
        {"mass": 0.7, "length": 0.7, "gravity": 13.0, "torque_gain": 1.5, "torque_sign": sign} for sign in (0, 1)
    ]
    batch = FAMILY.batch({name: np.array([float(c[name]) for c in corners]) for name in corners[0]}, CPU)
    ends = torch.tensor([0, 1 - 1e-9], dtype=torch.float64)
    grid = torch.cartesian_prod(torch.linspace(0, 0.5 - 1e-9, 33, dtype=torch.float64), ends, ends)
    state, seen = batch.reset(grid.expand(2, -1, -1))
    change = batch.feedback(state)
    assert (seen[..., 2] + change[..., 2]).abs().max() < 8
    high = torch.tensor(FAMILY.action_space.high)
    assert (change.abs() < high).all()
    assert (change.abs().amax((0, 1)) > 0.5 * high).all()  # nor are the bounds far out


def test_it_hides_what_pendulum_dynamics_hides() -> None:
    assert FAMILY.parameter_space == PendulumDynamics().parameter_space
    assert PendulumEnv().dt == DT


def test_the_references_are_what_such_predictors_earn() -> None:
    """The memoryless one is told apart from the mean of many other pendulums' changes, found by sampling."""
    tasks = [sample_task(FAMILY, 1, Split.TEST, index) for index in range(3000)]
    batch = FAMILY.batch(stack_parameters(tasks), CPU)
    one = torch.rand(1, 60, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    targets = batch.feedback(batch.reset(one.expand(3000, -1, -1))[0]).double()
    constant, memoryless = reference_errors()

    # Over pendulums, at each of the 60 examples: the variance is the memoryless error there.
    variance = targets.var(0).mean(-1)
    assert abs(variance.mean() - memoryless) < 4 * variance.std() / math.sqrt(60)
    everything = torch.rand(3000, 60, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    spread = batch.feedback(batch.reset(everything)[0]).double()
    assert spread.flatten(0, 1).var(0).mean() == pytest.approx(constant, rel=0.01)
    assert {r.name: r.value for r in FAMILY.references} == {
        "constant": -constant,
        "memoryless": -memoryless,
        "oracle": 0.0,
    }
    assert 0 < memoryless < constant


def test_the_quadrature_has_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    import innerloop_server.tasks.families.pendulum_model as module

    before = reference_errors()
    rule = module._gauss
    monkeypatch.setattr(module, "_gauss", lambda low, high, nodes: rule(low, high, nodes + 1))
    assert reference_errors() == pytest.approx(before, rel=1e-6)
