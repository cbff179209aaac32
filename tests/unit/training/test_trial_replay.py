from __future__ import annotations

import dataclasses

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from innerloop_server.learners.meta_dqn import Stretches
from innerloop_server.learners.trial_record import TrialRecord
from innerloop_server.training import trial_replay


def record(lengths: list[int], capacity: int) -> TrialRecord:
    """Trials of these lengths, whose reward is 100 * row + step + 1 and whose action is the step."""
    at, rows = torch.arange(capacity)[:, None], torch.arange(len(lengths))
    real = at < torch.tensor(lengths)
    rewards = (100.0 * rows + at + 1) * real
    end = at == torch.tensor(lengths) - 1
    none = torch.zeros_like(real)
    return TrialRecord(
        observations=torch.zeros(capacity, len(lengths), 1),
        outcomes=torch.zeros(capacity, len(lengths), 1),
        actions=at.expand(capacity, len(lengths)),
        log_probs=torch.zeros(capacity, len(lengths)),
        rewards=rewards,
        terminated=end,
        truncated=none,
        trial_end=end,
        success=none,
        episode=torch.zeros(capacity, len(lengths), dtype=torch.int64),
        real=real,
    )


def cut_up(trials: TrialRecord, window: int, burn_in: int, longest: int, limit_ends: bool = True) -> Stretches:
    """The memory after a step is its reward."""
    x = torch.stack([trials.rewards, -trials.rewards], -1)
    sizes = {"window": window, "burn_in": burn_in, "longest": longest}
    return trial_replay.cut_up(trials, x, trials.rewards[..., None], **sizes, limit_ends=limit_ends)


def test_stretches_by_hand() -> None:
    got = cut_up(record([7, 2, 4], 7), window=2, burn_in=1, longest=9)
    assert got.rewards.tolist() == [
        [1, 2, 3, 4],
        [101, 102, 0, 0],
        [201, 202, 203, 204],
        [3, 4, 5, 6],
        [203, 204, 0, 0],
        [5, 6, 7, 0],
    ]
    want = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 1, 0]]
    assert got.teaches.int().tolist() == want
    ends = [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    assert got.cut.int().tolist() == ends
    assert got.memory.flatten().tolist() == [0, 0, 0, 2, 202, 4]
    assert torch.equal(got.x, torch.stack([got.rewards, -got.rewards], -1))
    real = got.rewards > 0
    assert torch.equal(got.actions[real], (got.rewards[real] % 100).long() - 1)


def test_where_a_limit_ends_nothing_the_last_step_only_says_what_followed() -> None:
    trials = record([4, 3], 4)
    ran_out = torch.tensor([True, False])
    trials = dataclasses.replace(trials, terminated=trials.trial_end & ~ran_out, truncated=trials.trial_end & ran_out)
    got = cut_up(trials, window=4, burn_in=0, longest=4, limit_ends=False)
    assert got.teaches.tolist() == [[True, True, True, False], [True, True, True, False]]
    assert got.cut.tolist() == [[False] * 4, [False, False, True, False]]
    whole = cut_up(trials, window=4, burn_in=0, longest=4)
    assert whole.teaches.sum(-1).tolist() == [4, 3]
    assert whole.cut.int().tolist() == [[0, 0, 0, 1], [0, 0, 1, 0]]


def test_a_short_trial_is_one_stretch() -> None:
    got = cut_up(record([5, 3], 5), window=20, burn_in=4, longest=5)
    assert got.rewards.shape == (2, 5)
    assert got.teaches.sum(-1).tolist() == [5, 3]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 5), st.integers(0, 4), st.integers(0, 3))
def test_every_step_teaches_once_and_what_follows_is_known(
    lengths: list[int], window: int, burn_in: int, spare: int
) -> None:
    longest = max(lengths) + spare
    got = cut_up(record(lengths, max(lengths)), window, burn_in, longest)
    assert got.rewards.shape[1] <= min(burn_in + window + 1, longest)
    taught = sorted(got.rewards[got.teaches].tolist())
    assert taught == [100 * row + t + 1 for row, n in enumerate(lengths) for t in range(n)]
    for row, step in (got.teaches & ~got.cut).nonzero().tolist():
        assert got.rewards[row, step + 1] == got.rewards[row, step] + 1
    starts = got.rewards[:, 0] % 100
    assert torch.equal(got.memory[:, 0] % 100, starts - 1)


def stretches(first: int, many: int) -> Stretches:
    """Of one trial each, of three steps, rows counted from ``first``."""
    whole = cut_up(record([3] * (first + many), 3), window=4, burn_in=0, longest=3)
    return Stretches(**{name: value[first:] for name, value in vars(whole).items()})


def test_the_newest_are_kept() -> None:
    replay = trial_replay.empty(3, stretches(0, 1))
    one = trial_replay.remember(replay, stretches(1, 2))
    assert one["rewards"][:, 0].tolist() == [101, 201, 0]
    two = trial_replay.remember(one, stretches(3, 2))
    assert two["rewards"][:, 0].tolist() == [401, 201, 301]
    assert two["memory"].shape == (3, 1)
    many = trial_replay.remember(two, stretches(5, 4))
    assert sorted(many["rewards"][:, 0].tolist()) == [601, 701, 801]
    assert not replay["rewards"].any(), "a replay is a value"
    none = trial_replay.remember(many, stretches(9, 0))
    assert all(torch.equal(none[name], many[name]) for name in many)


def test_draws_are_of_what_is_remembered() -> None:
    replay = trial_replay.remember(trial_replay.empty(5, stretches(0, 1)), stretches(1, 3))
    drawn = trial_replay.draw(replay, 200, np.random.default_rng(0))
    assert set(drawn.rewards[:, 0].tolist()) == {101, 201, 301}
    assert torch.equal(drawn.x[..., 1], -drawn.rewards)
    again = trial_replay.draw(replay, 200, np.random.default_rng(0))
    assert torch.equal(drawn.rewards, again.rewards)
