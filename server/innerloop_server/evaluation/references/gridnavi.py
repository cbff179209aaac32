"""What is possible in ``gridnavi``, exactly: closed forms, and policies that reach them in the environment.

Distances are Manhattan. A goal at distance d that is reached without a detour pays ON_GOAL for the ``HORIZON + 1 - d``
steps that end on it and ELSEWHERE for the ``d - 1`` before. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np

from innerloop.arrays import Array
from innerloop_server.domain import Reference, ReturnUnit
from innerloop_server.evaluation.references.gridnavi_posterior import posterior_sampling_returns
from innerloop_server.tasks.families.gridnavi import ELSEWHERE, GOALS, HORIZON, MOVES, ON_GOAL, SIZE, GridNavi
from innerloop_server.tasks.family import Family

Cell = tuple[int, int]

SEARCH: tuple[Cell, ...] = (
    *((1, 0), (2, 0), (3, 0), (4, 0), (4, 1), (3, 1), (2, 1), (2, 2)),
    *((1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (4, 2), (4, 3)),
)
"""The Bayes-optimal first episode: from its second step on, every step looks into a goal that was not seen yet."""
REST: tuple[Cell, ...] = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 4), (2, 4), (3, 4), (4, 4))
"""The goals that ``SEARCH`` leaves lie on this one shortest way, so looking for them costs nothing."""


def return_at(arrival: int) -> float:
    """Return of an episode that ends its ``arrival``-th step on the goal for the first time and stays."""
    return ON_GOAL * (HORIZON + 1 - arrival) + ELSEWHERE * (arrival - 1)


def oracle_return() -> float:
    """Expected return of an episode for who knows the goal: 11.0714."""
    return float(np.mean([return_at(x + y) for x, y in GOALS]))


def bayes_optimal_returns(episodes: int) -> list[float]:
    """Expected return of each episode of the Bayes-optimal policy: 4.0000, then 11.0714 each.

    No policy does better in any episode. In the first, the two cells before the nearest goals cost a step, and then a
    step looks into one goal at most: ``SEARCH`` does so at every step. In the others, nobody beats who knows the goal:
    who found it knows it, and who did not walks ``REST``, on which every goal left comes as soon as it can.
    """
    found = sum(return_at(step) for step in range(2, HORIZON + 1))
    missed = (len(GOALS) - (HORIZON - 1)) * ELSEWHERE * HORIZON
    return [(found + missed) / len(GOALS), *[oracle_return()] * (episodes - 1)]


def memoryless_return() -> float:
    """Expected return of an episode for the best policy that cannot remember rewards: -0.7667.

    All goals are equally likely at every step, so a step on any of them pays the same on average: go to a nearest one
    (two steps) and stay.
    """
    chance = 1 / len(GOALS)
    return ELSEWHERE + (HORIZON - 1) * (chance * ON_GOAL + (1 - chance) * ELSEWHERE)


def random_return() -> float:
    """Expected return of an episode of uniformly random actions, by the distribution over cells after each step."""
    cells = np.zeros((SIZE, SIZE))
    cells[0, 0] = 1.0
    on_goal = 0.0
    for _ in range(HORIZON):
        after = np.zeros_like(cells)
        for (x, y), chance in np.ndenumerate(cells):
            for dx, dy in MOVES:
                after[min(max(x + dx, 0), SIZE - 1), min(max(y + dy, 0), SIZE - 1)] += chance / len(MOVES)
        cells = after
        on_goal += sum(cells[goal] for goal in GOALS) / len(GOALS)
    return float(on_goal * ON_GOAL + (HORIZON - on_goal) * ELSEWHERE)


def gridnavi_references(family: Family) -> tuple[Reference, ...]:
    """All that is known, of a trial; nothing of any other family."""
    if not isinstance(family, GridNavi):
        return ()
    n = family.episodes_per_trial
    values = {
        "bayes-optimum": (sum(bayes_optimal_returns(n)), "closed form, and attained by a policy in the environment"),
        "oracle": (n * oracle_return(), "closed form: straight to the known goal"),
        "memoryless": (n * memoryless_return(), "closed form: to a nearest cell that may be the goal, and stay"),
        "random": (n * random_return(), "exact: the distribution over cells after each step"),
        "posterior-sampling": (
            sum(posterior_sampling_returns(n)),
            "exact: over all goals, samples and shortest ways",
        ),
    }
    return tuple(Reference(name, value, source, ReturnUnit.TRIAL) for name, (value, source) in values.items())


class Player(Protocol):
    """A policy with a memory, in one trial."""

    def begin(self) -> None:
        """An episode begins; the walker stands at (0, 0)."""

    def act(self, cell: Cell) -> int:
        """The action to take in ``cell``."""

    def learn(self, cell: Cell, reward: float) -> None:
        """What the step that ended in ``cell`` paid."""


class BayesOptimal:
    """Searches along ``SEARCH``, then along ``REST``; stays where it was paid and goes straight back afterwards."""

    def __init__(self) -> None:
        self._ways = iter((SEARCH, REST))
        self._way: Sequence[Cell] = ()
        self._goal: Cell | None = None
        self._time = 0

    def begin(self) -> None:
        """Take the next way while the goal is not known."""
        if self._goal is None:
            self._way = next(self._ways)
        self._time = 0

    def act(self, cell: Cell) -> int:
        """The next cell of the way, or a step towards the goal."""
        return towards(cell, self._goal or self._way[self._time])

    def learn(self, cell: Cell, reward: float) -> None:
        """Remember where it was paid."""
        self._time += 1
        if reward == ON_GOAL:
            self._goal = cell


class PosteriorSampling:
    """Before each episode draws one of the goals that are left, walks there and waits; stays once it was paid.

    On the way, where both axes are open, a fair coin says along which to step (Thompson 1933; Strens 2000 for MDPs).
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._left = list(GOALS)
        self._target: Cell = GOALS[0]

    def begin(self) -> None:
        """Draw a goal."""
        self._target = self._left[self._rng.integers(len(self._left))]

    def act(self, cell: Cell) -> int:
        """A step towards it."""
        return towards(cell, self._target, first_axis=int(self._rng.integers(2)))

    def learn(self, cell: Cell, reward: float) -> None:
        """One goal less, or the only one."""
        if reward == ON_GOAL:
            self._left, self._target = [cell], cell
        elif cell in self._left:
            self._left.remove(cell)


def towards(cell: Cell, target: Cell, first_axis: int = 0) -> int:
    """The action that brings ``cell`` nearer to ``target``, along ``first_axis`` (0: x) while that is open."""
    move = [0, 0]
    for axis in (first_axis, 1 - first_axis):
        if cell[axis] != target[axis]:
            move[axis] = 1 if target[axis] > cell[axis] else -1
            break
    return MOVES.index((move[0], move[1]))


def play(make: Callable[[], gymnasium.Env[Any, Any]], player: Player, episodes: int) -> Array:
    """One trial in the environment.

    Args:
        make: gives the task's environment.
        player: fresh.
        episodes: in the trial.

    Returns:
        [episodes]: their undiscounted returns.
    """
    environment = make()
    returns = np.zeros(episodes)
    for episode in range(episodes):
        seen, _ = environment.reset()
        player.begin()
        ended = False
        while not ended:
            seen, reward, terminated, truncated, _ = environment.step(player.act((int(seen[0]), int(seen[1]))))
            player.learn((int(seen[0]), int(seen[1])), float(reward))
            returns[episode] += float(reward)
            ended = terminated or truncated
    return returns
