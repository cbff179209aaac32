"""What is possible in ``minigrid-goal``, exactly, for who sees the whole room: an average over all rooms and starts.

The policy sees only what lies ahead, so it may need a turn or two more: these are bounds. Pure numpy, without MiniGrid.
Rooms are R placements of the goals; m cells along a side within the walls; a state is (x, y, direction).
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np

from innerloop.arrays import Array
from innerloop_server.domain import Reference, ReturnUnit
from innerloop_server.tasks.families.minigrid_goal import MiniGridGoal
from innerloop_server.tasks.families.minigrid_goal_rules import DIRECTIONS, horizon_of, reward_at, touching
from innerloop_server.tasks.family import Family

FORWARD = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""What going forward adds to (x, y), by direction: right, down, left, up, as in MiniGrid."""


Placement = tuple[tuple[int, int], ...]
"""Cells of the goals, counted from 0 within the walls."""
NEVER = 100
"""Steps to a goal that no way leads to; longer than any way."""


@dataclass(frozen=True)
class Rooms:
    """R rooms with their goals sorted into those that are looked for and those that are to be kept out of."""

    wanted: Array
    """[R, m, m] bool."""
    closed: Array
    """[R, m, m] bool."""
    weight: Array
    """[R]: how many rooms look like this one, turned or mirrored."""

    def mean(self, values: Array) -> float:
        """The mean over all rooms, and all states in them where the agent may start, of [R, m, m, 4] values."""
        free = ~(self.wanted | self.closed)
        in_room = np.where(free, values.mean(-1), 0.0).sum((1, 2)) / free.sum((1, 2))
        return float(np.average(in_room, weights=self.weight))


def placements(size: int, goals: int) -> list[Placement]:
    """Every set of ``goals`` cells within the walls of which no two touch."""
    cells = [(x, y) for x in range(size - 2) for y in range(size - 2)]
    found: list[Placement] = [()]
    for _ in range(goals):
        found = [
            (*chosen, cell)
            for chosen in found
            for cell in cells
            if (not chosen or cell > chosen[-1]) and not any(touching(cell, other) for other in chosen)
        ]
    return found


def alike(placement: Placement, side: int) -> Placement:
    """The first, in order, of a placement's eight turned and mirrored forms."""
    forms = []
    for mirrored in (False, True):
        cells = [(y, x) for x, y in placement] if mirrored else list(placement)
        for _ in range(4):
            cells = [(side - 1 - y, x) for x, y in cells]
            forms.append(tuple(sorted(cells)))
    return min(forms)


@functools.cache
def _distinct(size: int, goals: int) -> Counter[Placement]:
    """One placement of each kind -> how many are alike."""
    return Counter(alike(placement, size - 2) for placement in placements(size, goals))


@functools.cache
def rooms(size: int, goals: int, wanted: int) -> Rooms:
    """Every placement, up to turns and mirrors, with every choice of ``wanted`` of its goals."""
    choices = [
        (chosen, placement, weight)
        for placement, weight in _distinct(size, goals).items()
        for chosen in itertools.combinations(placement, wanted)
    ]
    shape = (len(choices), size - 2, size - 2)
    targets, others = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for r, (chosen, placement, _) in enumerate(choices):
        for cell in placement:
            (targets if cell in chosen else others)[(r, *cell)] = True
    return Rooms(targets, others, np.array([weight for _, _, weight in choices]))


def ahead(values: Array, direction: int, beyond: float) -> Array:
    """[R, m, m, ...] -> for each cell the value of the cell ahead of it; ``beyond`` where that is a wall."""
    (dx, dy), m = FORWARD[direction], values.shape[1]
    padded = np.full((len(values), m + 2, m + 2, *values.shape[3:]), beyond, values.dtype)
    padded[:, 1:-1, 1:-1] = values
    return padded[:, 1 + dx : 1 + dx + m, 1 + dy : 1 + dy + m]


def distances(world: Rooms) -> Array:
    """[R, m, m, 4] int8: fewest steps to enter a wanted goal without entering a closed one; ``NEVER`` where no way
    leads. By breadth-first search from the goals, all rooms at once.
    """
    closed = world.closed[..., None]
    wanted = world.wanted[..., None]
    steps = np.full((*world.wanted.shape, DIRECTIONS), NEVER, np.int8)
    while True:
        # Entered, a wanted goal costs nothing more. Nobody walks over a goal: entering it ends the episode.
        cost = np.where(wanted, np.int8(0), np.where(closed, np.int8(NEVER), steps))
        turn = np.minimum(np.roll(steps, 1, -1), np.roll(steps, -1, -1))
        go = np.stack([ahead(cost[..., d], d, NEVER) for d in range(DIRECTIONS)], -1)
        better = np.minimum(steps, 1 + np.minimum(turn, go))
        if np.array_equal(better, steps):
            return steps
        steps = better


@functools.cache
def shortest_way_return(size: int, goals: int, wanted: int) -> float:
    """Expected reward for entering the nearest of ``wanted`` of the goals as soon as possible, if all of those paid."""
    world, horizon = rooms(size, goals, wanted), horizon_of(size)
    paid = np.array([reward_at(step, horizon) if step <= horizon else 0.0 for step in range(NEVER + 1)])
    return world.mean(paid[distances(world)])


def oracle_return(size: int, goals: int) -> float:
    """Expected return of an episode for who knows which goal pays: the shortest way around the others."""
    return shortest_way_return(size, goals, 1)


def memoryless_return(size: int, goals: int) -> float:
    """Expected return of an episode for the best policy that does not know which goal pays, and never learns it.

    Nothing is learned before an episode ends, and any goal pays one time in ``goals``: best is the nearest.
    """
    return shortest_way_return(size, goals, goals) / goals


def bayes_optimal_returns(size: int, goals: int, episodes: int) -> list[float]:
    """Expected return of each episode of a trial for the best policy with a memory.

    While the paying goal is not known, entering any goal that was not tried yet tells equally much, so the nearest of
    those is best. In episode e < ``goals``, it is known with probability (e - 1) / goals; else j = goals - e + 1 are
    left, one of which pays.
    """
    oracle = oracle_return(size, goals)
    searching = [
        ((goals - left) * oracle + shortest_way_return(size, goals, left)) / goals for left in range(goals, 0, -1)
    ]
    return [*searching, *[oracle] * episodes][:episodes]


@functools.cache
def random_return(size: int, goals: int) -> float:
    """Expected return of an episode of uniformly random actions, by recursion from the last step."""
    world, horizon = rooms(size, goals, goals), horizon_of(size)
    values = np.zeros((*world.wanted.shape, DIRECTIONS))
    for step in range(horizon, 0, -1):
        reward = reward_at(step, horizon) / goals
        entered = np.where(world.wanted[..., None], reward, values)
        go = []
        for d in range(DIRECTIONS):
            there = ahead(entered[..., d], d, np.nan)
            go.append(np.where(np.isnan(there), values[..., d], there))  # walking against a wall: no move
        values = (np.roll(values, 1, -1) + np.roll(values, -1, -1) + np.stack(go, -1)) / 3
    return world.mean(values)


def minigrid_goal_references(family: Family) -> tuple[Reference, ...]:
    """All that is known; nothing of any other family. The Bayes optimum is of a trial, the others of an episode."""
    if not isinstance(family, MiniGridGoal):
        return ()
    size, goals = family.size, family.goals
    seen = "over all rooms and starts, for who sees the whole room: a bound"
    trial = sum(bayes_optimal_returns(size, goals, family.episodes_per_trial))
    return (
        Reference("bayes-optimum", trial, f"exact {seen}; the nearest goal not yet tried", ReturnUnit.TRIAL),
        Reference("oracle", oracle_return(size, goals), f"exact {seen}; the shortest way to the goal that pays"),
        Reference(
            "memoryless",
            memoryless_return(size, goals),
            f"exact {seen}; the nearest goal, which pays one time in {goals}",
        ),
        Reference("random", random_return(size, goals), "exact over all rooms and starts"),
    )
