"""A policy that reads whole transitions: where it was, beside what it did and what that brought."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # portable_twin
from portable_twin import assert_same_trial, seen_of

from innerloop.arrays import Box, Discrete, Space
from innerloop.policy import PREVIOUS, Policy
from innerloop_server.domain import LearnerSpec
from innerloop_server.learners.learner import Input
from innerloop_server.learners.rl2 import Rl2
from innerloop_server.learners.trial_record import TrialRecord

MakeSpec = Callable[..., LearnerSpec]
SMALL = {"encoder_sizes": [5], "memory_size": 8, "memory_heads": 2, "memory_layers": 1, "hidden_sizes": [6]}
STEPS, ROWS = 9, 5
SPACES: list[tuple[Space, Space]] = [(Discrete(4), Discrete(3)), (Box.of(-2, 2, (3,)), Box.of(-1, 1, (2,)))]
both_memories = pytest.mark.parametrize("memory", ["gru", "transformer"])
every_space = pytest.mark.parametrize(("observation", "action"), SPACES)


def reading(make_spec: MakeSpec, observation: Space, action: Space, memory: str, **settings: object) -> Rl2:
    wanted = {**SMALL, "memory": memory, "transitions": True, "last_layer_scale": 1.0, **settings}
    return Rl2(dataclasses.replace(make_spec(observation, action), method="rl2", settings=wanted))


@both_memories
@every_space
def test_the_portable_policy_is_the_same(make_spec: MakeSpec, observation: Space, action: Space, memory: str) -> None:
    rl2 = reading(make_spec, observation, action, memory)
    meta = rl2.initial_meta(0)
    header, (weights,) = rl2.export(meta, rl2.begin(meta, 1))
    portable = Policy.from_bytes(Policy(header, weights).to_bytes())
    assert_same_trial(portable, rl2, meta)


@both_memories
@every_space
def test_whole_trials_are_read_as_step_by_step(
    make_spec: MakeSpec, observation: Space, action: Space, memory: str
) -> None:
    rl2, rng = reading(make_spec, observation, action, memory, memory_span=STEPS), np.random.default_rng(1)
    meta = {name: value.double() for name, value in rl2.initial_meta(0).items()}
    observations, actions = (torch.from_numpy(seen_of(space, rng, STEPS, ROWS)) for space in (observation, action))
    rewards, ended = (
        torch.from_numpy(rng.standard_normal((STEPS, ROWS))),
        torch.from_numpy(rng.random((STEPS, ROWS)) < 0.2),
    )
    no = torch.zeros_like(ended)
    trials = TrialRecord(
        observations, observations, actions, rewards, rewards, ended, no, no, no, torch.zeros(STEPS, ROWS).long(), ~no
    )
    x = rl2.inputs(meta, trials)
    at_once = rl2.read(meta, x)[0].log_prob(actions.flatten(0, 1)[None]).reshape(STEPS, ROWS)
    state, seen = rl2.begin(meta, 1, ROWS), Input(observations[:1])
    for t in range(STEPS):
        before = state[PREVIOUS] if t else torch.zeros_like(state[PREVIOUS])
        torch.testing.assert_close(x[t, :, -rl2.header.observation_size :], before[0])
        distribution, state = rl2.act(meta, state, seen)
        torch.testing.assert_close(distribution.log_prob(actions[t : t + 1])[0], at_once[t], atol=1e-10, rtol=0)
        if t + 1 < STEPS:
            seen = Input(observations[t + 1][None], *(part[t : t + 1] for part in (actions, rewards, ended, no, no)))


def test_what_was_before_a_trial_is_not_read(make_spec: MakeSpec) -> None:
    rl2 = reading(make_spec, *SPACES[0], "gru")
    meta = rl2.initial_meta(0)
    no, end = torch.zeros(1, ROWS, dtype=torch.bool), torch.ones(1, ROWS, dtype=torch.bool)
    zero = torch.zeros(1, ROWS)
    state = rl2.begin(meta, 1, ROWS)
    _, later = rl2.act(meta, state, Input(torch.full((1, ROWS), 3)))
    now = torch.ones(1, ROWS, dtype=torch.int64)
    fresh, anew = (
        rl2.act(meta, kept, Input(now, torch.zeros(1, ROWS, dtype=torch.int64), zero, no, no, end))[0]
        for kept in (state, later)
    )
    assert torch.equal(fresh.log_prob(now), anew.log_prob(now))
    goes_on, _ = rl2.act(meta, later, Input(now, torch.zeros(1, ROWS, dtype=torch.int64), zero, no, no, no))
    assert not torch.allclose(goes_on.log_prob(now), anew.log_prob(now))
