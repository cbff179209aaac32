"""Scores of a method that remembers: k counts episodes, and a trial's return is that of its episodes in a row."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from evaluation_fakes import FakeEngine, a_ref

from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.domain import LearnerSpec, Split, Task
from innerloop_server.evaluation.plan import draw_tasks, fixed_plan, make_plan
from innerloop_server.evaluation.protocol import evaluate
from innerloop_server.evaluation.scores import trial_metrics
from innerloop_server.learners.learner import Input
from innerloop_server.learners.registry import build
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import stack_parameters
from innerloop_server.tasks.trials import Trials
from innerloop_server.training.specs import spec_for

REGISTRY = load_registry()
FAMILY = REGISTRY.get("gridnavi")
DRAWN = REGISTRY.get("navigation-2d")
SETTINGS = {
    "encoder_sizes": [8],
    "memory_size": 8,
    "hidden_sizes": [8],
    "last_layer_scale": 1.0,
    "episodes_per_trial": FAMILY.episodes_per_trial,
}


@pytest.fixture(params=["gru", "transformer"])
def ref(request: pytest.FixtureRequest, tmp_path: Path) -> RevisionRef:
    settings = SETTINGS | {"memory": request.param}
    spec = replace(spec_for(FAMILY), name="gridnavi-rl2", method="rl2", settings=settings)
    data = safetensors.torch.save(build(spec).initial_meta(5))
    path = tmp_path / "weights"
    path.write_bytes(data)
    return RevisionRef("learners/gridnavi-rl2/revisions/1", hashlib.sha256(data).hexdigest(), str(path), spec)


def test_plans_of_learners_that_remember_have_a_guard_whatever_their_steps() -> None:
    assert not make_plan(FAMILY, Split.TEST, episodes_per_step=1).guard
    assert make_plan(FAMILY, Split.TEST, remembers=True, episodes_per_step=1).guard
    assert not make_plan(FAMILY, Split.TEST, remembers=True, episodes_per_step=1, guard=False).guard
    assert fixed_plan(DRAWN, Split.TEST, remembers=True).guard


async def test_past_a_trial_of_training_every_episode_is_as_its_last(ref: RevisionRef) -> None:
    trial, found = 1, {}
    ref = replace(ref, spec=replace(ref.spec, settings={**ref.spec.settings, "episodes_per_trial": trial}))
    for guard in (True, False):
        plan = make_plan(FAMILY, Split.TEST, tasks=21, steps=3, evaluation_episodes=1, greedy=True, guard=guard)
        engine = LocalEngine(EngineCore(REGISTRY, torch.device("cpu"), device_rows=32))
        found[guard] = (await evaluate(engine, plan, draw_tasks(FAMILY, plan), ref)).returns
    np.testing.assert_array_equal(found[True][:, :trial], found[False][:, :trial])
    np.testing.assert_array_equal(found[True], found[True][:, :1].repeat(4, 1))
    assert not np.array_equal(found[True], found[False]), "a memory that goes on changing nothing proves little"


@torch.no_grad()
def trial_returns(spec: LearnerSpec, tasks: list[Task]) -> np.ndarray:
    """[M] undiscounted returns of a whole greedy trial of each task, memory kept throughout."""
    learner = build(spec)
    meta = learner.initial_meta(5)
    trials = Trials.of(FAMILY, stack_parameters(tasks), torch.device("cpu"))
    state, observation = trials.begin(torch.zeros(len(tasks), 1, trials.batch.reset_uniforms, dtype=torch.float64))
    memory, seen, total = learner.begin(meta, len(tasks)), Input(observation), torch.zeros(len(tasks), 1)
    for _ in range(trials.steps):
        distribution, memory = learner.act(meta, memory, seen)
        action = distribution.sample(None)
        state, step = trials.step(
            state, action, resets=torch.zeros(len(tasks), 1, trials.batch.reset_uniforms).double()
        )
        total += step.reward
        seen = Input(step.observation, action, step.reward, step.terminated, step.truncated, step.trial_end)
    return total[:, 0].numpy()


async def test_the_trial_return_is_that_of_whole_trials(ref: RevisionRef) -> None:
    plan = make_plan(FAMILY, Split.TEST, tasks=21, steps=4, evaluation_episodes=2, greedy=True)
    tasks = draw_tasks(FAMILY, plan)
    engine = LocalEngine(EngineCore(REGISTRY, torch.device("cpu"), device_rows=32))
    result = await evaluate(engine, plan, tasks, ref, trial_episodes=FAMILY.episodes_per_trial)
    assert ["trial_return" in score.metrics for score in result.scores] == [False, False, False, True, False]
    whole = trial_returns(ref.spec, tasks)
    np.testing.assert_allclose(result.returns[:, :4].sum(1), whole, atol=1e-4)
    metrics = result.scores[3].metrics
    assert metrics["trial_return"] == pytest.approx(whole.mean(), abs=1e-4)
    for name, value in trial_metrics(whole, plan.seed).items():
        assert metrics[name] == pytest.approx(value, abs=1e-3), name
    assert len({tuple(row) for row in result.returns.tolist()}) > 1
    assert not np.array_equal(result.returns[:, 0], result.returns[:, 1]), "a memory that changes nothing proves little"


async def test_scores_are_the_same_whatever_keeps_company(ref: RevisionRef) -> None:
    plan = make_plan(FAMILY, Split.TEST, tasks=6, steps=2, evaluation_episodes=3)
    tasks = draw_tasks(FAMILY, plan)
    found = []
    for chunk in (6, 2, 1):
        engine = LocalEngine(EngineCore(REGISTRY, torch.device("cpu"), device_rows=32))
        found.append((await evaluate(engine, plan, tasks, ref, chunk=chunk)).returns)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize(("steps", "at"), [(1, None), (2, 2), (5, 2)])
async def test_a_trial_that_was_not_played_to_its_end_has_no_return(steps: int, at: int | None) -> None:
    plan = make_plan(DRAWN, Split.TEST, tasks=3, steps=steps)
    result = await evaluate(FakeEngine(), plan, draw_tasks(DRAWN, plan), a_ref(), trial_episodes=3)
    assert [score.k for score in result.scores if "trial_return" in score.metrics] == ([] if at is None else [at])
    if at is not None:  # the fake's task i scores 10 i + k
        assert result.scores[at].metrics["trial_return"] == pytest.approx(np.mean([30 * i + 3 for i in range(3)]))


async def test_steps_are_greedy_where_the_plan_is() -> None:
    engine = FakeEngine()
    plan = make_plan(DRAWN, Split.TEST, tasks=2, steps=2, greedy=True)
    await evaluate(engine, plan, draw_tasks(DRAWN, plan), a_ref())
    assert {order.greedy for order in engine.steps} == {True}
