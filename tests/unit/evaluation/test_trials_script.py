"""scripts/trials: whole trials, one of each task, and as many as the committed plan says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))
import trials

from innerloop_server.domain import Split
from innerloop_server.learners.registry import build
from innerloop_server.store.codec import spec_to_json
from innerloop_server.tasks.registry import load_registry
from innerloop_server.training.specs import spec_for

SMALL = {"encoder_sizes": [4], "memory_size": 4, "hidden_sizes": [4]}


def test_the_plan_goes_by_the_whole_name_then_by_the_family() -> None:
    wanted = {
        "bernoulli-bandit": 200_000,
        "bernoulli-bandit.arms-10.pulls-100": 20_000,
        "gridnavi": 21,
        "point-robot-sparse": 2_000,
    }
    assert {name: trials.planned(name) for name in wanted} == wanted
    assert trials.planned("tabular-mdp.states-3") == trials.planned("tabular-mdp")


def test_a_policy_that_stays_is_never_on_a_goal() -> None:
    family = load_registry().get("gridnavi")
    learner = build(spec_for(family, "rl2", settings=SMALL))
    meta = learner.initial_meta(0)
    stays = {**meta, "policy.layers.1.bias": torch.tensor([9.0, 0, 0, 0, 0])}
    result = trials.score(family, learner, stays, Split.VALIDATION, 25, greedy=True)
    assert result.trials == 25
    assert result.standard_error == pytest.approx(0, abs=1e-6)
    assert result.mean == pytest.approx(4 * 15 * -0.1, abs=1e-5)
    assert result.episodes == pytest.approx([-1.5] * 4, abs=1e-5)


def test_the_standard_error_is_that_of_independent_trials() -> None:
    family = load_registry().get("bernoulli-bandit.pulls-4")
    learner = build(spec_for(family, "rl2", settings=SMALL))
    result = trials.score(family, learner, learner.initial_meta(0), Split.VALIDATION, 4_000, greedy=False)
    # Random pulls pay 1/2 each. The five arms of a trial share their means: about the variance of a coin, four times.
    assert result.mean == pytest.approx(2, abs=0.1)
    assert result.standard_error == pytest.approx((4 * 0.25 / 4_000) ** 0.5, rel=0.15)


def test_the_command_reads_a_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_for(load_registry().get("bernoulli-bandit.pulls-4"), "rl2", settings=SMALL)
    safetensors.torch.save_file(build(spec).initial_meta(0), tmp_path / "meta.safetensors")
    (tmp_path / "manifest.json").write_text(json.dumps({"spec": spec_to_json(spec)}))
    monkeypatch.setattr(sys, "argv", ["trials", str(tmp_path), "--split", "validation", "--trials", "10", "--json"])
    assert trials.main() == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["learner"], shown["split"], shown["trials"]) == (spec.name, "validation", 10)
    assert sum(shown["episodes"]) == pytest.approx(shown["mean"])
