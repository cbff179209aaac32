"""Meta-DQN in the outer loop, through the trainer, and judged."""

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
from innerloop_server.domain import LearnerSpec, Simulator, Split, Task
from innerloop_server.errors import InvalidField
from innerloop_server.evaluation.plan import Plan
from innerloop_server.evaluation.scores import TRIAL_RETURN
from innerloop_server.learners import registry as methods
from innerloop_server.learners.learner import Input
from innerloop_server.learners.meta_dqn import TARGET, MetaDqn
from innerloop_server.learners.meta_dqn_settings import MetaDqnSettings
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.generators.uniform import UniformGenerator
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training import candidates, optimiser, outer_loop, specs
from innerloop_server.training.meta_dqn_student import Exploring, MetaDqnStudent
from innerloop_server.training.promotion import validation_plan, validator
from innerloop_server.training.requests import TrainingRequest, plan
from innerloop_server.training.run import RunFolder
from innerloop_server.training.trainer import train
from innerloop_server.training.trial_collect import batch_collector

CPU = torch.device("cpu")
TINY = {
    "encoder_sizes": [4],
    "memory_size": 4,
    "hidden_sizes": [4],
    "tasks_per_update": 3,
    "warmup_updates": 1,
    "gradient_steps": 3,
    "batch": 5,
    "replay": 7,
    "burn_in": 2,
    "window": 6,
}


def student(family: str = "bernoulli-bandit", **settings: Any) -> MetaDqnStudent:
    found = load_registry().get(family)
    learner = MetaDqn(specs.spec_for(found, "meta-dqn", settings={**TINY, **settings}))
    return MetaDqnStudent(learner, batch_collector(found, Exploring(learner.spec), CPU))


def tasks_of(family: str, n: int) -> list[Task]:
    found = load_registry().get(family)
    return [sample_task(found, 0, Split.TRAIN, i) for i in range(n)]


@pytest.mark.parametrize("family", ["bernoulli-bandit", "cartpole-dynamics", "gridnavi"])
def test_an_update_plays_remembers_and_learns(family: str) -> None:
    dqn = student(family, replay=200)
    meta = dqn.initial_meta(0)
    played = dqn.play(meta, tasks_of(family, 3), [5, 6, 7])
    trials = played.episodes.trials
    assert played.environment_steps == int(trials.real.sum())
    assert played.metrics["return_trial"] == pytest.approx(float(trials.rewards.sum(0).mean()), rel=1e-5)
    memory, lessons = dqn.remember({}, played, [True, False, True], 1, 0)
    kept = memory["teaches"][: int(memory["written"])]
    assert int(kept.sum()) == int(trials.real[:, [0, 2]].sum())
    after, adam, metrics = dqn.learn(meta, optimiser.start(meta), lessons, [True, False, True], 1, 0)
    assert adam.count == 3
    assert metrics["loss"] > 0
    assert after.keys() == meta.keys()
    moved = {name: float((after[name] - meta[name]).norm()) for name in meta}
    for name in (name for name in meta if not name.startswith(TARGET)):
        assert 0 < moved[TARGET + name] < 0.1 * moved[name], f"{name}: the target follows slowly"


def test_what_was_remembered_is_what_was_played() -> None:
    """The memory in front of each stretch is what the network had there when it played."""
    family = "cartpole-dynamics"
    dqn = student(family, exploration=0.0)
    learner = dqn.learner
    meta = dqn.initial_meta(0)
    played = dqn.play(meta, tasks_of(family, 2), [3, 4])
    trials = played.episodes.trials
    state, seen, memories = learner.begin(meta, 1, 2), Input(trials.observations[:1]), []
    for t in range(len(trials.real)):
        distribution, state = learner.act(meta, state, seen)
        assert torch.equal(distribution.sample(None)[0][trials.real[t]], trials.actions[t][trials.real[t]])
        memories.append(state["memory"][0])
        if t + 1 < len(trials.real):
            now, before = slice(t + 1, t + 2), slice(t, t + 1)
            flags = (trials.terminated[before], trials.truncated[before], torch.zeros_like(trials.real[before]))
            seen = Input(trials.observations[now], trials.actions[before], trials.rewards[before], *flags)
    torch.testing.assert_close(played.episodes.memories, torch.stack(memories), atol=1e-5, rtol=0)
    memory, _ = dqn.remember({}, played, [True] * 2, 0, 0)
    assert int(memory["written"]) > 2, "trials of one stretch would prove little"
    assert not memory["memory"][:2].any()
    row = int(trials.real[learner.settings.window + learner.settings.burn_in].nonzero()[0])
    torch.testing.assert_close(memory["memory"][2], memories[learner.settings.window - 1][row], atol=1e-5, rtol=0)


def test_it_only_plays_as_long_as_it_warms_up_and_when_nothing_may_be_learned() -> None:
    dqn = student()
    meta = dqn.initial_meta(0)
    played = dqn.play(meta, tasks_of("bernoulli-bandit", 3), [5, 6, 7])
    memory, lessons = dqn.remember({}, played, [True] * 3, 0, 0)
    adam = optimiser.start(meta)
    same, _, warm = dqn.learn(meta, adam, lessons, [True] * 3, 0, 0)
    assert same is meta
    again, lessons = dqn.remember(memory, played, [False] * 3, 3, 0)
    assert int(again["written"]) == int(memory["written"])
    same, _, idle = dqn.learn(meta, adam, lessons, [False] * 3, 3, 0)
    assert same is meta
    _, _, learned = dqn.learn(meta, adam, lessons, [True] * 3, 3, 0)
    assert warm.keys() == idle.keys() == learned.keys()


def test_the_last_update_learns_least() -> None:
    dqn = student(updates=5, learning_rate=1e-2, final_learning_rate=1e-4, gradient_steps=1)
    meta = dqn.initial_meta(0)
    _, lessons = dqn.remember({}, dqn.play(meta, tasks_of("bernoulli-bandit", 3), [5]), [True] * 3, 1, 0)

    def moved(update: int) -> float:
        after, _, _ = dqn.learn(meta, optimiser.start(meta), lessons, [True] * 3, update, 0)
        return max(float((after[name] - meta[name]).abs().max()) for name in meta)

    assert moved(4) == pytest.approx(1e-4, rel=0.01)
    assert moved(2) == pytest.approx(5.05e-3, rel=0.01)


def test_rows_explore_as_the_ladder_says() -> None:
    dqn = student("gridnavi", exploration=0.5, exploration_spread=2.0)
    meta = dqn.initial_meta(0)
    trials = dqn.play(meta, tasks_of("gridnavi", 21) * 20, [5]).episodes.trials
    learner = dqn.learner
    greedy = learner.action_values(
        {name: w for name, w in meta.items() if not name.startswith(TARGET)},
        dqn.play(meta, tasks_of("gridnavi", 21) * 20, [5]).episodes.x.transpose(0, 1),
        torch.zeros(420, 4),
    ).argmax(-1)
    strayed = (greedy != trials.actions.T).float().mean(-1)
    thirds = [float(part.mean()) for part in strayed.chunk(3)]
    # Four of the five actions stray; 0.5^(1 + 2 i / 419) averaged over each third of the rows.
    rates = torch.tensor([0.5 ** (1 + 2 * i / 419) for i in range(420)]) * 0.8
    for got, want in zip(thirds, rates.chunk(3), strict=True):
        assert got == pytest.approx(float(want.mean()), abs=0.02)


def test_a_training_resumes_to_the_bit() -> None:
    family = load_registry().get("gridnavi")
    dqn = student("gridnavi", updates=4)
    generator = UniformGenerator(family, 5)

    def teach(state: outer_loop.TrainState, updates: int) -> outer_loop.TrainState:
        for _ in range(updates):
            state, _ = outer_loop.teach(dqn, generator, state, 5)
        return state

    start = outer_loop.start(dqn, generator, 5)
    whole = teach(start, 4)
    half = outer_loop.from_bytes(outer_loop.to_bytes(teach(start, 2)))
    assert outer_loop.to_bytes(teach(half, 2)) == outer_loop.to_bytes(whole)
    assert int(whole.memory["written"]) > len(whole.memory["memory"]), "the replay went round"


def run(path: Path) -> RunFolder:
    folder = RunFolder(path)
    family = load_registry().get("bernoulli-bandit")
    settings = {**TINY, "checkpoint_every": 2}
    folder.create(plan(TrainingRequest("bernoulli-bandit", "meta-dqn", settings=settings, seed=3, updates=4), family))
    return folder


def test_a_run_that_is_stopped_shows_it_nowhere_and_is_judged_by_its_trials(tmp_path: Path) -> None:
    whole, halved, registry = run(tmp_path / "whole"), run(tmp_path / "halved"), load_registry()
    train(whole, lambda _: None, lambda: False)
    names = {"return_0", "return_9", "return_trial", "loss", "gradient_norm", "action_value", "environment_steps"}
    assert logged(whole)[0][1].keys() == names
    train(halved, lambda _: None, lambda: len(logged(halved)) >= 3)
    train(halved, lambda _: None, lambda: False)
    assert logged(halved) == logged(whole)
    assert final_weights(halved) == final_weights(whole)
    assert newest_checkpoint(halved) == newest_checkpoint(whole)
    candidate = candidates.read(whole, 4)

    def small(family: Family, spec: LearnerSpec) -> Plan:
        return replace(validation_plan(family, spec), tasks=3, evaluation_episodes=2)

    engine = LocalEngine(EngineCore(registry, CPU, device_rows=8))
    ref = RevisionRef("it", candidate.hash, str(candidate.path), whole.settings().spec)
    validation = asyncio.run(validator(engine, registry, small)(ref))
    assert [score.k for score in validation.scores] == list(range(10))
    assert validation.scores[-1].metrics[TRIAL_RETURN] == pytest.approx(validation.returns.mean())


@pytest.mark.parametrize(
    ("family", "simulator", "field"),
    [("sinusoid", None, "method"), ("navigation-2d", None, "method"), ("gridnavi", Simulator.ACTORS, "simulator")],
)
def test_what_it_cannot_be_trained_on_is_said_before(family: str, simulator: Simulator | None, field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        plan(TrainingRequest(family, "meta-dqn", simulator=simulator), load_registry().get(family))
    assert refused.value.field == field


def test_every_preset_can_be() -> None:
    files = [file.name.removesuffix(".toml") for file in (specs.CONFIGS / "meta-dqn").iterdir()]
    assert {"default", "cartpole-dynamics", "bernoulli-bandit", "gridnavi", "acrobot-dynamics"} <= set(files)
    for name in files:
        MetaDqnSettings.from_json(specs.preset("meta-dqn", name))


def test_the_trial_is_the_familys() -> None:
    spec = specs.spec_for(load_registry().get("bernoulli-bandit.pulls-30"), "meta-dqn")
    assert methods.settings_of(spec).inner_steps == 29
    assert methods.remembers(spec)
