"""Learned time: how many steps a validation curve says are worth their episodes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop_server.adaptation.worth import PRICE, Curve, Gain, Worth, gains, worth


def manifest(means: list[float], errors: list[float | None] | None = None, episodes: int = 20) -> dict[str, Any]:
    """As promotions wrote them before ``gains``."""
    errors = errors or [0.0] * len(means)
    scores = [{"k": k, "mean": m, "standard_error": e} for k, (m, e) in enumerate(zip(means, errors, strict=True))]
    return {"validation": {"protocol": {"episodes_per_step": episodes}, "scores": scores}}


def curve(means: list[float], errors: list[float | None] | None = None, episodes: int = 20) -> Curve:
    found = Curve.of(manifest(means, errors, episodes))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("means", "steps", "why"),
    [
        ([0, 90, 99, 100], 2, "the last step brings exactly 1 %, which is not more than its price"),
        ([0, 90, 98.9, 100], 3, "1.1 %"),
        ([0, 100, 100, 100], 1, "nothing more to gain"),
        ([0, 40, 40, 100], 3, "a plateau before a rise: 30 a step over two steps"),
        ([0, 60, 50, 100], 3, "a dip before a rise: 20 a step over two steps"),
        ([0, 99, 98, 100], 1, "a dip before a rise that is too small: 0.5 a step"),
        ([0, 90, 91.5, 91.6, 92], 2, "1.5 in one step, though 2 in three are more in all"),
        ([0, -10, -20], 1, "the first step is always taken"),
        ([5, 5], 1, "flat"),
        ([-36.6, -10.2, -2.8, -1.7], 3, "as far as the curve goes"),
    ],
)
def test_steps_are_taken_while_they_are_worth_their_price(means: list[float], steps: int, why: str) -> None:
    assert worth(curve(means), 20).steps == steps, why


def test_what_noise_would_show_is_no_reason_to_go_on() -> None:
    """Unpaired errors of 3 and 4 make one of 5."""
    assert worth(curve([0, 90, 94.9], [0, 3, 4]), None).steps == 1
    assert worth(curve([0, 90, 95.1], [0, 3, 4]), None).steps == 2
    assert worth(curve([0, 90, 94.9], [0, None, 4]), None).steps == 2, "an error that is not known stops nothing"


def test_twice_the_episodes_must_bring_twice_as_much() -> None:
    means = [0.0, 98.5, 100.0]  # the second step brings 1.5 %
    assert [worth(curve(means), episodes).steps for episodes in (10, 20, 30, 40)] == [2, 2, 1, 1]
    assert worth(curve(means), None).steps == 2


def test_each_task_is_compared_with_itself() -> None:
    """Tasks that differ much from one another, and each gains a little: by hand, mean 2, deviations -1, 0, 1."""
    returns = np.array([[0.0, 1.0], [100.0, 102.0], [1000.0, 1003.0]])
    (one,) = gains(returns)
    assert one == Gain(1, 2.0, pytest.approx(1 / math.sqrt(3)))
    assert gains(returns[:1]) == (Gain(1, 1.0, None),)


def test_gains_look_as_far_ahead_as_it_pays() -> None:
    returns = np.array([[0.0, 1.0, 2.0, 9.0], [0.0, 1.0, 2.0, 15.0]])  # means 0, 1, 2, 12
    first, second, third = gains(returns)
    assert (first.steps, first.gain) == (3, 4.0)
    assert (second.steps, second.gain) == (2, 5.5)
    assert (third.steps, third.gain) == (1, 10.0)
    assert first.standard_error == pytest.approx(1.0)  # 3 and 5 a step: deviation sqrt(2), over sqrt(2)


def test_stored_gains_are_taken_before_errors_that_are_too_large() -> None:
    values = manifest([0, 90, 95], [50, 50, 50])
    values["validation"]["gains"] = [
        {"steps": 1, "gain": 90.0, "standard_error": 2.0},
        {"steps": 1, "gain": 5.0, "standard_error": 1.0},
    ]
    found = Curve.of(values)
    assert found is not None
    assert worth(found, 20) == Worth(2, (90.0, 5.0))
    assert worth(curve([0, 90, 95], [50, 50, 50]), 20).steps == 1


@pytest.mark.parametrize("empty", [{}, {"validation": None}, {"validation": {"scripted": True}}, manifest([1.0])])
def test_where_nothing_is_known_of_steps_there_is_no_curve(empty: dict[str, Any]) -> None:
    assert Curve.of(empty) is None


def test_what_one_more_step_brought() -> None:
    found = worth(curve([0, 90, 95]), 20)
    assert [found.expected_gain(step) for step in (0, 1, 2, 3)] == [90, 5, None, None]
    assert Worth.from_json(found.to_json()) == found


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=12))
def test_the_unit_of_returns_does_not_matter(means: list[int]) -> None:
    """And no session goes past the best that a step can reach."""
    whole = [float(m) for m in means]
    steps = worth(curve(whole), None).steps
    assert worth(curve([m * 2.0**10 for m in whole]), None).steps == steps
    assert worth(curve([m + 7.0 for m in whole]), None).steps == steps
    assert 1 <= steps <= 1 + int(np.argmax(whole[1:]))
    if steps > 1:
        assert max(whole[steps:]) - whole[steps - 1] > PRICE * (max(whole) - whole[0])
