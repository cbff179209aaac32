"""PEARL in the outer loop, in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # training_support
from training_support import final_weights, logged, newest_checkpoint

from innerloop_server.domain import Simulator, Split
from innerloop_server.learners.pearl import CRITIC, TARGET, Pearl, Z
from innerloop_server.learners.pearl_settings import PearlSettings
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training import checkpoints, optimiser, outer_loop, packed, paired, specs
from innerloop_server.training.adversary_generator import AdversaryGenerator
from innerloop_server.training.collect import batch_collector
from innerloop_server.training.paired import Paired
from innerloop_server.training.pearl_student import PearlStudent
from innerloop_server.training.run import RunFolder, RunSettings, Schedule
from innerloop_server.training.trainer import train

SETTINGS = {
    "hidden_sizes": [8],
    "critic_sizes": [8],
    "encoder_sizes": [8],
    "updates": 4,
    "warmup_updates": 1,
    "tasks_per_update": 3,
    "gradient_steps": 3,
    "meta_batch": 2,
    "batch": 5,
    "context": 7,
    "replay_tasks": 7,
    "replay_steps": 50,
}


def student(family: str = "point-robot-dense", **changes) -> PearlStudent:
    found = load_registry().get(family)
    learner = Pearl(specs.spec_for(found, "pearl", settings={**SETTINGS, **changes}))
    return PearlStudent(learner, batch_collector(found, learner, torch.device("cpu")))


def tasks_of(family: str, n: int):
    found = load_registry().get(family)
    return [sample_task(found, 0, Split.TRAIN, i) for i in range(n)]


@pytest.mark.parametrize("family", ["point-robot-dense", "cartpole-dynamics", "gridnavi"])
def test_an_update_plays_remembers_and_learns(family: str) -> None:
    pearl = student(family)
    meta, seeds = pearl.initial_meta(0), [5, 6, 7]
    played = pearl.play(meta, tasks_of(family, 3), seeds)
    fresh = played.episodes.fresh
    assert played.environment_steps == int(fresh.real.sum())
    assert {f"return_{k}" for k in range(pearl.learner.inner_steps + 1)} == played.metrics.keys()
    memory, lessons = pearl.remember({}, played, [True, False, True], 1, 0)
    assert memory["written"].item() == 2
    kept = fresh.real.sum(-1)[[0, 2]].clamp(max=50)
    assert memory["length"].tolist()[:2] == kept.tolist()
    after, adam, metrics = pearl.learn(meta, optimiser.start(meta), lessons, [True, False, True], 1, 0)
    assert adam.count == 3
    assert metrics["critic_loss"] > 0
    changed = {name.split(".")[0] for name in meta if not torch.equal(meta[name], after[name])}
    assert changed == {"encoder", "policy", "critic", "target", "model"}
    moved = {name: (after[name] - meta[name]).norm() for name in meta}
    for name in (name for name in meta if name.startswith(TARGET)):
        assert moved[name] < 0.1 * moved[CRITIC + name.removeprefix(TARGET)], "targets follow slowly"


def test_it_plays_as_long_as_it_warms_up_and_when_nothing_may_be_learned() -> None:
    pearl = student()
    meta = pearl.initial_meta(0)
    played = pearl.play(meta, tasks_of("point-robot-dense", 3), [5, 6, 7])
    memory, lessons = pearl.remember({}, played, [True] * 3, 0, 0)
    adam = optimiser.start(meta)
    same, _, warm = pearl.learn(meta, adam, lessons, [True] * 3, 0, 0)
    assert same is meta
    again, lessons = pearl.remember(memory, played, [False] * 3, 3, 0)
    assert again["written"].item() == 3
    same, _, idle = pearl.learn(meta, adam, lessons, [False] * 3, 3, 0)
    assert same is meta
    _, _, learned = pearl.learn(meta, adam, lessons, [True] * 3, 3, 0)
    assert warm.keys() == idle.keys() == learned.keys()


def test_every_task_is_played_on_a_z_of_its_own() -> None:
    pearl = student()
    seen: list[torch.Tensor] = []
    collect = pearl._collect

    def watch(tasks, meta, state, seeds, step):
        seen.append(state[Z])
        return collect(tasks, meta, state, seeds, step)

    pearl._collect = watch
    task = tasks_of("point-robot-dense", 1)[0]
    pearl.play(pearl.initial_meta(0), [task] * 3, [5, 6, 5])
    for z in seen:
        assert torch.equal(z[0], z[2])
        assert not torch.equal(z[0], z[1])


def run(path: Path, **changes) -> RunFolder:
    family = load_registry().get("point-robot-dense")
    settings = PearlSettings.from_json({**SETTINGS, **changes}).to_json()
    folder = RunFolder(path)
    folder.create(
        RunSettings(
            spec=specs.spec_for(family, "pearl", settings=settings),
            seed=3,
            simulator=Simulator.BATCH,
            schedule=Schedule(checkpoint_every=1),
        )
    )
    return folder


def test_a_run_that_is_resumed_shows_it_nowhere(tmp_path: Path) -> None:
    twin, folder = run(tmp_path / "twin"), run(tmp_path / "run")
    train(twin, lambda _: None, lambda: False)
    train(folder, lambda _: None, lambda: len(logged(folder)) >= 2)
    assert newest_checkpoint(folder)[0].startswith("00000002.")
    train(folder, lambda _: None, lambda: False)
    assert logged(folder) == logged(twin)
    assert final_weights(folder) == final_weights(twin)
    assert newest_checkpoint(folder) == newest_checkpoint(twin)
    last = checkpoints.load(folder.checkpoints)
    assert last is not None
    assert outer_loop.from_bytes(last).memory["written"].item() == 4 * 3, "every update's tasks"


def test_every_preset_can_be() -> None:
    files = [file.name.removesuffix(".toml") for file in (specs.CONFIGS / "pearl").iterdir()]
    assert {"default", "point-robot-dense", "cartpole-dynamics"} <= set(files)
    for name in files:
        PearlSettings.from_json(specs.preset("pearl", name))


def test_two_students_of_one_adversary_remember_apart_and_resume_bit_for_bit() -> None:
    def run(state: outer_loop.TrainState, updates: int) -> outer_loop.TrainState:
        pearl = student()
        loop = Paired(AdversaryGenerator(load_registry().get("point-robot-dense"), 3), pearl.learner)
        for _ in range(updates):
            state, _ = paired.update(pearl, loop, state, 3)
        return state

    pearl = student()
    loop = Paired(AdversaryGenerator(load_registry().get("point-robot-dense"), 3), pearl.learner)
    fresh = outer_loop.start(pearl, loop, 3)
    whole = run(fresh, 4)
    resumed = run(outer_loop.from_bytes(outer_loop.to_bytes(run(fresh, 2))), 2)
    assert outer_loop.to_bytes(resumed) == outer_loop.to_bytes(whole)
    own, its = whole.memory, packed.part(whole.generator, "antagonist/memory")
    assert own.keys() == its.keys() != set()
    assert any(not np.array_equal(own[name].numpy(), its[name]) for name in own)
