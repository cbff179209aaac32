"""MAML on labelled examples learns to learn: fresh tasks, a handful of examples, better than before training."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from innerloop_server.adaptation.rollout import draw, rollout
from innerloop_server.domain import Split
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.registry import build
from innerloop_server.tasks.generators.uniform import UniformGenerator
from innerloop_server.tasks.sampling import sample_task, stack_parameters
from innerloop_server.training import outer_loop
from innerloop_server.training.collect import batch_collector

sys.path.insert(0, str(Path(__file__).parents[1]))  # supervised_support
import supervised_support as toy

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def query_loss(family: str, learner: object, meta: Tensors, steps: int, tasks: int = 100) -> float:
    """Mean loss on fresh queries of validation tasks after so many steps on their support."""
    of = toy.FAMILIES[family]
    batch = of.batch(stack_parameters([sample_task(of, 2, Split.VALIDATION, i) for i in range(tasks)]), CPU)
    seeds = range(1_000, 1_000 + tasks)

    def examples(state: Tensors, *, query: bool) -> object:
        noise = draw(
            learner.spec, seeds, 0, 0, episodes=4, reset_uniforms=batch.reset_uniforms, evaluation=query, query=query
        )
        return rollout(learner, meta, state, batch, noise).experience

    state = learner.begin(meta, tasks)
    support = examples(state, query=False)
    for _ in range(steps):
        state, _ = learner.adapt(meta, state, support, torch.ones(tasks))
    _, judged = learner.adapt(meta, state, examples(state, query=True), torch.ones(tasks))
    return float(judged["loss"].mean())


@pytest.mark.parametrize(("family", "reached"), [("toy-labels", 0.5), ("toy-line", 0.35)])
def test_training_makes_adaptation_work(family: str, reached: float) -> None:
    """Untrained, no step of the same size says much about queries; trained, two steps halve the loss."""
    learner = build(toy.spec(family, rates="learned", hidden_sizes=[16], updates=80, tasks_per_update=16, epochs=1))
    generator = UniformGenerator(toy.FAMILIES[family], 0)
    collect = batch_collector(toy.FAMILIES[family], learner, CPU)
    start = state = outer_loop.start(learner, generator, 0)
    for _ in range(learner.updates):
        state, metrics = outer_loop.update(learner, generator, collect, state, 0)
    assert metrics["environment_steps"] == 16 * 4 * 3
    before, after = (query_loss(family, learner, s.meta, 2) for s in (start, state))
    unadapted = query_loss(family, learner, state.meta, 0)
    assert after < reached * unadapted
    assert after < reached * before


def test_every_inner_step_of_an_update_adapts_on_the_support(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = build(toy.spec("toy-labels", inner_steps=3))
    given, adapt = [], learner.adapt

    def watched(meta: Tensors, state: Tensors, experience: object, scale: torch.Tensor) -> object:
        given.append(experience.observations)
        return adapt(meta, state, experience, scale)

    monkeypatch.setattr(learner, "adapt", watched)
    family = toy.FAMILIES["toy-labels"]
    generator = UniformGenerator(family, 0)
    collect = batch_collector(family, learner, CPU)
    outer_loop.update(learner, generator, collect, outer_loop.start(learner, generator, 0), 0)
    assert len(given) == 3
    assert torch.equal(given[1], given[0])
    assert torch.equal(given[2], given[0])


def test_support_comes_first_and_queries_are_others() -> None:
    """The radius of a point tells which half of the pool it is from."""
    learner = build(toy.spec("toy-labels"))
    collect = batch_collector(toy.FAMILIES["toy-labels"], learner, CPU)
    meta = learner.initial_meta(0)
    tasks = [toy.TASKS["toy-labels"]] * 3
    for step in range(3):
        played = collect(tasks, meta, learner.begin(meta, 3), [1, 2, 3], step).experience
        radius = played.observations.norm(dim=-1)
        assert (radius < 1).all() if step == 0 else (radius > 1 - 1e-6).all()
        assert torch.equal(played.feedback[0, :, 0, 0], torch.tensor([0.0, 1.0, 0.0, 1.0]))
