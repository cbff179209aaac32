from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from innerloop_server.domain import Split, Supervision
from innerloop_server.tasks.families.sinusoid import Sinusoid, constant_error, memoryless_error
from innerloop_server.tasks.sampling import custom_task, sample_task, stack_parameters

FAMILY = Sinusoid()
CPU = torch.device("cpu")


def test_it_is_regression_of_one_number() -> None:
    assert FAMILY.supervision is Supervision.REGRESSION
    assert FAMILY.feedback_size == 1
    assert FAMILY.horizon == 1


def test_numbers_worked_by_hand() -> None:
    batch = FAMILY.batch({"amplitude": np.array([2.0, 4.0]), "phase": np.array([0.0, math.pi / 2])}, CPU)
    # support, then queries: 0.25 and 0.75 are both the middle of the range, x = 0; 0.3 is x = 1
    uniforms = torch.tensor([[[0.25], [0.75], [0.3]]] * 2, dtype=torch.float64)
    state, x = batch.reset(uniforms)
    np.testing.assert_allclose(x[0, :, 0].numpy(), [0, 0, 1], atol=1e-6)
    targets = [[0, 0, 2 * math.sin(1)], [-4, -4, -4 * math.cos(1)]]
    np.testing.assert_allclose(batch.feedback(state)[..., 0].numpy(), targets, rtol=1e-6)
    _, after, reward, terminated = batch.step(state, torch.full((2, 3, 1), -1.0))
    np.testing.assert_allclose(reward.numpy(), -((np.array(targets) + 1) ** 2), rtol=1e-6)
    assert not after.any()
    assert terminated.all()


def test_the_environment_answers_the_same() -> None:
    env = FAMILY.make(custom_task(FAMILY, {"amplitude": np.array(4.0), "phase": np.array(math.pi / 2)}))
    x, _ = env.reset(seed=3)
    _, reward, terminated, _, info = env.step(np.array([1.5], np.float32))
    target = -4 * math.cos(x[0])
    assert info["feedback"] == pytest.approx([target], rel=1e-6)
    assert reward == pytest.approx(-((1.5 - target) ** 2), rel=1e-6)
    assert terminated


def test_support_and_queries_both_come_from_everywhere_and_share_no_point() -> None:
    batch = FAMILY.batch({"amplitude": np.ones(1), "phase": np.zeros(1)}, CPU)
    half = torch.rand(1, 4000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 2
    _, support = batch.reset(half)
    _, queries = batch.reset(half + 0.5)
    for points in (support, queries):
        assert points.min() < -4.98
        assert points.max() > 4.98
        assert points.mean().abs() < 5 * (10 / math.sqrt(12)) / math.sqrt(4000)


def test_the_references_are_what_such_predictors_earn() -> None:
    tasks = [sample_task(FAMILY, 1, Split.TEST, index) for index in range(4000)]
    batch = FAMILY.batch(stack_parameters(tasks), CPU)
    state, x = batch.reset(torch.rand(4000, 50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))

    def earned(prediction: torch.Tensor) -> tuple[float, float]:
        per_task = batch.step(state, prediction)[2].double().mean(1)
        return per_task.mean().item(), per_task.std().item() / math.sqrt(len(tasks))

    by_name = {reference.name: reference.value for reference in FAMILY.references}
    mean_wave = -(2 / math.pi) * 2.55 * torch.cos(x)
    for name, prediction in {"constant": torch.full_like(x, 0.3113), "memoryless": mean_wave}.items():
        mean, error = earned(prediction)
        assert abs(mean - by_name[name]) < 4 * error
    assert earned(batch.feedback(state)) == (by_name["oracle"], 0.0)
    assert (constant_error(), memoryless_error()) == pytest.approx((4.1548, 3.0058), abs=2e-4)
