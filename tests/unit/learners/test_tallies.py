"""What a policy counts of its trial: by hand, the same in torch and in numpy, step by step and all at once."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # portable_twin
from portable_twin import assert_same_trial

from innerloop.arrays import Box, Discrete, Space
from innerloop.policy import Policy
from innerloop.policy.tallies import COUNT, PAID, STATE, empty_tallies, seen_tallies, tallied
from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.learners import recurrent, tallies
from innerloop_server.learners.learner import Input
from innerloop_server.learners.rl2 import Rl2
from innerloop_server.learners.trial_record import TrialRecord

MakeSpec = Callable[..., LearnerSpec]
SMALL = {"encoder_sizes": [3], "memory_size": 4, "hidden_sizes": [3], "last_layer_scale": 1.0}
STATES, ACTIONS = 3, 2


def counting(make_spec: MakeSpec, **settings: object) -> Rl2:
    spec = make_spec(Discrete(STATES), Discrete(ACTIONS))
    counts = {"tallies": True, "tally_mean": 1.0, "tally_strength": 2.0}
    return Rl2(dataclasses.replace(spec, method="rl2", settings={**SMALL, **counts, **settings}))


def test_the_tallies_by_hand(make_spec: MakeSpec) -> None:
    header = counting(make_spec).header
    row = np.arange(1)
    kept = empty_tallies(header, 1)
    start = tallied(kept, row * 0 + 2, row * 0 + 1, row * 0.0 + 9, row == 0)  # what is said of a step before is not so
    np.testing.assert_array_equal(seen_tallies(header, start), [[0, 0, 1, 1]])
    once = tallied(start, row * 0 + 2, row * 0 + 1, row * 0.0 + 4, row < 0)  # in state 2, action 1 was paid 4
    assert once[COUNT][0].tolist() == [[0, 0], [0, 0], [0, 1]]
    assert once[PAID][0].tolist() == [[0, 0], [0, 0], [0, 4]]
    # (2 * 1 + 4) / (2 + 1) = 2: 1 more than the prior's mean.
    np.testing.assert_allclose(seen_tallies(header, once), [[0, 1, 1, 2**-0.5]], rtol=1e-6)
    elsewhere = tallied(once, row * 0, row * 0 + 1, row * 0.0 - 8, row < 0)  # once more, for -8, and on to state 0
    np.testing.assert_array_equal(seen_tallies(header, elsewhere), [[0, 0, 1, 1]])
    back = tallied(elsewhere, row * 0 + 2, row * 0, row * 0.0 + 5, row < 0)  # from there by action 0 back to 2
    # (2 * 1 + 4 - 8) / (2 + 2) = -1/2.
    np.testing.assert_allclose(seen_tallies(header, back), [[0, -1.5, 1, 3**-0.5]], rtol=1e-6)
    assert back[STATE].tolist() == [2]


def test_a_portable_policy_counts_as_the_learner_does(make_spec: MakeSpec) -> None:
    rl2 = counting(make_spec)
    meta = rl2.initial_meta(0)
    header, weights = rl2.export(meta, rl2.begin(meta, 1))
    portable = Policy.from_bytes(Policy(header, weights[0]).to_bytes())
    assert portable.header == dataclasses.replace(header, hash=portable.header.hash)
    assert_same_trial(portable, rl2, meta)


def whole_trials(steps: int, rows: int) -> TrialRecord:
    draw = torch.Generator().manual_seed(0)
    states, actions = (torch.randint(n, (steps, rows), generator=draw) for n in (STATES, ACTIONS))
    no = torch.zeros(steps, rows, dtype=torch.bool)
    ended = torch.rand(steps, rows, generator=draw) < 0.2
    rewards = torch.randn(steps, rows, generator=draw, dtype=torch.float64)
    return TrialRecord(
        states, states, actions, torch.zeros(steps, rows), rewards, ended, no, no, no, torch.zeros_like(states), ~no
    )


def test_whole_trials_are_counted_as_step_by_step(make_spec: MakeSpec) -> None:
    rl2 = counting(make_spec)
    meta = {name: value.double() for name, value in rl2.initial_meta(0).items()}
    trials = whole_trials(9, 5)
    x = rl2.inputs(meta, trials)
    assert x.shape[-1] == recurrent.input_size(rl2.header)
    policies, _ = rl2.read(meta, x)
    at_once = policies.log_prob(trials.actions.reshape(1, -1)).reshape(9, 5)
    kept = tallies.begin(rl2.header, x, 1, 5)
    state, seen = rl2.begin(meta, 1, 5), Input(trials.observations[:1])
    for t in range(9):
        read, kept = tallies.look(rl2.header, kept, seen)
        torch.testing.assert_close(x[t, :, -2 * ACTIONS :], read[0], atol=1e-12, rtol=0)
        distribution, state = rl2.act(meta, state, seen)
        torch.testing.assert_close(distribution.log_prob(trials.actions[t : t + 1])[0], at_once[t], atol=1e-12, rtol=0)
        if t < 8:
            names = ("actions", "rewards", "terminated", "truncated")
            action, reward, terminated, truncated = (getattr(trials, name)[t : t + 1] for name in names)
            no = torch.zeros(1, 5, dtype=torch.bool)
            seen = Input(trials.observations[t + 1 : t + 2], action, reward, terminated, truncated, no)


def test_a_row_counts_the_same_in_any_company(make_spec: MakeSpec) -> None:
    rl2 = counting(make_spec)
    trials = whole_trials(9, 7)
    no = torch.zeros(1, 7, dtype=torch.bool)
    rewards = trials.rewards.float()
    kept = tallies.begin(rl2.header, torch.zeros(()), 1, 7)
    alone = {name: array[:, 2:3] for name, array in kept.items()}
    for t in range(9):
        parts = (trials.observations[t][None], trials.actions[t][None], rewards[t][None], no, no, no)
        _, kept = tallies.look(rl2.header, kept, Input(*parts))
        _, alone = tallies.look(rl2.header, alone, Input(*(part[:, 2:3] for part in parts)))
    assert all(torch.equal(array, kept[name][:, 2:3]) for name, array in alone.items())


@pytest.mark.parametrize(
    ("observation", "action"), [(Box.of(-1, 1, (2,)), Discrete(2)), (Discrete(2), Box.of(-1, 1, (2,)))]
)
def test_only_numbered_states_and_actions_are_counted(make_spec: MakeSpec, observation: Space, action: Space) -> None:
    spec = dataclasses.replace(make_spec(observation, action), method="rl2", settings={**SMALL, "tallies": True})
    with pytest.raises(InvalidField) as refused:
        Rl2(spec)
    assert refused.value.field == "settings.tallies"
