"""MAML's kin and Reptile in the outer loop: they resume to the bit, learn, and do not grow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from innerloop_server.learners import registry
from innerloop_server.learners.trainable import TrainableLearner
from innerloop_server.tasks.families.gridnavi import GridNavi
from innerloop_server.tasks.families.navigation_2d import Navigation2D
from innerloop_server.tasks.families.sinusoid import Sinusoid
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.generators.generator import Proposal
from innerloop_server.tasks.generators.uniform import UniformGenerator
from innerloop_server.training import outer_loop
from innerloop_server.training.collect import Collect, batch_collector
from innerloop_server.training.outer_loop import TrainState
from innerloop_server.training.specs import spec_for
from innerloop_server.training.students import student_of

CPU = torch.device("cpu")
SMALL = {"hidden_sizes": [8], "tasks_per_update": 3, "episodes_per_step": 2, "inner_steps": 2, "updates": 6}
VARIANTS: dict[str, tuple[Family, str, dict[str, Any]]] = {
    "first": (Navigation2D(), "maml", {"order": "first"}),
    "head": (Navigation2D(), "maml", {"adapt": "head"}),
    "promp": (Navigation2D(), "maml", {"outer": "promp"}),
    "trpo": (Navigation2D(), "maml", {"outer": "trpo"}),
    "reptile": (Navigation2D(), "reptile", {"optimiser": "adam"}),
    "first, supervised": (Sinusoid(), "maml", {"order": "first"}),
    "head, supervised": (Sinusoid(), "maml", {"adapt": "head"}),
    "reptile, supervised": (Sinusoid(), "reptile", {"optimiser": "adam"}),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def parts(family: Family, method: str, **settings: Any) -> tuple[TrainableLearner, UniformGenerator, Collect]:
    learner = registry.build(spec_for(family, method, settings=settings))
    return learner, UniformGenerator(family, seed=0), batch_collector(family, learner, CPU)


def train(
    learner: TrainableLearner, generator: UniformGenerator, collect: Collect, state: TrainState, updates: int
) -> tuple[TrainState, list[dict[str, float]]]:
    log = []
    for _ in range(updates):
        state, metrics = outer_loop.update(learner, generator, collect, state, seed=3)
        log.append(metrics)
    return state, log


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_training_goes_on_bit_for_bit(variant: str) -> None:
    family, method, settings = VARIANTS[variant]
    made = parts(family, method, **SMALL, **settings)
    begun = outer_loop.start(made[0], made[1], 3)
    straight, whole = train(*made, begun, 4)
    half, first = train(*made, begun, 2)
    made = parts(family, method, **SMALL, **settings)
    resumed, second = train(*made, outer_loop.from_bytes(outer_loop.to_bytes(half)), 2)
    assert first + second == whole
    assert outer_loop.to_bytes(resumed) == outer_loop.to_bytes(straight)
    assert all(metrics.keys() == whole[0].keys() for metrics in whole)
    assert all(not torch.equal(straight.meta[name], value) for name, value in begun.meta.items())


@pytest.mark.parametrize("variant", VARIANTS)
def test_tasks_that_are_only_looked_at_change_nothing(variant: str) -> None:
    """The metrics keep their names, so the log keeps its columns."""
    family, method, settings = VARIANTS[variant]
    learner, generator, collect = parts(family, method, **SMALL, **settings)
    state = outer_loop.start(learner, generator, 0)
    _, (learned,) = train(learner, generator, collect, state, 1)
    tasks = generator.propose(state.generator, 3)[0].tasks

    class Looking(UniformGenerator):
        def propose(self, state: Any, n: int) -> tuple[Proposal, Any]:
            return Proposal(tasks, (False,) * n), state

    after, metrics = outer_loop.teach(student_of(learner, collect), Looking(family, seed=0), state, 0)
    assert metrics.keys() == learned.keys()
    assert all(torch.equal(after.meta[name], value) for name, value in state.meta.items())


@pytest.mark.parametrize("supervised", [False, True])
def test_frozen_rates_train_as_fixed_ones_do_bit_for_bit(supervised: bool) -> None:
    """Meta-SGD whose rates do not learn is MAML."""
    family: Family = Sinusoid() if supervised else Navigation2D()
    learned = parts(family, "maml", **SMALL, rates="learned", rates_learning_rate=0.0)
    fixed = parts(family, "maml", **SMALL, rates="fixed")
    one, _ = train(*learned, outer_loop.start(learned[0], learned[1], 0), 3)
    two, _ = train(*fixed, outer_loop.start(fixed[0], fixed[1], 0), 3)
    assert all(torch.equal(one.meta[name], value) for name, value in two.meta.items())
    assert two.meta.keys() < one.meta.keys()


@pytest.mark.parametrize(
    ("method", "settings", "gain"),
    [
        ("maml", {"outer": "trpo", "inner_steps": 1}, 6),
        ("maml", {"outer": "promp", "inner_steps": 1, "epochs": 5}, 6),
    ],
    ids=["trpo", "promp"],
)
def test_navigation_learns_to_adapt(method: str, settings: dict[str, Any], gain: float) -> None:
    small = {"tasks_per_update": 10, "episodes_per_step": 10, "updates": 10, "learning_rate": 6e-3}
    made = parts(Navigation2D(), method, **{**small, **settings})
    _, log = train(*made, outer_loop.start(made[0], made[1], 0), 10)
    gains = [metrics["return_1"] - metrics["return_0"] for metrics in log]
    assert np.mean(gains[-3:]) > gain, gains


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("outer", "updates"), [("ppo", 2_000), ("trpo", 500)])
def test_many_second_order_updates_need_no_more_memory_than_a_few(outer: str, updates: int) -> None:
    """Resident memory grows by under 1 % once a tenth of the updates are done: by a line through all of the rest."""
    small = {"hidden_sizes": [8], "tasks_per_update": 2, "episodes_per_step": 2, "inner_steps": 1, "updates": 10_000}
    learner, generator, collect = parts(GridNavi(), "maml", **small, outer=outer)
    state = outer_loop.start(learner, generator, 0)
    page = os.sysconf("SC_PAGE_SIZE")
    resident: list[int] = []
    for _ in range(updates):
        state, _ = outer_loop.update(learner, generator, collect, state, 0)
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * page)
    settled = np.array(resident[updates // 10 :], float)
    slope, level = np.polyfit(np.arange(len(settled)), settled, 1)
    assert slope * len(settled) < 0.01 * level, f"{slope:.1f} bytes an update, from {level / 2**20:.1f} MiB"
