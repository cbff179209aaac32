"""The rules of ``minigrid-goal``, for its family, its environment and its references."""

from __future__ import annotations

COLORS = ("red", "green", "blue", "yellow")
"""Of the goals, in the order of their numbers; MiniGrid's words."""
STEPS_PER_SIZE = 5
"""An episode is truncated after this times the size of the room."""
SLOWNESS_COST = 0.9
"""What of the reward is lost by the last step, as in every MiniGrid environment."""
VIEW = 7
"""Cells along a side of what the agent sees, MiniGrid's default: its own in the middle of the lowest row."""
ACTIONS = 3
"""MiniGrid's first three: turn left, turn right, go forward."""
DIRECTIONS = 4


def horizon_of(size: int) -> int:
    """Steps in an episode."""
    return STEPS_PER_SIZE * size


def reward_at(step: int, horizon: int) -> float:
    """For ending the ``step``-th step (from 1) on the goal that pays: MiniGrid's ``1 - 0.9 step / horizon``."""
    return 1 - SLOWNESS_COST * step / horizon


def touching(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two cells share a side or a corner, or are one. Goals never do, so that none bars the way to another."""
    return max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= 1
