"""When a session ends by itself, and which bounds are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from innerloop_server.adaptation.budget import check, reached
from innerloop_server.adaptation.messages import EndReason
from innerloop_server.domain import Budget
from innerloop_server.errors import InvalidField
from innerloop_server.settings import Limits

STEPS, EPISODES = EndReason.BUDGET_STEPS, EndReason.BUDGET_EPISODES
SECONDS, TARGET = EndReason.BUDGET_SECONDS, EndReason.TARGET_RETURN
ALL = Budget(steps=3, episodes=40, seconds=2.0, target_return=-5.0)


@pytest.mark.parametrize(
    ("budget", "steps", "episodes", "seconds", "mean_return", "reason"),
    [
        (Budget(), 10**9, 10**9, 1e9, 1e9, None),
        (Budget(steps=3), 2, 0, 0.0, None, None),
        (Budget(steps=3), 3, 0, 0.0, None, STEPS),
        (Budget(steps=3), 4, 0, 0.0, None, STEPS),
        (Budget(episodes=40), 1, 39, 0.0, None, None),
        (Budget(episodes=40), 1, 40, 0.0, None, EPISODES),
        (Budget(seconds=2.0), 1, 1, 1.999, None, None),
        (Budget(seconds=2.0), 1, 1, 2.0, None, SECONDS),
        (Budget(target_return=-5.0), 0, 0, 0.0, None, None),
        (Budget(target_return=-5.0), 1, 1, 0.0, -5.001, None),
        (Budget(target_return=-5.0), 1, 1, 0.0, -5.0, TARGET),
        (Budget(target_return=-5.0), 1, 1, 0.0, math.nan, None),
        (ALL, 2, 39, 1.0, -6.0, None),
        (ALL, 3, 40, 2.0, -5.0, TARGET),
        (ALL, 3, 40, 2.0, -6.0, STEPS),
        (ALL, 2, 40, 2.0, -6.0, EPISODES),
    ],
)
def test_the_first_bound_that_is_reached(
    budget: Budget, steps: int, episodes: int, seconds: float, mean_return: float | None, reason: EndReason | None
) -> None:
    assert reached(budget, steps=steps, episodes=episodes, seconds=seconds, mean_return=mean_return) is reason


@pytest.mark.parametrize(
    ("bounds", "field"),
    [
        ({"steps": 0}, "open.budget.steps"),
        ({"steps": -1}, "open.budget.steps"),
        ({"steps": 10_001}, "open.budget.steps"),
        ({"episodes": 0}, "open.budget.episodes"),
        ({"episodes": 1_000_001}, "open.budget.episodes"),
        ({"seconds": 0.0}, "open.budget.compute_seconds"),
        ({"seconds": -1.0}, "open.budget.compute_seconds"),
        ({"seconds": math.inf}, "open.budget.compute_seconds"),
        ({"seconds": math.nan}, "open.budget.compute_seconds"),
        ({"steps": 1, "target_return": math.nan}, "open.budget.target_return"),
        ({"steps": 1, "target_return": -math.inf}, "open.budget.target_return"),
    ],
)
def test_bounds_that_cannot_be(bounds: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        check(Budget(**bounds), Limits(), simulated=False)
    assert caught.value.field == field


@pytest.mark.parametrize("bounds", [{"steps": 1}, {"steps": 10_000}, {"episodes": 1_000_000}, {"seconds": 1e-9}])
def test_bounds_that_can_be(bounds: dict[str, Any]) -> None:
    check(Budget(**bounds), Limits(), simulated=True)


@pytest.mark.parametrize(
    ("budget", "steps", "reason"),
    [
        (Budget(auto=True), 2, None),
        (Budget(auto=True), 3, EndReason.BUDGET_AUTO),
        (Budget(auto=True), 4, EndReason.BUDGET_AUTO),
        (Budget(auto=True, steps=3), 3, STEPS),  # what somebody asked for is named before what was left to the curve
        (Budget(auto=True, steps=2), 2, STEPS),
    ],
)
def test_learned_time_is_a_bound_among_others(budget: Budget, steps: int, reason: EndReason | None) -> None:
    assert reached(budget, steps=steps, episodes=0, seconds=0.0, mean_return=None, worth=3) is reason
    check(budget, Limits(), simulated=True)


@pytest.mark.parametrize("budget", [Budget(), Budget(target_return=0.0)])
def test_only_a_client_may_go_on_for_ever(budget: Budget) -> None:
    check(budget, Limits(), simulated=False)
    with pytest.raises(InvalidField, match="set steps, episodes, compute_seconds or auto"):
        check(budget, Limits(), simulated=True)
