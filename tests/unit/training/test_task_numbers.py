from __future__ import annotations

import numpy as np
import pytest

from innerloop_server.domain import Split
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training import task_numbers
from innerloop_server.training.specs import spec_for


def drawn(name: str) -> tuple[Family, np.ndarray, list[dict[str, np.ndarray]]]:
    family = load_registry().get(name)
    tasks = [sample_task(family, 0, Split.TRAIN, i) for i in range(3)]
    return family, task_numbers.of(family, tasks), [dict(task.parameters) for task in tasks]


def test_choices_are_told_one_by_one() -> None:
    family, numbers, parameters = drawn("gridnavi")
    assert numbers.shape == (3, task_numbers.size(family)) == (3, 21)
    assert numbers.argmax(1).tolist() == [int(one["goal"]) for one in parameters]
    assert sorted(set(numbers.ravel().tolist())) == [-1, 1]


def test_what_has_bounds_is_told_between_minus_one_and_one() -> None:
    family, numbers, parameters = drawn("bernoulli-bandit.arms-3")
    assert task_numbers.size(family) == 3
    np.testing.assert_allclose(numbers, [2 * one["probabilities"] - 1 for one in parameters], atol=1e-6)


def test_what_has_none_is_told_as_it_is() -> None:
    family, numbers, parameters = drawn("tabular-mdp.states-3.actions-2")
    assert numbers.shape == (3, task_numbers.size(family)) == (3, 3 * 2 * 3 + 3 * 2)
    for row, one in zip(numbers, parameters, strict=True):
        want = {"transitions": 2 * one["transitions"] - 1, "rewards": one["rewards"]}
        order = np.concatenate([np.ravel(want[name]) for name in family.parameter_space.spaces])
        np.testing.assert_allclose(row, order, atol=1e-6)


@pytest.mark.parametrize(("family", "size"), [("tabular-mdp.states-50", 0), ("cartpole-dynamics", 5)])
def test_a_task_that_takes_too_much_telling_is_not_told(family: str, size: int) -> None:
    found = load_registry().get(family)
    assert spec_for(found, "rl2").settings["task_size"] == task_numbers.size(found) == size
    assert "task_size" not in spec_for(found, "maml").settings
