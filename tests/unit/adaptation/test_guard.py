"""Keep, go back, halve: by hand, and against what must always hold."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from innerloop_server.adaptation.guard import Guard, Verdict, judge

KEEP, BACK = Verdict.KEEP, Verdict.BACK


def test_a_rise_is_kept() -> None:
    guard, verdict = judge(Guard(True), -10.0)
    assert (guard, verdict) == (Guard(True, -10.0, 1.0, True), KEEP)
    guard, verdict = judge(guard.moved(), -8.0)
    assert (guard, verdict) == (Guard(True, -8.0, 1.0, True), KEEP)


def test_an_equal_return_is_no_fall() -> None:
    assert judge(Guard(True, -8.0, 0.5, False), -8.0) == (Guard(True, -8.0, 0.5, True), KEEP)


def test_a_fall_goes_back_and_halves_the_rate() -> None:
    guard, verdict = judge(Guard(True, -8.0, 1.0, False), -9.0)
    assert (guard, verdict) == (Guard(True, -8.0, 0.5, True), BACK)
    guard, verdict = judge(guard.moved(), -8.5)
    assert (guard, verdict) == (Guard(True, -8.0, 0.25, True), BACK)


def test_fresh_episodes_of_the_best_state_replace_its_lucky_return() -> None:
    """The best of many noisy returns is too good to be met again; measured afresh, it lets the next step pass."""
    guard, verdict = judge(Guard(True, -8.0, 0.5, True), -12.0)
    assert (guard, verdict) == (Guard(True, -12.0, 0.5, True), KEEP)
    assert judge(guard.moved(), -11.0)[1] is KEEP


def test_without_a_guard_all_is_kept_at_the_full_rate() -> None:
    guard = Guard(False)
    for mean_return in (1.0, -1.0, -100.0):
        guard, verdict = judge(guard.moved(), mean_return)
        assert verdict is KEEP
    assert guard == Guard(False, -100.0, 1.0, True)


def test_a_return_that_is_no_number_is_a_fall() -> None:
    assert judge(Guard(True, -8.0, 1.0, False), math.nan)[1] is BACK


@given(st.lists(st.tuples(st.booleans(), st.floats(-1e6, 1e6)), max_size=40), st.booleans())
def test_the_rate_never_rises_and_the_best_return_is_the_best_states(
    samples: list[tuple[bool, float]], enabled: bool
) -> None:
    """Model: states are numbers, ``returns`` holds the last sampled mean of each."""
    guard = Guard(enabled)
    state = best = 0
    returns: dict[int, float] = {}
    made = 0
    backs = 0
    for update, mean_return in samples:
        if update:
            made += 1
            state, guard = made, guard.moved()
        before = guard
        guard, verdict = judge(guard, mean_return)
        returns[state] = mean_return
        if verdict is BACK:
            assert enabled
            assert mean_return < returns[best]
            backs += 1
            state = best
        else:
            best = state
        assert guard.at_best
        assert guard.best_return == returns[best]
        assert guard.rate_scale <= before.rate_scale
        assert guard.rate_scale == 0.5**backs
