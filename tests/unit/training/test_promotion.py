from __future__ import annotations

import asyncio
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # training_support
from training_support import FAMILY, final_weights, tiny_run

from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.adaptation.worth import Curve, gains
from innerloop_server.domain import Score, Split
from innerloop_server.evaluation.plan import Plan
from innerloop_server.evaluation.scores import score
from innerloop_server.tasks.registry import load_registry
from innerloop_server.training import candidates
from innerloop_server.training.promotion import Validation, judge, validation_plan, validator
from innerloop_server.training.trainer import train


def test_equal_weights_are_no_worse() -> None:
    returns = np.array([1.0, -2.0, 3.0])
    verdict = judge(returns, returns, 7)
    assert (verdict.promote, verdict.champion, verdict.difference, verdict.low, verdict.high) == (True, 7, 0, 0, 0)


@pytest.mark.parametrize(("shift", "promote"), [(1e-9, True), (0.0, True), (-1e-9, False)])
def test_the_mean_paired_difference_decides(shift: float, promote: bool) -> None:
    champion = np.array([0.0, 8.0, 2.0, 4.0])
    challenger = champion + np.array([3.0, -1.0, -3.0, 1.0]) + shift
    assert judge(challenger, champion, 1).promote is promote


def test_the_interval_is_paired() -> None:
    champion = np.linspace(-100, 100, 50)  # tasks differ a hundred times more than the two revisions
    verdict = judge(champion + 1 + 0.01 * np.cos(np.arange(50)), champion, 1)
    assert verdict.low is not None
    assert verdict.high is not None
    assert 0.99 < verdict.low < verdict.difference < verdict.high < 1.01  # type: ignore[operator]


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_a_challenger_that_is_not_finite_is_turned_away(bad: float) -> None:
    assert not judge(np.array([bad, 100.0]), np.array([0.0, 0.0]), 1).promote


def test_unpaired_returns_are_refused() -> None:
    with pytest.raises(ValueError, match="paired"):
        judge(np.zeros(3), np.zeros(4), 1)


@pytest.mark.parametrize("unknown", [math.nan, -math.inf])
def test_unknown_intervals_are_null_in_a_manifest(unknown: float) -> None:
    one = Score(k=0, tasks=1, episodes=1, mean=1.0, interquartile_mean=1.0, low=unknown, high=1.0, standard_error=0.1)
    (values,) = Validation(np.zeros(1), (one,), {}).to_json()["scores"]
    assert (values["low"], values["high"]) == (None, 1.0)


def test_a_manifest_keeps_what_sessions_with_budget_auto_go_by() -> None:
    returns = np.array([[0.0, 8.0, 8.0], [1.0, 11.0, 11.2]])
    scores = tuple(score(returns[:, k], k, 1, 0) for k in range(3))
    kept = Validation(returns[:, -1], scores, {"episodes_per_step": 20}, gains(returns)).to_json()
    curve = Curve.of({"validation": json.loads(json.dumps(kept))})
    assert curve is not None
    assert curve.means == (0.5, 9.5, 9.6)
    assert curve.gains == gains(returns)
    assert curve.episodes_per_step == 20


def test_the_plan_is_the_committed_one_for_the_steps_that_were_trained(tmp_path: Path) -> None:
    spec = tiny_run(tmp_path / "run").settings().spec
    plan = validation_plan(load_registry().get(FAMILY), spec)
    assert (plan.split, plan.steps, plan.tasks, plan.guard) == (Split.VALIDATION, 1, 100, True)
    remembering = replace(spec, method="rl2", settings={})
    assert validation_plan(load_registry().get(FAMILY), remembering).guard


def test_an_engine_scores_the_same_revision_the_same(tmp_path: Path) -> None:
    registry = load_registry()
    folder = tiny_run(tmp_path / "run", updates=1)
    train(folder, lambda _: None, lambda: False)
    candidate = candidates.read(folder, 1)
    assert candidate.path.read_bytes() == final_weights(folder)

    def small(family: object, spec: object) -> Plan:
        return replace(validation_plan(family, spec), tasks=3, evaluation_episodes=2)  # type: ignore[arg-type]

    engine = LocalEngine(EngineCore(registry, torch.device("cpu"), device_rows=8))
    ref = RevisionRef("it", candidate.hash, str(candidate.path), folder.settings().spec)

    async def twice() -> tuple[Validation, Validation]:
        validate = validator(engine, registry, small)
        first = await validate(ref)
        assert await validate(replace(ref, name="the same under another name")) is first
        longer = replace(ref.spec, settings={**ref.spec.settings, "inner_steps": 2})
        assert len((await validate(replace(ref, spec=longer))).scores) == len(first.scores) + 1
        return first, await validator(engine, registry, small)(ref)

    one, two = asyncio.run(twice())
    assert one.returns.shape == (3,)
    assert np.array_equal(one.returns, two.returns)
    assert [score.k for score in one.scores] == [0, 1]
    assert judge(one.returns, two.returns, 1).difference == 0
