"""A ring of whole trials."""

from __future__ import annotations

import numpy as np
import torch

from innerloop_server.learners.trial_record import TrialRecord
from innerloop_server.training import trial_buffer


def trials(lengths: list[int], first: float) -> TrialRecord:
    """Rows whose rewards are ``first``, ``first + 1``, ..."""
    steps, rows = max(lengths), len(lengths)
    real = torch.arange(steps).unsqueeze(-1) < torch.tensor(lengths)
    flags = torch.zeros(steps, rows, dtype=torch.bool)
    return TrialRecord(
        observations=torch.rand(steps, rows, 2),
        outcomes=torch.rand(steps, rows, 2),
        actions=torch.zeros(steps, rows, dtype=torch.int64),
        log_probs=torch.zeros(steps, rows),
        rewards=(first + torch.arange(rows)).expand(steps, rows) * real,
        terminated=flags,
        truncated=flags,
        trial_end=flags,
        success=flags,
        episode=torch.zeros(steps, rows, dtype=torch.int64),
        real=real,
    )


def held(buffer: dict[str, torch.Tensor]) -> list[float]:
    return buffer["rewards"][0].tolist()


def test_the_newest_take_the_place_of_the_oldest() -> None:
    buffer = trial_buffer.empty(5, 4, trials([1], 0))
    buffer = trial_buffer.remember(buffer, trials([3, 4, 2], 1))
    assert held(buffer) == [1, 2, 3, 0, 0]
    before = {name: value.clone() for name, value in buffer.items()}
    after = trial_buffer.remember(buffer, trials([1, 1, 1], 4))
    assert held(after) == [6, 2, 3, 4, 5]
    assert after["written"].tolist() == [6]
    assert after["real"].sum(0).tolist() == [1, 4, 2, 1, 1], "what was longer leaves nothing behind"
    assert all(torch.equal(before[name], buffer[name]) for name in before), "a buffer is a value"


def test_draws_are_of_what_was_written_and_no_longer_than_needed() -> None:
    buffer = trial_buffer.remember(trial_buffer.empty(50, 9, trials([1], 0)), trials([3, 2, 1], 1))
    drawn = trial_buffer.draw(buffer, 60, np.random.default_rng(0))
    assert set(drawn.rewards[0].tolist()) == {1, 2, 3}
    assert drawn.real.shape == (3, 60)
    shortest = trial_buffer.remember(trial_buffer.empty(50, 9, trials([1], 0)), trials([1, 1], 1))
    assert trial_buffer.draw(shortest, 4, np.random.default_rng(0)).real.shape == (1, 4)
    again = trial_buffer.draw(buffer, 60, np.random.default_rng(0))
    assert torch.equal(again.rewards, drawn.rewards)
