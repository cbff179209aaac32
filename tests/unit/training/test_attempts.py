"""Several trainings in one: each is what it would be alone, and the best of them is kept."""

from __future__ import annotations

import functools
from typing import Any

import torch

from innerloop_server.domain import Split
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.registry import build
from innerloop_server.learners.rl2 import Rl2
from innerloop_server.streams import Purpose, derive
from innerloop_server.tasks.families.bernoulli_bandit import BernoulliBandit
from innerloop_server.tasks.generators.uniform import UniformGenerator
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training import attempts, optimiser, outer_loop, task_numbers, trial_collect
from innerloop_server.training.attempts import AttemptsStudent
from innerloop_server.training.outer_loop import TrainState
from innerloop_server.training.specs import spec_for
from innerloop_server.training.trial_student import TrialStudent

SMALL = {"encoder_sizes": [8], "memory_size": 16, "hidden_sizes": [8], "told": True}
QUICK = {"tasks_per_update": 16, "minibatches": 2, "epochs": 2, "updates": 6, "attempts": 3, "learning_rate": 0.03}
FAMILY = BernoulliBandit(arms=2, pulls=4)
SEED = 4
CPU = torch.device("cpu")


def student(**settings: Any) -> AttemptsStudent:
    learner = build(spec_for(FAMILY, "rl2", settings={**SMALL, **QUICK, **settings}))
    assert isinstance(learner, Rl2)
    collect, judge = (trial_collect.batch_collector(FAMILY, learner, CPU, greedy=greedy) for greedy in (False, True))
    return AttemptsStudent(TrialStudent(learner, collect, functools.partial(task_numbers.of, FAMILY)), judge, FAMILY)


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


def test_the_best_of_the_attempts_comes_out_and_each_starts_afresh() -> None:
    taught = student()
    ends: list[Tensors] = []
    conclude = AttemptsStudent.conclude

    class Watched(AttemptsStudent):
        def conclude(self, memory: Tensors, meta: Tensors, *rest: Any) -> Any:
            ends.append(meta)
            return conclude(self, memory, meta, *rest)

    trained = states(Watched(taught.student, taught.judge, FAMILY))
    over = [ends[i] for i in (1, 3, 5)]
    scores = [judged(taught, meta) for meta in over]
    assert len(set(scores)) == 3
    assert same(trained[-1].meta, over[scores.index(max(scores))])
    assert scores.index(max(scores)) != 2, "choose a seed whose best attempt is not the last: else nothing is shown"
    assert float(trained[-1].memory["score"]) == max(scores)
    for update in (2, 4):
        assert trained[update].adam.count == 0
        assert same(trained[update].meta, taught.initial_meta(derive(SEED, Purpose.TRAINING, update, 2)))
        assert not same(trained[update].meta, taught.initial_meta(SEED))
    # Trials of 4 steps: 16 an update, and 2,048 to judge each attempt.
    assert trained[-1].environment_steps == 4 * (6 * 16 + 3 * attempts.JUDGED_TASKS)


def test_the_first_attempt_is_a_training_by_itself() -> None:
    taught, alone = student(), student(updates=2, attempts=1)
    two = [outer_loop.start(s, UniformGenerator(FAMILY, SEED), SEED) for s in (taught, alone)]
    generator = UniformGenerator(FAMILY, SEED)
    for _ in range(2):
        played = [
            s.play(state.meta, *_proposed(generator, state)) for s, state in zip((taught, alone), two, strict=True)
        ]
        learned = [
            s.learn(state.meta, state.adam, one, [True] * 16, state.update, SEED)
            for s, state, one in zip((taught, alone), two, played, strict=True)
        ]
        two = [
            TrainState(meta, adam, state.update + 1, 0, state.generator)
            for (meta, adam, _), state in zip(learned, two, strict=True)
        ]
    assert same(two[0].meta, two[1].meta)


def _proposed(generator: UniformGenerator, state: TrainState) -> tuple[Any, list[int]]:
    proposal, _ = generator.propose(state.generator, 16)
    return proposal.tasks, [derive(SEED, Purpose.TRAINING, state.update, i) for i in range(16)]


def test_it_goes_on_to_the_bit_from_any_checkpoint() -> None:
    taught = student()
    through = states(taught)
    assert same(outer_loop.from_bytes(outer_loop.to_bytes(through[-1])).meta, through[-1].meta)
    for state in through[1:-1]:
        resumed = states(taught, outer_loop.from_bytes(outer_loop.to_bytes(state)))[-1]
        assert same(resumed.meta, through[-1].meta)
        assert same(resumed.memory, through[-1].memory)
    assert optimiser.start(through[-1].meta).count == through[-1].adam.count
