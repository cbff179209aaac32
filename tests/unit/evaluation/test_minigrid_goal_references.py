from __future__ import annotations

import importlib.util
import itertools
from collections import deque
from typing import Any

import numpy as np
import pytest

from innerloop_server.domain import ReturnUnit
from innerloop_server.evaluation.references.catalog import references
from innerloop_server.evaluation.references.minigrid_goal import (
    FORWARD,
    NEVER,
    Rooms,
    alike,
    bayes_optimal_returns,
    distances,
    memoryless_return,
    minigrid_goal_references,
    oracle_return,
    placements,
    random_return,
    rooms,
    shortest_way_return,
)
from innerloop_server.tasks.families.gridnavi import GridNavi
from innerloop_server.tasks.families.minigrid_goal import MiniGridGoal
from innerloop_server.tasks.families.minigrid_goal_rules import reward_at
from innerloop_server.tasks.sampling import custom_task

Cell = tuple[int, int]
needs_minigrid = pytest.mark.skipif(
    importlib.util.find_spec("minigrid") is None, reason="MiniGrid is not installed: pip install 'innerloop[games]'"
)


def search(side: int, start: tuple[Cell, int], wanted: set[Cell], closed: set[Cell]) -> int:
    """Breadth first from one start, forwards: a second writing of what the module does backwards for all."""
    seen, queue = {start}, deque([(start, 0)])
    while queue:
        ((x, y), d), steps = queue.popleft()
        ahead = (x + FORWARD[d][0], y + FORWARD[d][1])
        if ahead in wanted:
            return steps + 1
        after = [((x, y), (d + 1) % 4), ((x, y), (d - 1) % 4)]
        if 0 <= ahead[0] < side and 0 <= ahead[1] < side and ahead not in closed:
            after.append((ahead, d))
        for state in after:
            if state not in seen:
                seen.add(state)
                queue.append((state, steps + 1))
    return NEVER


def test_distances_by_hand() -> None:
    """A room of 3 x 3 cells, the goal in a corner, another beside the way."""
    wanted, closed = np.zeros((1, 3, 3), bool), np.zeros((1, 3, 3), bool)
    wanted[0, 0, 0] = True
    closed[0, 2, 0] = True
    steps = distances(Rooms(wanted, closed, np.ones(1)))[0]
    right, left, up = 0, 2, 3
    assert steps[1, 0, left] == 1
    assert steps[1, 0, up] == 2
    assert steps[1, 0, right] == 3
    assert steps[0, 2, up] == 2
    assert steps[2, 2, left] == 5  # two forward, turn, two forward
    assert steps[2, 1, up] == 5  # not over the closed one: turn, two forward, turn, forward
    assert steps[2, 0, left] == 2  # from the closed cell itself nobody starts; its way is counted all the same


def test_distances_against_a_search_from_every_start() -> None:
    world = rooms(6, 3, 1)
    steps = distances(world)
    assert steps.max() <= NEVER
    for r in range(0, len(steps), 7):
        wanted = set(map(tuple, np.argwhere(world.wanted[r]).tolist()))
        closed = set(map(tuple, np.argwhere(world.closed[r]).tolist()))
        for x, y, d in np.ndindex(4, 4, 4):
            if (x, y) not in wanted | closed:
                assert steps[r, x, y, d] == search(4, ((x, y), d), wanted, closed) < NEVER


@pytest.mark.parametrize(("size", "goals"), [(5, 2), (5, 4), (6, 2), (6, 3)])
def test_rooms_are_every_placement_once(size: int, goals: int) -> None:
    side = size - 2
    cells = list(itertools.product(range(side), repeat=2))
    expected = {
        chosen
        for chosen in itertools.combinations(cells, goals)
        if all(max(abs(a[0] - b[0]), abs(a[1] - b[1])) > 1 for a, b in itertools.combinations(chosen, 2))
    }
    found = placements(size, goals)
    assert len(found) == len(set(found))
    assert set(found) == expected
    world = rooms(size, goals, 1)
    assert world.weight.sum() == goals * len(expected)
    assert np.all(world.wanted.sum((1, 2)) == 1)
    assert np.all(world.closed.sum((1, 2)) == goals - 1)


def test_turned_and_mirrored_rooms_are_alike() -> None:
    room = ((0, 1), (2, 0), (3, 3))
    forms = {
        tuple(sorted((y, x) for x, y in room)),
        tuple(sorted((3 - x, y) for x, y in room)),
        tuple(sorted((3 - y, 3 - x) for x, y in room)),
    }
    assert {alike(form, 4) for form in forms} == {alike(room, 4)}
    assert alike(((0, 1), (2, 0), (3, 2)), 4) != alike(room, 4)


def test_the_average_is_over_all_rooms_and_starts() -> None:
    """Counted one by one, without symmetry: 6 x 6, two goals."""
    paid = []
    for placement in placements(6, 2):
        free = [c for c in itertools.product(range(4), repeat=2) if c not in placement]
        for target, start, d in itertools.product(placement, free, range(4)):
            paid.append(reward_at(search(4, (start, d), {target}, set(placement) - {target}), 30))
    assert oracle_return(6, 2) == pytest.approx(np.mean(paid), abs=1e-12)


def test_the_bayes_optimum_tries_the_nearest_goals_first() -> None:
    """Against the best of all orders of search by what is known: value of a trial by recursion over goals left."""
    size, goals, episodes = 6, 3, 5
    best = {left: shortest_way_return(size, goals, left) for left in range(1, goals + 1)}

    def value(left: int, more: int) -> float:
        if more == 0:
            return 0.0
        if left == 1:
            return more * best[1]
        found = 1 / left
        return found * (best[left] + (more - 1) * best[1]) + (1 - found) * value(left - 1, more - 1)

    returns = bayes_optimal_returns(size, goals, episodes)
    assert sum(returns) == pytest.approx(value(goals, episodes), abs=1e-12)
    assert returns[0] == memoryless_return(size, goals)
    assert returns[2:] == pytest.approx([oracle_return(size, goals)] * 3)
    assert bayes_optimal_returns(size, goals, 1) == returns[:1]


class Told:
    """Plays by MiniGrid's own grid: the next action of a shortest way to the goals wanted."""

    def __init__(self, *colors: str) -> None:
        self.colors = colors

    def act(self, env: Any) -> int:
        side = env.width - 2
        goals = {
            (x - 1, y - 1): env.grid.get(x, y).color
            for x, y in np.ndindex(env.width, env.height)
            if env.grid.get(x, y) is not None and env.grid.get(x, y).type == "goal"
        }
        wanted = {cell for cell, color in goals.items() if color in self.colors}
        closed = set(goals) - wanted
        (x, y), d = (env.agent_pos[0] - 1, env.agent_pos[1] - 1), env.agent_dir
        ahead = (x + FORWARD[d][0], y + FORWARD[d][1])
        options = {0: ((x, y), (d - 1) % 4), 1: ((x, y), (d + 1) % 4)}
        if ahead in wanted:
            return 2
        if 0 <= ahead[0] < side and 0 <= ahead[1] < side and ahead not in closed:
            options[2] = (ahead, d)
        return min(options, key=lambda a: search(side, options[a], wanted, closed))


class Uniform:
    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def act(self, env: Any) -> int:
        return int(self._rng.integers(3))


@needs_minigrid
@pytest.mark.parametrize(
    ("player", "value", "episodes"),
    [
        (Told("red"), oracle_return, 300),
        (Told("red", "green", "blue"), memoryless_return, 900),
        (Uniform(), random_return, 2_000),
    ],
    ids=["oracle", "memoryless", "random"],
)
def test_the_environment_pays_it(player: Any, value: Any, episodes: int) -> None:
    """Red pays. The mean over rooms as the environment draws them, within four standard errors."""
    family = MiniGridGoal()
    env: Any = family.make(custom_task(family, {"paying": np.array(0)})).unwrapped
    returns = []
    for episode in range(episodes):
        env.reset(seed=episode)
        ended = False
        while not ended:
            _, reward, terminated, truncated, _ = env.step(player.act(env))
            ended = terminated or truncated
        returns.append(reward)
    assert np.mean(returns) == pytest.approx(value(6, 3), abs=4 * np.std(returns) / np.sqrt(episodes))


def test_listed_say_their_unit() -> None:
    found = {reference.name: reference for reference in references(MiniGridGoal())}
    assert {name: reference.unit for name, reference in found.items()} == {
        "bayes-optimum": ReturnUnit.TRIAL,
        "oracle": ReturnUnit.EPISODE,
        "memoryless": ReturnUnit.EPISODE,
        "random": ReturnUnit.EPISODE,
    }
    values = [found[name].value for name in ("random", "memoryless", "oracle")]
    assert values == sorted(values)
    assert 5 * found["memoryless"].value < found["bayes-optimum"].value < 5 * found["oracle"].value
    assert minigrid_goal_references(GridNavi()) == ()
