"""Meta-World through the actors, the engine and the evaluator, as its own protocol has it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from innerloop_server.actors.pool import ActorPool
from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.domain import Split
from innerloop_server.evaluation.plan import Plan, draw_tasks, fixed_plan
from innerloop_server.evaluation.protocol import EvaluationResult, evaluate
from innerloop_server.learners.registry import build
from innerloop_server.tasks.families.metaworld import MetaWorldML1, MetaWorldML10
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import Registry
from innerloop_server.training.specs import spec_for

pytest.importorskip("metaworld", reason="Meta-World is not installed: pip install 'innerloop[metaworld]'")

FAMILIES = (MetaWorldML1(), MetaWorldML10())
by_name = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


async def evaluated(family: Family, plan: Plan, folder: Path) -> EvaluationResult:
    """What the plan says of a learner that nobody trained. Episodes are cut at the family's horizon."""
    spec = spec_for(family, settings={"hidden_sizes": [8], "inner_steps": 1})
    data = safetensors.torch.save(build(spec).initial_meta(0))
    path = folder / "weights.safetensors"
    path.write_bytes(data)
    revision = RevisionRef("learners/l/revisions/1", hashlib.sha256(data).hexdigest(), str(path), spec)
    registry = Registry({family.name: family})
    with ActorPool(2, 16) as pool:
        engine = LocalEngine(EngineCore(registry, torch.device("cpu"), device_rows=256, actors=pool))
        return await evaluate(engine, plan, draw_tasks(family, plan), revision)


@by_name
async def test_an_untrained_learner_is_scored_through_the_actors(family: Family, tmp_path: Path) -> None:
    short = type(family)()
    short.horizon = 40
    plan = replace(fixed_plan(short), tasks=len(family._test), episodes_per_step=2, evaluation_episodes=1)
    result = await evaluated(short, plan, tmp_path)
    assert result.returns.shape == (plan.tasks, 2)
    assert np.all((result.returns >= 0) & (result.returns <= 400))  # shaped rewards of 40 steps, 0 to 10 each
    moved = np.any(result.returns > 0, 1)  # one environment pays nothing before its object was touched
    assert moved.sum() >= 0.8 * plan.tasks
    assert not np.any(result.returns[moved, 0] == result.returns[moved, 1])
    for k, score in enumerate(result.scores):
        assert (score.k, score.tasks, score.episodes) == (k, plan.tasks, 1)
        assert score.metrics["success"] in np.arange(plan.tasks + 1) / plan.tasks


@pytest.mark.slow
@pytest.mark.timeout(600)
@by_name
async def test_the_official_protocol_on_a_few_goals(family: Family, tmp_path: Path) -> None:
    official = fixed_plan(family)
    assert (official.split, official.tasks) == (Split.TEST, 40 * len(family._test))
    assert (official.steps, official.episodes_per_step, official.evaluation_episodes) == (1, 10, 3)
    result = await evaluated(family, replace(official, tasks=5), tmp_path)
    assert np.all((result.returns >= 0) & (result.returns < 5_000))
    assert result.returns.max() > 100  # whole episodes
    for score in result.scores:
        assert 0 <= score.metrics["success"] <= 1
