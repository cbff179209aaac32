from __future__ import annotations

import dataclasses

import pytest
import torch

from innerloop_server.domain import Split
from innerloop_server.learners.learner import Distribution, Input, Tensors
from innerloop_server.learners.rl2 import Rl2
from innerloop_server.learners.trial_record import TrialRecord
from innerloop_server.tasks.families.bernoulli_bandit import BernoulliBandit
from innerloop_server.tasks.families.cartpole_dynamics import CartPoleDynamics
from innerloop_server.tasks.families.gridnavi import GridNavi
from innerloop_server.tasks.families.tabular_mdp import TabularMDP
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training import trial_collect
from innerloop_server.training.specs import spec_for

SMALL = {"encoder_sizes": [4], "memory_size": 5, "hidden_sizes": [4], "last_layer_scale": 1.0}
CPU = torch.device("cpu")


class Watched(Rl2):
    """Keeps what it was shown."""

    def __init__(self, family: Family, episodes: int) -> None:
        spec = dataclasses.replace(spec_for(family), method="rl2")
        super().__init__(dataclasses.replace(spec, settings={**SMALL, "episodes_per_trial": episodes}))
        self.shown: list[Input] = []

    def act(self, meta: Tensors, state: Tensors, input: Input) -> tuple[Distribution, Tensors]:
        self.shown.append(input)
        return super().act(meta, state, input)


def collect(family: Family, tasks: int, seed: int = 0, episodes: int = 0) -> tuple[Watched, Tensors, TrialRecord]:
    learner = Watched(family, episodes or family.episodes_per_trial)
    meta = learner.initial_meta(0)
    drawn = [sample_task(family, 0, Split.TRAIN, i) for i in range(tasks)]
    return learner, meta, trial_collect.batch_collector(family, learner, CPU)(meta, drawn, seed)


def test_a_trial_is_all_episodes_with_the_flags_of_the_step_before() -> None:
    learner, _, trials = collect(GridNavi(), 3)
    assert trials.rewards.shape == (60, 3)
    assert bool(trials.real.all())
    ends = torch.arange(60) % 15 == 14
    assert torch.equal(trials.truncated, ends[:, None].expand(60, 3))
    assert not trials.terminated.any()
    assert torch.equal(trials.trial_end.any(1).nonzero().flatten(), torch.tensor([59]))
    assert torch.equal(trials.episode[:, 0], torch.arange(60) // 15)
    assert torch.equal(trials.observations[::15], torch.zeros(4, 3, 2))
    assert torch.equal(trials.success, trials.rewards == 1)
    start, *then = learner.shown
    assert (start.previous_action, start.reward, start.trial_end) == (None, None, None)
    for t, given in enumerate(then):
        assert torch.equal(given.observation[0], trials.observations[t + 1])
        for name, kept in (("previous_action", "actions"), ("reward", "rewards"), ("truncated", "truncated")):
            assert torch.equal(getattr(given, name)[0], getattr(trials, kept)[t])


def test_a_trial_that_is_over_says_nothing_more() -> None:
    _, _, trials = collect(CartPoleDynamics(), 6, episodes=2)
    assert trials.terminated.any()  # an untrained policy drops the pole
    assert not trials.real.all()
    for row in range(6):
        real = trials.real[:, row]
        length = int(real.sum())
        assert bool(real[:length].all())
        ended = trials.terminated[:, row] | trials.truncated[:, row]
        assert int(ended.sum()) == 2
        assert trials.trial_end[:, row].nonzero().tolist() == [[length - 1]]
        assert not trials.rewards[length:, row].any()
    longest = int(trials.real.sum(0).max())
    assert len(trials.real) - longest < 16 < 2 * CartPoleDynamics().horizon - longest


@pytest.mark.parametrize("family", [BernoulliBandit(), TabularMDP(episodes=2), GridNavi()], ids=lambda f: f.name)
def test_the_seed_names_everything_that_is_drawn(family: Family) -> None:
    _, _, one = collect(family, 4, seed=7)
    _, _, same = collect(family, 4, seed=7)
    _, _, other = collect(family, 4, seed=8)
    for field in dataclasses.fields(one):
        if field.name != "task":  # which nobody asked for
            assert torch.equal(getattr(one, field.name), getattr(same, field.name)), field.name
    assert not torch.equal(one.actions, other.actions)


@pytest.mark.parametrize("family", [BernoulliBandit(), TabularMDP(episodes=2), GridNavi()], ids=lambda f: f.name)
def test_what_is_learned_from_is_what_was_done(family: Family) -> None:
    """Unrolled over the record, the network says of every action what it said when it took it, so that before the first
    optimiser step every ratio is 1 and the surrogate is minus the mean advantage, which is 0."""
    learner, meta, trials = collect(family, 5)
    quiet = Rl2(dataclasses.replace(learner.spec, settings={**learner.spec.settings, "value_weight": 0.0}))
    samples = quiet.prepare(meta, trials)
    assert abs(float(quiet.loss(meta, samples, 0.0))) < 1e-6
    only = torch.zeros_like(samples.advantages)
    for t, row in ((0, 0), (len(only) - 1, 3), (len(only) // 2, 2)):
        only.zero_()
        only[t, row] = only.numel()
        told = dataclasses.replace(samples, advantages=only.clone())
        assert float(quiet.loss(meta, told, 0.0)) == pytest.approx(-1, abs=1e-4)


def test_greedy_trials_take_the_modes() -> None:
    family = GridNavi()
    learner = Watched(family, 4)
    meta = learner.initial_meta(0)
    tasks = [sample_task(family, 0, Split.TRAIN, 0)]
    one, two = (trial_collect.batch_collector(family, learner, CPU, greedy=True)(meta, tasks, s) for s in (0, 1))
    assert torch.equal(one.actions, two.actions)
