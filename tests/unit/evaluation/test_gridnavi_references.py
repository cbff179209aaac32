from __future__ import annotations

import itertools

import numpy as np
import pytest

from innerloop_server.domain import ReturnUnit, Task
from innerloop_server.evaluation.references.catalog import references
from innerloop_server.evaluation.references.gridnavi import (
    REST,
    SEARCH,
    BayesOptimal,
    PosteriorSampling,
    bayes_optimal_returns,
    gridnavi_references,
    memoryless_return,
    oracle_return,
    play,
    random_return,
)
from innerloop_server.evaluation.references.gridnavi_posterior import posterior_sampling_returns
from innerloop_server.tasks.families.gridnavi import EPISODES, GOALS, HORIZON, MOVES, GridNavi
from innerloop_server.tasks.families.tabular_mdp import TabularMDP

FAMILY = GridNavi()
TASKS = [Task("gridnavi", {"goal": np.array(goal)}) for goal in range(len(GOALS))]


class Blind:
    """Goes to (2, 0) and stays, whatever it is paid."""

    def begin(self) -> None: ...

    def act(self, cell: tuple[int, int]) -> int:
        return MOVES.index((1, 0)) if cell[0] < 2 else 0

    def learn(self, cell: tuple[int, int], reward: float) -> None: ...


class Uniform:
    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def begin(self) -> None: ...

    def act(self, cell: tuple[int, int]) -> int:
        return int(self._rng.integers(len(MOVES)))

    def learn(self, cell: tuple[int, int], reward: float) -> None: ...


def over_all_goals(player, trials: int = 1) -> np.ndarray:
    """[goals, trials, EPISODES] returns of fresh players in the family's own environment."""
    return np.array(
        [[play(lambda task=task: FAMILY.make(task), player(), EPISODES) for _ in range(trials)] for task in TASKS]
    )


def test_the_bayes_optimum_is_the_published_one() -> None:
    returns = bayes_optimal_returns(EPISODES)
    np.testing.assert_allclose(returns, [4.0, 11.0714, 11.0714, 11.0714], atol=5e-5)
    assert sum(returns) == pytest.approx(37.2143, abs=5e-5)
    assert EPISODES * oracle_return() == pytest.approx(44.286, abs=5e-4)
    assert bayes_optimal_returns(1) == [4.0]


def test_a_policy_attains_it_in_the_environment() -> None:
    """Over all 21 goals, each as likely: exactly, in every episode."""
    np.testing.assert_allclose(over_all_goals(BayesOptimal).mean((0, 1)), bayes_optimal_returns(EPISODES), atol=1e-12)


def test_why_nothing_can_be_better() -> None:
    """What the closed form's argument rests on."""
    where = [(0, 0), *SEARCH]
    assert len(SEARCH) == HORIZON
    for way in (where, [(0, 0), *REST]):
        assert all(abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for a, b in itertools.pairwise(way))
    assert not any((x, y) in GOALS for x in range(2) for y in range(2))  # so no first step looks into a goal
    assert set(SEARCH[1:]) <= set(GOALS)
    assert len(set(SEARCH[1:])) == HORIZON - 1  # and every other step looks into a new one
    assert set(GOALS) - set(SEARCH) == set(REST) & set(GOALS)
    assert all(REST[x + y - 1] == (x, y) for x, y in REST)  # a shortest way to each cell on it


def test_the_oracle_by_walking() -> None:
    """A player that is told the goal, in its first episode."""

    def straight(goal: tuple[int, int]) -> float:
        player = PosteriorSampling(np.random.default_rng(0))
        player._left = [goal]
        return play(lambda: FAMILY.make(TASKS[GOALS.index(goal)]), player, 1)[0]

    assert np.mean([straight(goal) for goal in GOALS]) == pytest.approx(oracle_return(), abs=1e-12)


def test_posterior_sampling_is_the_published_one() -> None:
    returns = posterior_sampling_returns(EPISODES)
    np.testing.assert_allclose(returns, [0.497, 2.258, 3.811, 5.172], atol=0.02)
    assert posterior_sampling_returns(2) == returns[:2]


def test_posterior_sampling_in_the_environment() -> None:
    rng = np.random.default_rng(0)
    returns = over_all_goals(lambda: PosteriorSampling(rng), trials=60)
    error = returns.std(1).mean(0) / np.sqrt(returns.shape[0] * returns.shape[1])
    assert np.all(np.abs(returns.mean((0, 1)) - posterior_sampling_returns(EPISODES)) < 4 * error)
    assert error.max() < 0.2


def test_the_first_episode_of_posterior_sampling_by_enumeration() -> None:
    """21 goals by 21 samples; on the way to (x, y), the cell (a, b) is passed with the chance of that many coins."""

    def passes(target: tuple[int, int], cell: tuple[int, int]) -> float:
        chances = {(0, 0): 1.0}
        for _ in range(sum(cell)):
            after: dict[tuple[int, int], float] = {}
            for (x, y), chance in chances.items():
                ways = [w for w in ((x + 1, y), (x, y + 1)) if w[0] <= target[0] and w[1] <= target[1]]
                for way in ways:
                    after[way] = after.get(way, 0.0) + chance / len(ways)
            chances = after
        return chances.get(cell, 0.0)

    total = 0.0
    for goal in GOALS:
        for target in GOALS:
            met = passes(target, goal)
            total += met * ((16 - sum(goal)) - 0.1 * (sum(goal) - 1)) + (1 - met) * -1.5
    assert posterior_sampling_returns(1)[0] == pytest.approx(total / 21**2, abs=1e-12)


def test_who_cannot_remember_goes_to_the_nearest_and_stays() -> None:
    assert over_all_goals(Blind).mean((0, 1)) == pytest.approx([memoryless_return()] * EPISODES, abs=1e-12)
    assert memoryless_return() == pytest.approx(-1.5 + 14 * 1.1 / 21)


def test_random_actions_in_the_environment() -> None:
    rng = np.random.default_rng(0)
    returns = over_all_goals(lambda: Uniform(rng), trials=40)
    error = returns.std() / np.sqrt(returns.size)
    assert returns.mean() == pytest.approx(random_return(), abs=4 * error)


def test_listed_are_trials() -> None:
    found = {reference.name: reference for reference in references(FAMILY)}
    assert {name: round(reference.value, 3) for name, reference in found.items()} == {
        "bayes-optimum": 37.214,
        "oracle": 44.286,
        "memoryless": -3.067,
        "random": -4.662,
        "posterior-sampling": 11.744,
    }
    assert {reference.unit for reference in found.values()} == {ReturnUnit.TRIAL}
    assert gridnavi_references(TabularMDP()) == ()
