"""The protocol on the real engine: small, but all of it."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.domain import Simulator, Split
from innerloop_server.evaluation.plan import Plan, draw_tasks
from innerloop_server.evaluation.protocol import evaluate
from innerloop_server.learners.registry import build
from innerloop_server.tasks.families.navigation_2d import no_move_return
from innerloop_server.tasks.registry import load_registry
from innerloop_server.training.specs import spec_for

REGISTRY = load_registry()
FAMILY = REGISTRY.get("navigation-2d")
PLAN = Plan(Split.TEST, 1, 5, 2, 3, 4, 9, guard=True, greedy=False, simulator=Simulator.BATCH)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def revision(tmp_path) -> RevisionRef:
    spec = spec_for(FAMILY, settings={"hidden_sizes": [8]})
    data = safetensors.torch.save(build(spec).initial_meta(0))
    path = tmp_path / "weights.safetensors"
    path.write_bytes(data)
    return RevisionRef("learners/l/revisions/1", hashlib.sha256(data).hexdigest(), str(path), spec)


def engine() -> LocalEngine:
    return LocalEngine(EngineCore(REGISTRY, torch.device("cpu"), device_rows=64))


async def test_the_same_plan_gives_the_same_scores_whatever_the_chunks(revision) -> None:
    used = engine()
    tasks = draw_tasks(FAMILY, PLAN)
    one = await evaluate(used, PLAN, tasks, revision)
    other = await evaluate(engine(), PLAN, tasks, revision, chunk=2)
    np.testing.assert_array_equal(one.returns, other.returns)
    assert one.scores == other.scores
    assert (await used.occupancy()).device_rows == 0
    assert np.all(np.isfinite(one.returns))
    assert not np.array_equal(one.returns[:, 0], one.returns[:, 1])


async def test_other_seeds_give_other_scores(revision) -> None:
    tasks = draw_tasks(FAMILY, PLAN)
    one = await evaluate(engine(), PLAN, tasks, revision)
    other = await evaluate(engine(), replace(PLAN, seed=10), tasks, revision)
    assert not np.any(one.returns == other.returns)


async def test_trajectories_add_up_to_the_returns(revision) -> None:
    result = await evaluate(engine(), PLAN, draw_tasks(FAMILY, PLAN), revision, trajectories=2)
    for (index, k), experience in result.trajectories.items():
        assert experience.rewards.shape == (1, 4, FAMILY.horizon)
        assert experience.rewards.sum(-1).mean() == pytest.approx(result.returns[index, k], rel=1e-5)


async def test_a_policy_that_stands_still_scores_the_closed_form(tmp_path) -> None:
    spec = spec_for(FAMILY, settings={"hidden_sizes": [4], "initial_log_std": -20.0})
    zero = {name: torch.zeros_like(value) for name, value in build(spec).initial_meta(0).items()}
    data = safetensors.torch.save(zero)
    path = tmp_path / "still.safetensors"
    path.write_bytes(data)
    ref = RevisionRef("learners/still/revisions/1", hashlib.sha256(data).hexdigest(), str(path), spec)
    plan = replace(PLAN, tasks=400, steps=0, evaluation_episodes=1, greedy=True)
    (score,) = (await evaluate(engine(), plan, draw_tasks(FAMILY, plan), ref)).scores
    assert score.mean == pytest.approx(no_move_return(), abs=4 * score.standard_error)
