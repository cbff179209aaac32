from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop_server.learners import returns


def episodes(*rows: list[float]) -> torch.Tensor:
    """[1, N, T] float64, padded with zeros."""
    longest = max(map(len, rows))
    return torch.tensor([[*map(float, row), *[0.0] * (longest - len(row))] for row in rows], dtype=torch.float64)[None]


def test_returns_by_hand() -> None:
    r_t = episodes([1, 2, 4], [8])
    assert returns.discounted_returns(r_t, 0.5).tolist() == [[[3, 4, 4], [8, 0, 0]]]


def test_step_mask() -> None:
    assert returns.step_mask(torch.tensor([[2, 0]]), 3).tolist() == [[[True, True, False], [False] * 3]]


def test_discount_to_end_by_hand() -> None:
    powers = returns.discount_to_end(torch.tensor([[3, 1, 0]]), 3, 0.5, torch.float64)
    assert powers.tolist() == [[[0.125, 0.25, 0.5], [0.5, 0, 0], [0, 0, 0]]]


def test_gae_by_hand() -> None:
    # Cut after three steps with value 8 behind it: deltas 1+.5*2-4, 2+.5*6-2, 4+.5*8-6 = -2, 3, 2; trace .5*.5.
    # Ended after one step: delta 8-3; what stands in the padding must not leak in.
    r_t = episodes([1, 2, 4], [8])
    v_t = episodes([4, 2, 6], [3, 99, 99])
    lengths = torch.tensor([[3, 1]])
    advantages = returns.gae(r_t, v_t, torch.tensor([[8.0, 0.0]], dtype=torch.float64), lengths, 0.5, 0.5)
    assert advantages.tolist() == [[[-2 + 0.25 * 3.5, 3.5, 2], [5, 0, 0]]]


@settings(deadline=None)
@given(
    st.lists(st.lists(st.floats(-10, 10), min_size=1, max_size=6), min_size=1, max_size=4),
    st.floats(0, 1),
    st.floats(-5, 5),
)
def test_lambda_one_is_return_minus_value(rows: list[list[float]], discount: float, value: float) -> None:
    r_t = episodes(*rows)
    lengths = torch.tensor([[len(row) for row in rows]])
    mask = returns.step_mask(lengths, r_t.shape[-1])
    v_t = torch.full_like(r_t, value)
    got = returns.gae(r_t, v_t, torch.zeros(1, len(rows), dtype=torch.float64), lengths, discount, 1.0)
    want = (returns.discounted_returns(r_t, discount) - value) * mask
    torch.testing.assert_close(got, want)


@settings(deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=8))
def test_discount_zero_gives_rewards_and_one_gives_sums(row: list[float]) -> None:
    r_t = episodes(row)
    assert torch.equal(returns.discounted_returns(r_t, 0.0), r_t)
    assert returns.discounted_returns(r_t, 1.0)[0, 0, 0].item() == pytest.approx(sum(row), abs=1e-9)
