import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop_server.domain import Reference
from innerloop_server.evaluation.scores import (
    bootstrap_interval,
    gap_closed,
    interquartile_mean,
    score,
    standard_error,
    trial_metrics,
)
from innerloop_server.streams import Purpose, stream

FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 3.0], 2.0),
        # Sixths: each value stands for a third, so the outer ones lie in the middle half by 1/3 - 1/4 = 1/12 each and
        # the middle one by 4/12: (0 + 4 * 3 + 12) / 6.
        ([12.0, 0.0, 3.0], 4.0),
        ([100.0, 2.0, 4.0, -50.0], 3.0),
        # Fifths: 0.15 of the outer quartile each side cuts the first and last wholly (0.2) and 0.05 of the next.
        ([-99.0, 1.0, 2.0, 6.0, 99.0], (0.15 * 1 + 0.2 * 2 + 0.15 * 6) / 0.5),
        ([8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 4.5),
    ],
)
def test_interquartile_mean_by_hand(values: list[float], expected: float) -> None:
    assert interquartile_mean(np.array(values)) == pytest.approx(expected, abs=1e-12)


@given(st.lists(FINITE, min_size=1, max_size=12), st.floats(-100, 100))
def test_interquartile_mean_lies_between_and_moves_along(values: list[float], shift: float) -> None:
    array = np.array(values)
    iqm = interquartile_mean(array)
    assert array.min() - 1e-6 <= iqm <= array.max() + 1e-6
    assert interquartile_mean(array + shift) == pytest.approx(iqm + shift, abs=1e-6)


@given(st.integers(1, 6).flatmap(lambda n: st.lists(FINITE, min_size=4 * n, max_size=4 * n)))
def test_interquartile_mean_is_the_trimmed_mean_where_quarters_are_whole(values: list[float]) -> None:
    n = len(values) // 4
    assert interquartile_mean(np.array(values)) == pytest.approx(np.mean(sorted(values)[n:-n]), rel=1e-9, abs=1e-6)


def test_standard_error_by_hand() -> None:
    # deviations -2, 0, 2; variance 8 / 2 = 4; 2 / sqrt(3)
    assert standard_error(np.array([1.0, 3.0, 5.0])) == pytest.approx(2 / math.sqrt(3))
    assert math.isnan(standard_error(np.array([1.0])))


def test_bootstrap_interval_is_that_of_the_normal_for_many_values() -> None:
    values = np.random.default_rng(0).normal(10, 5, 400)
    low, high = bootstrap_interval(values, stream(1, Purpose.BOOTSTRAP))
    assert low == pytest.approx(values.mean() - 1.96 * standard_error(values), abs=0.05)
    assert high == pytest.approx(values.mean() + 1.96 * standard_error(values), abs=0.05)


def test_bootstrap_interval_of_two_values_is_their_range() -> None:
    # A quarter of the resamples is (0, 0) and a quarter (1, 1), far more than a tail.
    assert bootstrap_interval(np.array([0.0, 1.0]), stream(0, Purpose.BOOTSTRAP)) == (0.0, 1.0)


def test_one_value_says_nothing_about_others() -> None:
    low, high = bootstrap_interval(np.array([3.0]), stream(0, Purpose.BOOTSTRAP))
    assert math.isnan(low)
    assert math.isnan(high)


def test_a_score_is_a_function_of_its_arguments() -> None:
    returns = np.array([1.0, 2.0, 3.0, 10.0, 4.0])
    one = score(returns, k=2, episodes=20, seed=3)
    assert one == score(returns, k=2, episodes=20, seed=3)
    assert (one.k, one.tasks, one.episodes, one.mean) == (2, 5, 20, 4.0)
    assert one.interquartile_mean == pytest.approx((0.15 * 2 + 0.2 * 3 + 0.15 * 4) / 0.5)
    assert one.low < 4.0 < one.high
    many = np.random.default_rng(0).normal(size=50)
    assert score(many, 1, 20, 3).low != score(many, 2, 20, 3).low
    assert score(many, 1, 20, 3).low != score(many, 1, 20, 4).low


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"memoryless": -40.0, "oracle": 0.0}, 0.75),
        ({"memoryless": 10.0, "oracle": -10.0, "random": 3.0}, 1.0),
        ({"oracle": 0.0}, None),
        ({"memoryless": 0.0}, None),
        ({"memoryless": 0.0, "oracle": 0.0}, None),
    ],
)
def test_gap_closed_by_hand(names: dict[str, float], expected: float | None) -> None:
    references = [Reference(name, value, "") for name, value in names.items()]
    assert gap_closed(-10.0, references) == expected


def test_a_single_trial_has_no_interval() -> None:
    assert trial_metrics(np.array([3.0]), 0) == {"trial_return": 3.0}
    found = trial_metrics(np.array([1.0, 2.0, 6.0]), 0)
    assert found["trial_return"] == 3.0
    assert 1.0 <= found["trial_low"] < 3.0 < found["trial_high"] <= 6.0
