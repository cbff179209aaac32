"""VariBAD in the outer loop and through the trainer."""

from __future__ import annotations

import functools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # training_support
from training_support import final_weights, logged, newest_checkpoint

from innerloop_server.domain import Simulator, Split, Task
from innerloop_server.errors import InvalidField
from innerloop_server.learners import registry as methods
from innerloop_server.learners import varibad_networks as nets
from innerloop_server.learners.varibad import Varibad, of_belief, of_policy
from innerloop_server.learners.varibad_settings import VaribadSettings
from innerloop_server.tasks.generators.uniform import UniformGenerator
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training import optimiser, outer_loop, paired, specs, task_numbers, trial_collect
from innerloop_server.training.adversary_generator import AdversaryGenerator
from innerloop_server.training.messages import Message, Updated
from innerloop_server.training.paired import Paired
from innerloop_server.training.requests import TrainingRequest, plan
from innerloop_server.training.run import RunFolder
from innerloop_server.training.trainer import train
from innerloop_server.training.varibad_student import BELIEF_COUNT, VaribadStudent

CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "encoder_sizes": [4],
    "memory_size": 5,
    "latent": 2,
    "hidden_sizes": [4],
    "decoder_sizes": [4],
    "tasks_per_update": 6,
    "minibatches": 2,
    "epochs": 2,
    "updates": 4,
    "belief_steps": 3,
    "belief_batch": 5,
    "buffer_trials": 15,
}


def student(family: str = "gridnavi", **settings: object) -> VaribadStudent:
    found = load_registry().get(family)
    learner = Varibad(specs.spec_for(found, "varibad", settings={**TINY, **settings}))
    tell = functools.partial(task_numbers.of, found)
    return VaribadStudent(learner, trial_collect.batch_collector(found, learner, CPU), tell)


def test_positions_between_whole_numbers_are_no_states() -> None:
    """The bounds of ``navigation-2d`` are whole numbers; that does not make it a grid."""
    taught = student("navigation-2d", decoder="goal", task_size=2)
    generator = UniformGenerator(load_registry().get("navigation-2d"), 0)
    with pytest.raises(InvalidField, match=r"settings\.decoder: navigation-2d shows more than whole numbers"):
        outer_loop.teach(taught, generator, outer_loop.start(taught, generator, 0), 0)


def tasks_of(family: str, n: int) -> list[Task]:
    found = load_registry().get(family)
    return [sample_task(found, 0, Split.TRAIN, i) for i in range(n)]


@pytest.mark.parametrize("family", ["gridnavi", "bernoulli-bandit", "point-robot-sparse"])
def test_an_update_plays_keeps_and_learns(family: str) -> None:
    varibad = student(family)
    meta, learn = varibad.initial_meta(0), [True, True, False, True, True, False]
    played = varibad.play(meta, tasks_of(family, 6), [5])
    assert played.environment_steps == int(played.episodes.fresh.real.sum())
    kept, lessons = varibad.remember({}, played, learn, 0, 0)
    assert kept["written"].item() == 4
    assert torch.equal(kept["rewards"][: len(played.episodes.fresh.real), 2], played.episodes.fresh.rewards[:, 3])
    after, adam, metrics = varibad.learn(meta, optimiser.start(meta), lessons, learn, 0, 0)
    assert adam.count == 4
    assert adam.first[BELIEF_COUNT].item() == 3
    assert metrics["belief_kl"] > 0
    assert metrics["belief_gradient_norm"] > 0
    still = {name for name in meta if torch.equal(meta[name], after[name])}
    assert not {name for name in still if name.endswith("weight")}
    assert not torch.equal(meta[nets.SHIFT], after[nets.SHIFT])


def test_nothing_is_learned_of_tasks_that_were_only_looked_at() -> None:
    varibad = student()
    meta = varibad.initial_meta(0)
    adam = optimiser.start(meta)
    played = varibad.play(meta, tasks_of("gridnavi", 6), [5])
    kept, lessons = varibad.remember({}, played, [False] * 6, 0, 0)
    assert kept["written"].item() == 0
    after, state, metrics = varibad.learn(meta, adam, lessons, [False] * 6, 0, 0)
    assert after is meta
    assert state is adam
    learned = varibad.learn(meta, adam, varibad.remember({}, played, [True] * 6, 0, 0)[1], [True] * 6, 0, 0)[2]
    assert metrics.keys() == learned.keys()


def test_each_half_has_an_optimiser_of_its_own() -> None:
    """Without steps of the bound the belief stays, to the bit; and how many it takes does not change the policy's."""
    metas = []
    for belief_steps in (0, 1, 3):
        varibad = student(belief_steps=belief_steps)
        meta = varibad.initial_meta(0)
        played = varibad.play(meta, tasks_of("gridnavi", 6), [5])
        _, lessons = varibad.remember({}, played, [True] * 6, 0, 0)
        metas.append(varibad.learn(meta, optimiser.start(meta), lessons, [True] * 6, 0, 0)[0])
    none, one, three = metas
    assert all(torch.equal(none[name], value) for name, value in of_belief(meta).items())
    for name in of_policy(meta):
        assert torch.equal(none[name], one[name])
        assert torch.equal(none[name], three[name])
    assert any(not torch.equal(one[name], three[name]) for name in of_belief(meta))


def test_a_finished_training_stays_as_it_is() -> None:
    varibad = student()
    meta = varibad.initial_meta(0)
    played = varibad.play(meta, tasks_of("gridnavi", 6), [5])
    _, lessons = varibad.remember({}, played, [True] * 6, 4, 0)
    after, _, _ = varibad.learn(meta, optimiser.start(meta), lessons, [True] * 6, 4, 0)
    assert all(torch.equal(meta[name], after[name]) for name in meta)


def test_a_training_resumes_to_the_bit() -> None:
    family, varibad = load_registry().get("gridnavi"), student()

    def teach(state: outer_loop.TrainState, updates: int) -> outer_loop.TrainState:
        for _ in range(updates):
            state, _ = outer_loop.teach(varibad, UniformGenerator(family, 5), state, 5)
        return state

    start = outer_loop.start(varibad, UniformGenerator(family, 5), 5)
    half = outer_loop.from_bytes(outer_loop.to_bytes(teach(start, 2)))
    whole = teach(start, 4)
    assert outer_loop.to_bytes(teach(half, 2)) == outer_loop.to_bytes(whole)
    assert whole.memory["written"].item() == 24
    assert whole.environment_steps == 4 * 6 * 60


@pytest.mark.parametrize("simulator", list(Simulator))
def test_a_run_leaves_weights_and_goes_on_to_the_bit_after_a_stop(tmp_path: Path, simulator: Simulator) -> None:
    settings = {**TINY, "checkpoint_every": 1, "updates": 3}
    request = TrainingRequest("gridnavi", "varibad", settings=settings, seed=3, simulator=simulator)
    whole, halved = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "halved")
    for folder in (whole, halved):
        folder.create(replace(plan(request, load_registry().get("gridnavi")), actors=1))
    train(whole, lambda _: None, lambda: False)
    said: list[Message] = []
    train(halved, said.append, lambda: len([one for one in said if isinstance(one, Updated)]) == 2)
    assert len(logged(halved)) == 2
    train(halved, lambda _: None, lambda: False)
    assert logged(halved) == logged(whole)
    assert final_weights(halved) == final_weights(whole)
    assert newest_checkpoint(halved) == newest_checkpoint(whole)
    names = {"return_0", "return_3", "return_trial", "loss", "gradient_norm", "environment_steps"}
    names |= {"unexplained", "belief_kl", "belief_entropy", "belief_gradient_norm"}
    assert logged(whole)[0][1].keys() == names


def test_two_students_share_a_paired_training() -> None:
    varibad, family = student("point-robot-dense", episodes_per_trial=1), load_registry().get("point-robot-dense")
    generator = Paired(AdversaryGenerator(family, 0), varibad.learner)
    state = outer_loop.start(varibad, generator, 0)
    for _ in range(2):
        state, _ = paired.update(varibad, generator, state, 0)
    assert outer_loop.to_bytes(outer_loop.from_bytes(outer_loop.to_bytes(state))) == outer_loop.to_bytes(state)


def test_the_trial_is_the_familys() -> None:
    spec = specs.spec_for(load_registry().get("gridnavi"), "varibad")
    assert methods.settings_of(spec).inner_steps == 3
    assert methods.remembers(spec)
    with pytest.raises(InvalidField, match="gives the right answers"):
        plan(TrainingRequest("sinusoid", "varibad"), load_registry().get("sinusoid"))
    family = load_registry().get("tabular-mdp.states-50")
    with pytest.raises(InvalidField, match="cannot be told in numbers"):
        plan(TrainingRequest(family.name, "varibad", settings={"told": True}), family)


def test_every_preset_is_valid() -> None:
    files = [file for file in (specs.CONFIGS / "varibad").iterdir() if file.name.endswith(".toml")]
    assert len(files) >= 4
    for file in files:
        VaribadSettings.from_json(specs.preset("varibad", file.name.removesuffix(".toml")))
