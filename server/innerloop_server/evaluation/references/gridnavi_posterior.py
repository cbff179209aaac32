"""Posterior sampling in ``gridnavi``, exactly: expected returns over all goals, samples and ways. Pure numpy.

A state is the set of goals that are left, one bit each. The true goal is uniform on it, and so is the sampled one; an
episode walks there along a shortest way, rules out what it walks over, and stays if that is the goal. There are 246
pairs of a sample and a way, and after three episodes 32,982 sets: small enough to follow them all.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from innerloop.arrays import Array
from innerloop_server.tasks.families.gridnavi import ELSEWHERE, GOALS, HORIZON, ON_GOAL

_BITS = np.arange(len(GOALS))
_NUMBER = {goal: number for number, goal in enumerate(GOALS)}


@dataclass(frozen=True)
class _Way:
    """One shortest way to a sampled goal."""

    sampled: int
    """Number of the goal."""
    over: int
    """Bits of the goals it leads over, the sampled one too."""
    chance: float
    """Of this way, given the sample: a fair coin wherever both axes are open."""


@functools.cache
def _ways() -> tuple[_Way, ...]:
    ways: list[_Way] = []

    def walk(target: tuple[int, int], x: int, y: int, over: int, chance: float) -> None:
        if (x, y) in _NUMBER:
            over |= 1 << _NUMBER[x, y]
        if (x, y) == target:
            ways.append(_Way(_NUMBER[target], over, chance))
            return
        both = x < target[0] and y < target[1]
        if x < target[0]:
            walk(target, x + 1, y, over, chance / 2 if both else chance)
        if y < target[1]:
            walk(target, x, y + 1, over, chance / 2 if both else chance)

    for goal in GOALS:
        walk(goal, 0, 0, 0, 1.0)
    return tuple(ways)


@functools.cache
def posterior_sampling_returns(episodes: int) -> tuple[float, ...]:
    """Expected return of each episode: 0.495, 2.260, 3.813, 5.175 for four.

    The number of sets grows quickly at first: four episodes take a fifth of a second.

    Args:
        episodes: in a trial, at least 1.
    """
    ways = _ways()
    passes = np.zeros((len(GOALS), len(GOALS)))
    """[sampled, goal]: how likely the way to one leads over the other."""
    for way in ways:
        passes[way.sampled] += way.chance * _members(np.array([way.over]))[0]
    distance = np.array([x + y for x, y in GOALS])
    on_goal = HORIZON + 1 - distance  # steps on it, whether it is walked to or found on the way: all ways are shortest
    value = ON_GOAL * on_goal + ELSEWHERE * (HORIZON - on_goal)
    nothing = ELSEWHERE * HORIZON

    left, chance = np.array([(1 << len(GOALS)) - 1]), np.ones(1)
    found = np.zeros(len(GOALS))
    returns = []
    for episode in range(episodes):
        members = _members(left)
        # The chance that this set is left, the goal is g, and the sampled way leads over g.
        finds = (members @ passes) * members * (chance / members.sum(1) ** 2)[:, None]
        newly = finds.sum(0)
        returns.append(float((found + newly) @ value + (chance.sum() - newly.sum()) * nothing))
        found += newly
        if episode < episodes - 1:
            left, chance = _after(left, chance)
    return tuple(returns)


def _after(left: Array, chance: Array) -> tuple[Array, Array]:
    """The sets that are left after one more episode without finding the goal, each once, and how likely they are."""
    size = _members(left).sum(1)
    sets, chances = [], []
    for way in _ways():
        sampled = (left >> way.sampled) & 1 == 1
        after = left[sampled] & ~way.over
        missed = _members(after).sum(1) / size[sampled]
        sets.append(after)
        chances.append(chance[sampled] * way.chance / size[sampled] * missed)
    together, weights = np.concatenate(sets), np.concatenate(chances)
    unique, index = np.unique(together[together > 0], return_inverse=True)
    return unique, np.bincount(index, weights[together > 0])


def _members(sets: Array) -> Array:
    """[n] bit sets as [n, goals] of 0.0 and 1.0."""
    return ((sets[:, None] >> _BITS) & 1).astype(np.float64)
