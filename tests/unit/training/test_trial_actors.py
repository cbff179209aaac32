from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from innerloop_server.actors.pool import ActorPool
from innerloop_server.domain import Simulator, Split
from innerloop_server.learners.rl2 import Rl2
from innerloop_server.learners.trial_record import TrialRecord
from innerloop_server.tasks.families.bernoulli_bandit import BernoulliBandit
from innerloop_server.tasks.families.cartpole_dynamics import CartPoleDynamics
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training.run import RunSettings
from innerloop_server.training.specs import spec_for
from innerloop_server.training.students import teaching
from innerloop_server.training.trial_actors import actor_collector
from innerloop_server.training.trial_student import TrialStudent

EPISODES = 3
TASKS = 4
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def learner() -> Rl2:
    settings = {"encoder_sizes": [4], "memory_size": 5, "hidden_sizes": [4], "last_layer_scale": 1.0}
    spec = dataclasses.replace(spec_for(CartPoleDynamics()), method="rl2", horizon=40)
    return Rl2(dataclasses.replace(spec, settings={**settings, "episodes_per_trial": EPISODES}))


def play(learner: Rl2, actors: int, seed: int = 3) -> TrialRecord:
    tasks = [sample_task(CartPoleDynamics(), 0, Split.TRAIN, i) for i in range(TASKS)]
    with ActorPool(actors, slots=4) as pool:
        return actor_collector(learner, pool, CPU)(learner.initial_meta(0), tasks, seed)


@pytest.fixture(scope="module")
def trials(learner: Rl2) -> TrialRecord:
    return play(learner, 2)


def test_there_may_be_more_tasks_than_a_pool_takes_at_once() -> None:
    family = BernoulliBandit(arms=2, pulls=1)
    spec = spec_for(family, "rl2", settings={"memory_size": 3, "encoder_sizes": [], "hidden_sizes": [3]})
    bandit = Rl2(dataclasses.replace(spec, settings={**spec.settings, "episodes_per_trial": 1}))
    tasks = [sample_task(family, 0, Split.TRAIN, i) for i in range(1_100)]
    with ActorPool(1, slots=2, backlog=600) as pool:
        trials = actor_collector(bandit, pool, CPU)(bandit.initial_meta(0), tasks, 3)
    assert trials.real.sum() == len(tasks)


def test_a_trial_is_its_episodes_end_to_end(trials: TrialRecord) -> None:
    assert trials.rewards.shape == (EPISODES * 40, TASKS)
    for row in range(TASKS):
        n = int(trials.real[:, row].sum())
        ended = (trials.terminated | trials.truncated)[:, row]
        assert trials.real[:n, row].all()
        assert not (trials.terminated & trials.truncated)[:, row].any()
        assert int(ended.sum()) == EPISODES
        assert trials.trial_end[:, row].nonzero().flatten().tolist() == [n - 1]
        before = torch.cat([torch.zeros(1, dtype=torch.int64), ended[: n - 1].cumsum(0)])
        assert torch.equal(trials.episode[:n, row], before)
        assert (trials.episode[n:, row] == EPISODES).all()
        assert (trials.rewards[:n, row] == 1).all()
        assert not trials.rewards[n:, row].any()
        inside = ~ended[: n - 1]
        assert torch.equal(trials.outcomes[: n - 1, row][inside], trials.observations[1:n, row][inside])
        fell = trials.outcomes[:n, row][trials.terminated[:n, row]].abs()
        assert ((fell[:, 0] > 2.4) | (fell[:, 2] > 12 * np.pi / 180)).all()
    assert len({int(n) for n in trials.real.sum(0)}) > 1, "trials of one length would prove little"


def test_what_the_actors_did_is_what_the_network_would(learner: Rl2, trials: TrialRecord) -> None:
    """Memory, last action, reward and ends come through the episodes to the actors as the training reads them."""
    meta = learner.initial_meta(0)
    policy, _ = learner.read(meta, learner.inputs(meta, trials))
    again = policy.log_prob(trials.actions.flatten(0, 1)[None]).reshape(trials.real.shape)
    torch.testing.assert_close(again[trials.real], trials.log_probs[trials.real], atol=1e-5, rtol=0)


def test_the_number_of_actors_changes_no_bit(learner: Rl2, trials: TrialRecord) -> None:
    alone, other = play(learner, 1), play(learner, 1, seed=4)
    for field in dataclasses.fields(TrialRecord):
        if field.name != "task":  # which nobody asked for
            assert torch.equal(getattr(alone, field.name), getattr(trials, field.name)), field.name
    assert not torch.equal(alone.actions[:5], other.actions[:5])


def test_a_training_on_actors_plays_trials_on_them(learner: Rl2) -> None:
    settings = RunSettings(spec=learner.spec, seed=0, simulator=Simulator.ACTORS, actors=1)
    with teaching(settings, CartPoleDynamics(), learner) as student:
        assert isinstance(student, TrialStudent)
        tasks = [sample_task(CartPoleDynamics(), 0, Split.TRAIN, i) for i in range(2)]
        played = student.play(learner.initial_meta(0), tasks, [1, 2])
    assert played.environment_steps == int(played.episodes.real.sum())
