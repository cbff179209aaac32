from __future__ import annotations

import dataclasses
import functools

import pytest
import torch

from innerloop_server.domain import Split
from innerloop_server.learners.learner import Distribution, Input, Tensors
from innerloop_server.learners.rl2 import Rl2
from innerloop_server.tasks.families.bernoulli_bandit import BernoulliBandit
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.generators.uniform import UniformGenerator
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training import outer_loop, task_numbers, trial_collect
from innerloop_server.training.specs import spec_for
from innerloop_server.training.trial_student import TrialStudent, by_episode

CPU = torch.device("cpu")
SMALL = {"encoder_sizes": [8], "memory_size": 16, "hidden_sizes": [8], "discount": 1.0, "episodes_per_trial": 10}
QUICK = {"tasks_per_update": 16, "minibatches": 2, "epochs": 2, "updates": 4}


def student_for(family: Family, **settings: object) -> TrialStudent:
    spec = dataclasses.replace(spec_for(family), method="rl2", settings={**SMALL, **QUICK, **settings})
    learner = Rl2(spec)
    collect = trial_collect.batch_collector(family, learner, CPU)
    return TrialStudent(learner, collect, functools.partial(task_numbers.of, family))


def teach(student: TrialStudent, family: Family, state: outer_loop.TrainState, updates: int) -> outer_loop.TrainState:
    for _ in range(updates):
        state, _ = outer_loop.teach(student, UniformGenerator(family, 5), state, 5)
    return state


def test_sums_by_episode_by_hand() -> None:
    x = torch.tensor([[1.0, 2.0], [4.0, 8.0], [16.0, 0.0]])
    episode = torch.tensor([[0, 0], [1, 0], [1, 2]])
    assert by_episode(x, episode, 2).tolist() == [[1, 20], [10, 0]]


def test_feedback_and_metrics_are_of_the_episodes() -> None:
    family = BernoulliBandit()
    student = student_for(family)
    meta = student.initial_meta(0)
    tasks = [sample_task(family, 0, Split.TRAIN, i) for i in range(3)]
    played = student.play(meta, tasks, [4, 5, 6])
    assert played.environment_steps == 30
    rewards = played.episodes.rewards
    for row, told in enumerate(played.feedback):
        assert told.task is tasks[row]
        assert list(told.returns) == list(told.best_returns) == rewards[:, row].tolist()
    assert played.metrics == {
        "return_0": pytest.approx(float(rewards[0].mean())),
        "return_9": pytest.approx(float(rewards[9].mean())),
        "return_trial": pytest.approx(float(rewards.sum(0).mean())),
    }


def test_tasks_that_are_only_looked_at_change_nothing() -> None:
    family = BernoulliBandit()
    student = student_for(family)
    state = outer_loop.start(student, UniformGenerator(family, 0), 0)
    tasks = [sample_task(family, 0, Split.TRAIN, i) for i in range(6)]
    played = student.play(state.meta, tasks, [0])
    meta, adam, _ = student.learn(state.meta, state.adam, played, [False] * 6, 0, 0)
    assert meta is state.meta
    assert adam is state.adam
    learn = [True, False, True, True, False, True]
    want, _, _ = student.learn(state.meta, state.adam, played, learn, 0, 0)
    noisy = dataclasses.replace(played.episodes, rewards=played.episodes.rewards.clone())
    noisy.rewards[:, 1] = 99
    got, _, _ = student.learn(state.meta, state.adam, dataclasses.replace(played, episodes=noisy), learn, 0, 0)
    assert all(torch.equal(want[name], got[name]) for name in want)


def test_the_last_update_learns_least_and_a_finished_training_nothing() -> None:
    family = BernoulliBandit()
    student = student_for(family)
    state = outer_loop.start(student, UniformGenerator(family, 0), 0)
    played = student.play(state.meta, [sample_task(family, 0, Split.TRAIN, i) for i in range(16)], [0])

    def moved(update: int) -> float:
        meta, _, _ = student.learn(state.meta, state.adam, played, [True] * 16, update, 0)
        return max(float((meta[name] - state.meta[name]).abs().max()) for name in meta)

    assert moved(0) > 2 * moved(3) > 0
    assert moved(4) == 0


def test_a_training_resumes_to_the_bit() -> None:
    family = BernoulliBandit()
    student = student_for(family)
    start = outer_loop.start(student, UniformGenerator(family, 5), 5)
    whole = teach(student, family, start, 4)
    half = outer_loop.from_bytes(outer_loop.to_bytes(teach(student, family, start, 2)))
    assert outer_loop.to_bytes(teach(student, family, half, 2)) == outer_loop.to_bytes(whole)
    assert whole.environment_steps == 4 * 16 * 10


class Forgetful(Rl2):
    """Is told at every step that another trial begins."""

    def act(self, meta: Tensors, state: Tensors, input: Input) -> tuple[Distribution, Tensors]:
        return super().act(meta, state, Input(input.observation))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("memory", "updates"), [("gru", 36), ("transformer", 72)])
def test_without_its_memory_it_scores_as_a_policy_that_has_none(memory: str, updates: int) -> None:
    """What is learned is in the memory: a trained policy beats Thompson sampling's 5.834 (random: 5), and whoever
    empties its memory in the middle of a trial is left with one arm for ever, which pays 5."""
    family = BernoulliBandit()
    network = {"encoder_sizes": [64], "memory_size": 64, "hidden_sizes": [64]}
    training = {"tasks_per_update": 1024, "minibatches": 4, "epochs": 4, "updates": updates, "learning_rate": 4e-3}
    student = student_for(family, entropy=0.02, memory=memory, **network, **training)
    meta = teach(student, family, outer_loop.start(student, UniformGenerator(family, 5), 5), updates).meta
    tasks = [sample_task(family, 1, Split.VALIDATION, i) for i in range(2_000)]

    def score(learner: Rl2) -> float:
        trials = trial_collect.batch_collector(family, learner, CPU, greedy=True)(meta, tasks, 9)
        return float(trials.rewards.sum(0).mean())

    remembers, forgets = score(student.learner), score(Forgetful(student.learner.spec))
    assert remembers > 6.1
    # 2,000 trials of one arm: 10 p with p uniform, and the luck of the pulls: standard error .071.
    assert abs(forgets - 5) < 0.3
