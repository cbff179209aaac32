"""``scripts/baselines``: what learns from the examples alone, on the examples that an evaluation draws."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import safetensors.torch
import torch

from innerloop_server.domain import Supervision
from innerloop_server.evaluation.plan import draw_tasks, fixed_plan
from innerloop_server.learners.registry import build
from innerloop_server.store.codec import spec_to_json
from innerloop_server.tasks.families.digits import Digits
from innerloop_server.tasks.families.sinusoid import Sinusoid
from innerloop_server.tasks.families.sinusoid_batch import SinusoidBatch
from innerloop_server.training.specs import spec_for

SCRIPT = Path(__file__).parents[3] / "scripts" / "baselines.py"


@pytest.fixture(scope="module")
def baselines() -> ModuleType:
    spec = importlib.util.spec_from_file_location("baselines", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["baselines"] = module
    spec.loader.exec_module(module)
    return module


def put(folder: Path, family: Sinusoid | Digits) -> Path:
    """An untrained learner, as scripts/train leaves one."""
    spec = spec_for(family)
    (folder / "manifest.json").write_text(json.dumps({"spec": spec_to_json(spec)}))
    (folder / "meta.safetensors").write_bytes(safetensors.torch.save(build(spec).initial_meta(0)))
    return folder


def test_predictions_worked_by_hand(baselines: ModuleType) -> None:
    support, labels = np.array([[0.0], [4.0], [2.0], [6.0]]), np.array([[0.0], [1.0], [0.0], [1.0]])
    near = baselines.nearest_centroid(support, labels, np.array([[2.5], [3.0]]))  # centres 1 and 5
    np.testing.assert_allclose(near[0], [-math.log1p(math.exp(-4.0)), -4 - math.log1p(math.exp(-4.0))], rtol=1e-12)
    np.testing.assert_allclose(near[1], [-math.log(2)] * 2, rtol=1e-12)
    assert baselines.logistic_regression(support, labels, np.array([[0.0], [6.0]])).argmax(1).tolist() == [0, 1]
    answers = np.array([[1.0, 0.0], [3.0, 2.0]])
    np.testing.assert_array_equal(baselines.mean(support[:2], answers, support), [[2.0, 1.0]] * 4)
    line = np.arange(8.0)[:, None]
    for fit in (baselines.ridge, baselines.kernel_ridge):
        assert fit(line, 3 * line, np.array([[3.5]])) == pytest.approx(10.5, abs=0.1)


def test_metrics_worked_by_hand(baselines: ModuleType) -> None:
    predicted = np.log([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1]])
    found = baselines.measure(Supervision.CLASSIFICATION, predicted, np.array([[0.0], [1.0], [1.0]]))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["cross_entropy"] == pytest.approx(-(math.log(0.8) + math.log(0.6) + math.log(0.1)) / 3)
    found = baselines.measure(Supervision.REGRESSION, np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]]))
    assert found == {"mse": 2.5}


def test_they_see_the_examples_that_an_evaluation_draws(
    baselines: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Sinusoid()
    plan = dataclasses.replace(fixed_plan(family), tasks=3, steps=2, evaluation_episodes=7)
    tasks = draw_tasks(family, plan)
    expected = baselines.examples(family, plan, tasks, 5)
    drawn: list[torch.Tensor] = []
    original = SinusoidBatch.examples

    def recorded(self: SinusoidBatch, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen, answers = original(self, uniforms)
        drawn.append(torch.cat((seen, answers), -1).double())
        return seen, answers

    monkeypatch.setattr(SinusoidBatch, "examples", recorded)
    baselines.learner_scores(put(tmp_path, family), family, [5], tasks, plan)
    rows = [row.tolist() for batch in drawn for row in batch]
    supports = [row for row in rows if len(row) == 5]
    queries = [row for row in rows if len(row) == 7]
    assert len(queries) == len(tasks) * (plan.steps + 1)
    expected_queries = np.concatenate((expected.queries, expected.truths), -1).tolist()
    assert sorted(queries[-len(tasks) :]) == sorted(expected_queries)  # those of the last step
    # Predicted again in every step, but the same.
    expected_supports = np.concatenate((expected.support, expected.answers), -1).tolist()
    assert sorted(map(str, expected_supports)) == sorted(set(map(str, supports)))


def test_fewer_shots_are_the_first_of_more(baselines: ModuleType) -> None:
    family = Digits()
    plan = dataclasses.replace(fixed_plan(family), tasks=4)
    tasks = draw_tasks(family, plan)
    few, many = (baselines.examples(family, plan, tasks, n) for n in (4, 20))
    np.testing.assert_array_equal(few.support, many.support[:, :4])
    np.testing.assert_array_equal(few.queries, many.queries)
    np.testing.assert_array_equal(few.answers[..., 0], [[0, 1, 0, 1]] * 4)


def test_more_shots_help_and_a_learner_is_scored_beside_them(
    baselines: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = put(tmp_path, Digits())
    command = ["baselines.py", "digits", "--tasks", "10", "--shots", "1", "10", "--run", str(run)]
    monkeypatch.setattr(sys, "argv", [*command, "--json"])
    assert baselines.main() == 0
    found = json.loads(capsys.readouterr().out)
    accuracy = {(row["method"], row["shots"]): row["scores"]["accuracy"] for row in found["scores"]}
    for method in ("logistic regression", "nearest centroid"):
        assert accuracy[method, 1][0] <= accuracy[method, 10][0]
        assert all(low <= mean <= high for mean, low, high in (accuracy[method, 1], accuracy[method, 10]))
        assert accuracy[method, 10][0] > 0.9
    assert ("digits-maml", 10) in accuracy
    monkeypatch.setattr(sys, "argv", command)
    baselines.main()
    assert "logistic regression catches up with digits-maml of 10 shots" in capsys.readouterr().out


def test_where_a_baseline_catches_up(baselines: ModuleType) -> None:
    rows = [baselines.Row("m", shots, {"accuracy": (mean, 0, 1)}) for shots, mean in ((5, 0.8), (1, 0.6), (10, 0.9))]
    assert baselines.catches_up(rows, 0.8) == 5
    assert baselines.catches_up(rows, 0.95) is None
    errors = [baselines.Row("m", shots, {"mse": (mean, 0, 1)}) for shots, mean in ((1, 2.0), (5, 0.5))]
    assert baselines.catches_up(errors, 1.0) == 5


def test_a_family_without_answers_is_refused(
    baselines: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["baselines.py", "navigation-2d"])
    with pytest.raises(SystemExit):
        baselines.main()
    assert "not supervised" in capsys.readouterr().err
