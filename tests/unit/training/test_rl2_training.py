"""RL2 through the trainer: what a run leaves, that it resumes, and what can be asked for."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # training_support
from training_support import final_weights, logged, newest_checkpoint

from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.domain import Adaptation, LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.evaluation.plan import Plan
from innerloop_server.evaluation.scores import TRIAL_RETURN
from innerloop_server.learners import registry as methods
from innerloop_server.learners.rl2 import Rl2
from innerloop_server.learners.rl2_settings import Rl2Settings
from innerloop_server.tasks.families.bernoulli_bandit import BernoulliBandit
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import load_registry
from innerloop_server.training import candidates, specs
from innerloop_server.training.messages import Message, Updated
from innerloop_server.training.promotion import validation_plan, validator
from innerloop_server.training.requests import TrainingRequest, plan
from innerloop_server.training.run import RunFolder
from innerloop_server.training.trainer import train

FAMILY = "bernoulli-bandit"
TINY = {"encoder_sizes": [4], "memory_size": 4, "hidden_sizes": [4], "tasks_per_update": 8, "checkpoint_every": 2}


def run(path: Path, **settings: object) -> RunFolder:
    folder = RunFolder(path)
    family = load_registry().get(FAMILY)
    folder.create(plan(TrainingRequest(FAMILY, "rl2", settings=TINY | settings, seed=3, updates=4), family))
    return folder


@pytest.mark.parametrize("memory", ["gru", "transformer"])
def test_a_run_leaves_weights_and_goes_on_to_the_bit_after_a_stop(tmp_path: Path, memory: str) -> None:
    whole, halved = (run(tmp_path / name, memory=memory, memory_heads=2) for name in ("whole", "halved"))
    train(whole, lambda _: None, lambda: False)
    assert [update for update, _ in logged(whole)] == [1, 2, 3, 4]
    names = {"return_0", "return_9", "return_trial", "loss", "gradient_norm", "environment_steps"}
    assert logged(whole)[0][1].keys() == names
    assert logged(whole)[0][1]["environment_steps"] == 8 * 10
    said: list[Message] = []
    train(halved, said.append, lambda: len([one for one in said if isinstance(one, Updated)]) == 3)
    assert len(logged(halved)) == 3
    train(halved, lambda _: None, lambda: False)
    assert logged(halved) == logged(whole)
    assert final_weights(halved) == final_weights(whole)
    assert newest_checkpoint(halved) == newest_checkpoint(whole)


def test_a_run_is_judged_by_its_whole_trials(tmp_path: Path) -> None:
    folder, registry = run(tmp_path / "run"), load_registry()
    train(folder, lambda _: None, lambda: False)
    candidate = candidates.read(folder, 4)

    def small(family: Family, spec: LearnerSpec) -> Plan:
        return replace(validation_plan(family, spec), tasks=3, evaluation_episodes=2)

    engine = LocalEngine(EngineCore(registry, torch.device("cpu"), device_rows=8))
    ref = RevisionRef("it", candidate.hash, str(candidate.path), folder.settings().spec)
    validation = asyncio.run(validator(engine, registry, small)(ref))
    assert [score.k for score in validation.scores] == list(range(10))
    assert validation.returns.shape == (3,)
    assert validation.returns.sum() == pytest.approx(3 * sum(score.mean for score in validation.scores))
    assert validation.scores[-1].metrics[TRIAL_RETURN] == pytest.approx(validation.returns.mean())


def test_the_trial_is_the_familys() -> None:
    spec = specs.spec_for(load_registry().get("bernoulli-bandit.pulls-30"), "rl2")
    assert spec.settings["episodes_per_trial"] == 30
    assert methods.settings_of(spec).inner_steps == 29
    assert "episodes_per_trial" not in specs.spec_for(BernoulliBandit()).settings
    assert methods.remembers(spec)
    assert Rl2.adaptation is Adaptation.MEMORY


@pytest.mark.parametrize(
    ("family", "settings", "field"),
    [
        ("sinusoid", {}, "method"),
        ("tabular-mdp.states-50", {"told": True}, "settings.told"),
        ("tabular-mdp.states-50", {"told": True, "task_size": 3}, "settings.task_size"),
        ("bernoulli-bandit", {"told": True, "task_size": 7}, "settings.task_size"),
        ("gridnavi", {"updates": 1, "attempts": 2}, "settings.updates"),
        ("gridnavi", {"tasks_per_update": 1}, "settings.tasks_per_update"),
        ("gridnavi", {"tally_mean": 1e300}, "settings.tally_mean"),
    ],
)
def test_what_it_cannot_be_trained_on_is_said_before(family: str, settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        plan(TrainingRequest(family, "rl2", settings=settings), load_registry().get(family))
    assert refused.value.field == field


def test_every_preset_is_valid() -> None:
    files = [file for file in (specs.CONFIGS / "rl2").iterdir() if file.name.endswith(".toml")]
    assert len(files) >= 4
    for file in files:
        Rl2Settings.from_json(specs.preset("rl2", file.name.removesuffix(".toml")))


@pytest.mark.parametrize("other", [{"generator": "paired"}, {"continue_from": ("gridnavi-rl2", 1)}])
def test_attempts_start_from_fresh_weights_and_against_nobody(other: dict[str, Any]) -> None:
    family = load_registry().get("gridnavi")
    with pytest.raises(InvalidField) as refused:
        plan(TrainingRequest(family="gridnavi", method="rl2", settings={"attempts": 2}, **other), family)
    assert refused.value.field == "settings.attempts"
