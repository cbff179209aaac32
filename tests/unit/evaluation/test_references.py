import hashlib
import json

import numpy as np
import pytest

from innerloop.arrays import Box
from innerloop.policy import load_policy
from innerloop_server.domain import Reference
from innerloop_server.evaluation.plan import fixed_plan
from innerloop_server.evaluation.references.catalog import ZOO, manifest, references
from innerloop_server.tasks.families.navigation_2d import HORIZON, no_move_return
from innerloop_server.tasks.registry import load_registry

FAMILIES = load_registry().families
TRAINED = ("acrobot-dynamics", "cartpole-dynamics", "pendulum-dynamics")
BOUNDS = {
    "acrobot-dynamics": (-340.0, -150.0),
    "cartpole-dynamics": (250.0, 495.0),
    "pendulum-dynamics": (-880.0, -160.0),
}


def test_exact_numbers_come_first_and_are_never_replaced(tmp_path) -> None:
    entry = {"value": 1.0, "source": "trained"}
    (tmp_path / "navigation-2d.json").write_text(
        json.dumps({"references": {"oracle": entry, "memoryless": {**entry, "value": -30.0}}})
    )
    exact = FAMILIES["navigation-2d"].references
    assert references(FAMILIES["navigation-2d"], tmp_path) == (*exact, Reference("memoryless", -30.0, "trained"))


def test_a_family_without_references(tmp_path) -> None:
    assert references(FAMILIES["cartpole-dynamics"], tmp_path) == ()
    assert manifest("nobody") is None


def test_who_cannot_see_the_goal_stands_still() -> None:
    found = {reference.name: reference.value for reference in references(FAMILIES["navigation-2d"])}
    assert found["memoryless"] == found["no-move"] == no_move_return()
    assert found["oracle"] == pytest.approx(-0.51, abs=0.005)


def test_sweeping_for_the_goal_is_worth_next_to_nothing() -> None:
    # What the manifest says: ending some episodes early by looking into the 12 cells around the start before standing
    # still there. Goals on a fine grid instead of at random.
    axis = (np.arange(1_000) + 0.5) / 1_000 - 0.5
    goals = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    ring = sorted(((i, j) for i in range(-2, 3) for j in range(-2, 3)), key=lambda c: c[0] ** 2 + c[1] ** 2)
    sweep = [0.02 * np.array(cell) for cell in reversed(ring[1:13])]

    def mean_return(visits: list[np.ndarray]) -> float:
        total, alive = np.zeros(len(goals)), np.ones(len(goals), bool)
        for place in visits:
            total -= alive * np.hypot(*(goals - place).T)
            alive &= ~np.all(np.abs(goals - place) < 0.01, 1)
        still = np.hypot(*goals.T)
        total -= alive * still * np.where(np.all(np.abs(goals) < 0.01, 1), 1, HORIZON - len(visits))
        return float(total.mean())

    assert mean_return([]) == pytest.approx(no_move_return(), abs=1e-3)
    assert 0 < mean_return(sweep) - mean_return([]) < 0.01


@pytest.mark.parametrize("family", TRAINED)
def test_the_shipped_bounds_are_real(family: str) -> None:
    found = {reference.name: reference for reference in references(FAMILIES[family])}
    memoryless, oracle = BOUNDS[family]
    assert found["memoryless"].value >= memoryless
    assert found["oracle"].value >= oracle
    shipped = manifest(family)
    plan = fixed_plan(FAMILIES[family])
    assert shipped["test"]["tasks"] == plan.tasks
    assert (shipped["test"]["task_seed"], shipped["test"]["seed"]) == (plan.task_seed, plan.seed)
    for entry in shipped["references"].values():
        means = [run[acting]["mean"] for run in entry["runs"] for acting in ("greedy", "sampled")]
        assert entry["value"] == max(means)
        data = (ZOO / entry["weights"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]


@pytest.mark.parametrize("family", TRAINED)
def test_an_oracle_sees_the_parameters_and_a_memoryless_policy_does_not(family: str) -> None:
    own = FAMILIES[family].observation_space
    assert isinstance(own, Box)
    shown = sum(int(np.prod(part.shape or ())) for part in FAMILIES[family].parameter_space.spaces.values())
    for kind, size in (("memoryless", own.size), ("oracle", own.size + shown)):
        policy = load_policy(ZOO / f"{family}-{kind}.safetensors")
        assert policy.header.observation_size == size
