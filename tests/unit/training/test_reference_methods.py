"""Multitask, oracle, scratch and the prototype head through the trainer, and what each is bound to."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # training_support
from training_support import final_weights, logged, newest_checkpoint

from innerloop_server.domain import Simulator
from innerloop_server.errors import InvalidField, PreconditionFailed
from innerloop_server.learners import registry as methods
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.visible import VisibleFamily
from innerloop_server.training import specs
from innerloop_server.training.messages import Message, Updated
from innerloop_server.training.requests import TrainingRequest, plan
from innerloop_server.training.run import RunFolder
from innerloop_server.training.trainer import train

REGISTRY = load_registry()
SMALL: dict[str, Any] = {"hidden_sizes": [4], "tasks_per_update": 4, "checkpoint_every": 2, "updates": 4}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "multitask": ("gridnavi", {"minibatches": 2}),
    "oracle": ("gridnavi", {"minibatches": 2}),
    "scratch": ("gridnavi", {"inner_steps": 1, "episodes_per_step": 2, "epochs": 2}),
    "prototype": ("digits", {}),
}


def request(method: str, **changes: Any) -> TrainingRequest:
    family, settings = RUNS[method]
    return replace(TrainingRequest(family, method, settings={**SMALL, **settings}, seed=3), **changes)


def run(path: Path, method: str, **changes: Any) -> RunFolder:
    folder, wanted = RunFolder(path), request(method, **changes)
    folder.create(plan(wanted, REGISTRY.get(wanted.bound_to)))
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("method", RUNS)
def test_a_run_goes_on_to_the_bit_after_a_stop(tmp_path: Path, method: str) -> None:
    whole, halved = run(tmp_path / "whole", method), run(tmp_path / "halved", method)
    train(whole, lambda _: None, lambda: False)
    assert [update for update, _ in logged(whole)] == [1, 2, 3, 4]
    said: list[Message] = []
    train(halved, said.append, lambda: len([one for one in said if isinstance(one, Updated)]) == 3)
    assert len(logged(halved)) == 3
    train(halved, lambda _: None, lambda: False)
    assert logged(halved) == logged(whole)
    assert final_weights(halved) == final_weights(whole)
    assert newest_checkpoint(halved) == newest_checkpoint(whole)


@pytest.mark.parametrize("method", ["multitask", "reptile"])
def test_an_update_says_how_long_its_gradient_was(tmp_path: Path, method: str) -> None:
    folder = RunFolder(tmp_path / "run")
    small = {name: value for name, value in SMALL.items() if name != "hidden_sizes"}
    folder.create(plan(TrainingRequest("gridnavi", method, settings=small), REGISTRY.get("gridnavi")))
    train(folder, lambda _: None, lambda: False)
    norms = [values["gradient_norm"] for _, values in logged(folder)]
    assert len(norms) == 4
    assert all(norm > 0 for norm in norms)


def test_scratch_is_not_changed_by_training(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", "scratch")
    state = train(folder, lambda _: None, lambda: False)
    fresh = methods.build(folder.settings().spec).initial_meta(3)
    assert all(torch.equal(value, fresh[name]) for name, value in state.meta.items())
    assert state.environment_steps == 4 * 4 * 2 * 2 * 15


@pytest.mark.parametrize("method", ["multitask", "oracle"])
def test_environment_actors_train_it_too(tmp_path: Path, method: str) -> None:
    folder = run(tmp_path / "run", method, simulator=Simulator.ACTORS, updates=1)
    state = train(folder, lambda _: None, lambda: False)
    assert state.environment_steps == 4 * 15


def test_an_oracle_is_bound_to_the_family_that_shows_its_parameters() -> None:
    for named in ("cartpole-dynamics", "cartpole-dynamics.parameters-shown"):
        wanted = TrainingRequest(named, "oracle")
        assert wanted.bound_to == "cartpole-dynamics.parameters-shown"
    family = REGISTRY.get(wanted.bound_to)
    assert isinstance(family, VisibleFamily)
    made = plan(TrainingRequest("cartpole-dynamics", "oracle"), family)
    assert (made.spec.name, made.spec.family) == ("cartpole-dynamics-oracle", "cartpole-dynamics.parameters-shown")
    assert made.spec.settings["value_unit"] == 100.0
    assert "scripts/train cartpole-dynamics.parameters-shown --method oracle" in made.command
    again = plan(TrainingRequest("cartpole-dynamics", "oracle", updates=3), family, made.spec)
    assert again.spec.settings["updates"] == 3
    with pytest.raises(PreconditionFailed):
        plan(TrainingRequest("gridnavi", "oracle"), REGISTRY.get("gridnavi.parameters-shown"), made.spec)


@pytest.mark.parametrize("method", ["multitask", "oracle"])
def test_what_earns_no_reward_is_refused(method: str) -> None:
    wanted = TrainingRequest("digits", method)
    with pytest.raises(InvalidField, match="labelled examples"):
        plan(wanted, REGISTRY.get(wanted.bound_to))


@pytest.mark.parametrize("method", RUNS)
def test_every_preset_is_valid(method: str) -> None:
    files = [file.name.removesuffix(".toml") for file in (specs.CONFIGS / method).iterdir()]
    assert "default" in files
    for name in files:
        methods.get(method).settings(specs.preset(method, name))
        assert name == "default" or REGISTRY.find(name) is not None
