"""The outer loop learns, resumes to the bit, and asks its parts what it should."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from innerloop.arrays import Arrays
from innerloop_server.adaptation import rollout
from innerloop_server.domain import Task
from innerloop_server.errors import DataLoss
from innerloop_server.learners import registry
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.trainable import TrainableLearner
from innerloop_server.tasks.families.cartpole_dynamics import CartPoleDynamics
from innerloop_server.tasks.families.navigation_2d import Navigation2D
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.generators.generator import Feedback, Proposal
from innerloop_server.tasks.generators.uniform import UniformGenerator
from innerloop_server.training import outer_loop
from innerloop_server.training.collect import Collect, batch_collector
from innerloop_server.training.outer_loop import TrainState
from innerloop_server.training.specs import spec_for

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def parts(family: Family, **settings: Any) -> tuple[TrainableLearner, UniformGenerator, Collect]:
    learner = registry.build(spec_for(family, settings=settings))
    return learner, UniformGenerator(family, seed=0), batch_collector(family, learner, CPU)


SMALL = {"hidden_sizes": [8], "tasks_per_update": 3, "episodes_per_step": 2, "inner_steps": 2, "updates": 6}


@pytest.mark.parametrize("family", [Navigation2D(), CartPoleDynamics()], ids=lambda f: f.name)
def test_a_resumed_training_goes_on_bit_for_bit(family: Family) -> None:
    learner, generator, collect = parts(family, **SMALL)

    def run(state: TrainState, updates: int) -> tuple[TrainState, list[dict[str, float]]]:
        log = []
        for _ in range(updates):
            state, metrics = outer_loop.update(learner, generator, collect, state, seed=3)
            log.append(metrics)
        return state, log

    straight, whole = run(outer_loop.start(learner, generator, 3), 4)
    half, first = run(outer_loop.start(learner, generator, 3), 2)
    data = outer_loop.to_bytes(half)
    # Another process: nothing but the bytes is carried over.
    learner, generator, collect = parts(family, **SMALL)
    resumed, second = run(outer_loop.from_bytes(data), 2)
    assert first + second == whole
    assert outer_loop.to_bytes(resumed) == outer_loop.to_bytes(straight)
    assert resumed.update == 4
    assert resumed.environment_steps == sum(metrics["environment_steps"] for metrics in whole)


@pytest.mark.parametrize("damage", ["empty", "nonsense", "cut"])
def test_a_damaged_checkpoint_is_data_loss(damage: str) -> None:
    learner, generator, _ = parts(Navigation2D(), **SMALL)
    data = outer_loop.to_bytes(outer_loop.start(learner, generator, 0))
    bad = {"empty": b"", "nonsense": b"nonsense", "cut": data[:-8]}[damage]
    with pytest.raises(DataLoss):
        outer_loop.from_bytes(bad)


def test_the_generator_is_asked_told_and_remembered() -> None:
    family = Navigation2D()
    learner, _, collect = parts(family, **SMALL)

    class Counting:
        """Proposes one task again and again, and counts what it hears."""

        heard: list[Sequence[Feedback]] = []  # noqa: RUF012 - a test's own list

        def initial(self) -> Arrays:
            return {"reports": np.asarray(0)}

        def propose(self, state: Arrays, n: int) -> tuple[Proposal, Arrays]:
            return Proposal.to_learn([Task(family.name, {"goal": np.array([0.3, -0.2])})] * n), state

        def report(self, state: Arrays, feedback: Sequence[Feedback]) -> Arrays:
            self.heard.append(feedback)
            return {"reports": state["reports"] + 1}

    generator = Counting()
    state = outer_loop.start(learner, generator, 0)
    state, metrics = outer_loop.update(learner, generator, collect, state, 0)
    assert int(outer_loop.from_bytes(outer_loop.to_bytes(state)).generator["reports"]) == 1
    (feedback,) = generator.heard
    assert [len(one.returns) for one in feedback] == [3, 3, 3]
    for k in range(3):
        assert np.mean([one.returns[k] for one in feedback]) == pytest.approx(metrics[f"return_{k}"], rel=1e-5)


def test_every_task_update_and_inner_step_has_its_own_streams() -> None:
    family = Navigation2D()
    learner, generator, collect = parts(family, **SMALL)
    asked: list[tuple[tuple[int, ...], int]] = []
    first_actions: list[torch.Tensor] = []

    def recording(
        tasks: Sequence[Task], meta: Tensors, state: Tensors, seeds: Sequence[int], step: int
    ) -> rollout.Rollout:
        asked.append((tuple(seeds), step))
        unadapted = collect(tasks, meta, learner.begin(meta, len(tasks)), seeds, step)
        first_actions.append(unadapted.experience.actions[0, 0, 0])
        return collect(tasks, meta, state, seeds, step)

    state = outer_loop.start(learner, generator, 0)
    for _ in range(2):
        state, _ = outer_loop.update(learner, generator, recording, state, 0)
    assert [step for _, step in asked] == [0, 1, 2, 0, 1, 2]
    assert asked[0][0] == asked[2][0]
    assert len({seed for seeds, _ in asked for seed in seeds}) == 6
    assert len({tuple(action.tolist()) for action in first_actions}) == 6


def test_learning_rates_follow_the_update() -> None:
    """Past the last update they are zero, so nothing moves."""
    learner, generator, collect = parts(Navigation2D(), **SMALL)
    fresh = outer_loop.start(learner, generator, 0)
    moved, _ = outer_loop.update(learner, generator, collect, fresh, 0)
    late, _ = outer_loop.update(learner, generator, collect, dataclasses.replace(fresh, update=learner.updates), 0)
    assert not torch.equal(moved.meta["layers.0.weight"], fresh.meta["layers.0.weight"])
    assert all(torch.equal(late.meta[name], value) for name, value in fresh.meta.items())


def test_navigation_learns_to_adapt() -> None:
    """Ten small updates: one inner step comes to be worth far more than it is from an untrained start (about 0)."""
    small = {"tasks_per_update": 10, "episodes_per_step": 10, "updates": 10, "inner_steps": 1, "learning_rate": 6e-3}
    learner, generator, collect = parts(Navigation2D(), **small)
    state = outer_loop.start(learner, generator, 0)
    gains = []
    for _ in range(learner.updates):
        state, metrics = outer_loop.update(learner, generator, collect, state, 0)
        gains.append(metrics["return_1"] - metrics["return_0"])
    assert np.mean(gains[-3:]) > 12, gains


@pytest.mark.gpu
def test_an_update_runs_on_the_device() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    family = Navigation2D()
    learner = registry.build(spec_for(family, settings=SMALL))
    generator = UniformGenerator(family, seed=0)
    state = outer_loop.start(learner, generator, 0, device)
    state, metrics = outer_loop.update(learner, generator, batch_collector(family, learner, device), state, 0)
    assert all(value.device.type == device.type for value in state.meta.values())
    assert all(np.isfinite(value) for value in metrics.values())
    again = outer_loop.from_bytes(outer_loop.to_bytes(state), device)
    assert all(torch.equal(again.meta[name], value) for name, value in state.meta.items())
