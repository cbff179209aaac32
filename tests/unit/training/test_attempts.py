"""Several trainings in one: each is what it would be alone, and the best of them is kept."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from innerloop_server.domain import Split
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.registry import build
from innerloop_server.learners.trial_ppo import TrialLearner
from innerloop_server.learners.varibad import Varibad
from innerloop_server.streams import Purpose, derive
from innerloop_server.tasks.families.bernoulli_bandit import BernoulliBandit
from innerloop_server.tasks.generators.uniform import UniformGenerator
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training import attempts, optimiser, outer_loop, task_numbers, trial_collect
from innerloop_server.training.attempts import AttemptsStudent
from innerloop_server.training.outer_loop import TrainState
from innerloop_server.training.specs import spec_for
from innerloop_server.training.trial_student import TrialStudent
from innerloop_server.training.varibad_student import VaribadStudent

SMALL = {"encoder_sizes": [8], "memory_size": 16, "hidden_sizes": [8], "told": True}
QUICK = {"tasks_per_update": 16, "minibatches": 2, "epochs": 2, "updates": 6, "attempts": 3, "learning_rate": 0.03}
FAMILY = BernoulliBandit(arms=2, pulls=4)
SEED = 4
CPU = torch.device("cpu")


BELIEF = {"latent": 2, "decoder_sizes": [4], "belief_steps": 2, "belief_batch": 5, "buffer_trials": 24}
each_method = pytest.mark.parametrize("method", ["rl2", "varibad"])


def student(method: str = "rl2", **settings: Any) -> AttemptsStudent:
    believes = BELIEF if method == "varibad" else {}
    learner = build(spec_for(FAMILY, method, settings={**SMALL, **QUICK, **believes, **settings}))
    assert isinstance(learner, TrialLearner)
    collect, judge = (trial_collect.batch_collector(FAMILY, learner, CPU, greedy=greedy) for greedy in (False, True))
    tell = functools.partial(task_numbers.of, FAMILY)
    if isinstance(learner, Varibad):
        return AttemptsStudent(VaribadStudent(learner, collect, tell), judge, FAMILY)
    return AttemptsStudent(TrialStudent(learner, collect, tell), judge, FAMILY)


def states(student: AttemptsStudent, start: TrainState | None = None) -> list[TrainState]:
    """The state before the first update and after each."""
    generator = UniformGenerator(FAMILY, SEED)
    found = [start or outer_loop.start(student, generator, SEED)]
    while found[-1].update < 6:
        found.append(outer_loop.teach(student, generator, found[-1], SEED)[0])
    return found


def same(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def judged(student: AttemptsStudent, meta: Tensors) -> float:
    """The return that attempts are compared by."""
    seed = derive(SEED, Purpose.TRAINING, 0, 1)
    tasks = [sample_task(FAMILY, seed, Split.TRAIN, i) for i in range(attempts.JUDGED_TASKS)]
    return float(student.judge(meta, tasks, seed).rewards.sum(0).double().mean())


@each_method
def test_the_best_of_the_attempts_comes_out_and_each_starts_afresh(method: str) -> None:
    taught = student(method)
    ends: list[Tensors] = []
    conclude = AttemptsStudent.conclude

    class Watched(AttemptsStudent):
        def conclude(self, memory: Tensors, meta: Tensors, *rest: Any) -> Any:
            ends.append(meta)
            return conclude(self, memory, meta, *rest)

    trained = states(Watched(taught.student, taught.judge, FAMILY))
    over = [ends[i] for i in (1, 3, 5)]
    scores = [judged(taught, meta) for meta in over]
    assert len(set(scores)) == (3 if method == "rl2" else 2)
    assert same(trained[-1].meta, over[scores.index(max(scores))])
    assert scores.index(max(scores)) != 2, "choose a seed whose best attempt is not the last: else nothing is shown"
    assert float(trained[-1].memory["score"]) == max(scores)
    assert list(trained[-1].memory) == ["score"]
    for update in (2, 4):
        assert trained[update].adam.count == 0
        assert not [name for name in trained[update].memory if name.startswith("student.")]
        assert same(trained[update].meta, taught.initial_meta(derive(SEED, Purpose.TRAINING, update, 2)))
        assert not same(trained[update].meta, taught.initial_meta(SEED))
    # Trials of 4 steps: 16 an update, and 2,048 to judge each attempt.
    assert trained[-1].environment_steps == 4 * (6 * 16 + 3 * attempts.JUDGED_TASKS)


@pytest.mark.parametrize(("updates", "attempts", "ends"), [(6, 3, [2, 4, 6]), (5, 4, [1, 2, 3, 5]), (7, 3, [2, 4, 7])])
def test_updates_are_divided_as_evenly_as_they_go(updates: int, attempts: int, ends: list[int]) -> None:
    learner = student("rl2", updates=updates, attempts=attempts).student.learner
    found = [learner.attempt(update) for update in range(updates)]
    assert sorted({attempt.stop for attempt in found}) == ends
    assert all(update in attempt for update, attempt in enumerate(found))
    assert [learner.progress(attempt.start) for attempt in found] == [0.0] * updates
    assert learner.progress(updates) == 1.0


@each_method
def test_the_first_attempt_is_a_training_by_itself(method: str) -> None:
    taught, alone = student(method), student(method, updates=2, attempts=1)
    ends = []
    for one in (taught, alone):
        generator = UniformGenerator(FAMILY, SEED)
        state = outer_loop.start(one, generator, SEED)
        for _ in range(2):
            state, *_ = outer_loop.teach(one, generator, state, SEED)
        ends.append(state)
    best = {name.removeprefix("best."): value for name, value in ends[0].memory.items() if name.startswith("best.")}
    assert same(best, ends[1].meta)


@each_method
def test_it_goes_on_to_the_bit_from_any_checkpoint(method: str) -> None:
    taught = student(method)
    through = states(taught)
    assert same(outer_loop.from_bytes(outer_loop.to_bytes(through[-1])).meta, through[-1].meta)
    for state in through[1:-1]:
        resumed = states(taught, outer_loop.from_bytes(outer_loop.to_bytes(state)))[-1]
        assert same(resumed.meta, through[-1].meta)
        assert same(resumed.memory, through[-1].memory)
    assert optimiser.start(through[-1].meta).count == through[-1].adam.count
