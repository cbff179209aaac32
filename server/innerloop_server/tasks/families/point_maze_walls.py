"""The corridor of ``point-maze``, for both of its faces.

::

     y  1.5 ┌───────────────────────────────┐
            │                               │
        0.5 ├───────────────────────┐       │
            │         wall          │       │
       -0.5 ├───────────────────────┘       │
            │   S                           │
       -1.5 └───────────────────────────────┘
          x -2                      1       2
"""

from __future__ import annotations

STEP = 0.1
"""Farthest move along one axis in one step. Less than a wall is thick: nothing is jumped over."""
HALF_WIDTH, HALF_HEIGHT = 2.0, 1.5
"""The arena is [-HALF_WIDTH, HALF_WIDTH] x [-HALF_HEIGHT, HALF_HEIGHT]."""
WALL_TIP, WALL_HALF = 1.0, 0.5
"""The wall fills [-HALF_WIDTH, WALL_TIP) x (-WALL_HALF, WALL_HALF); its faces can be touched."""
START = (-1.5, -1.0)
GOAL_RADIUS = 0.2


def moved(x: float, y: float, dx: float, dy: float) -> tuple[float, float]:
    """Where the free point (x, y) comes to rest after a move along x and then along y, each shorter than a wall."""
    x = min(max(x + dx, -HALF_WIDTH), HALF_WIDTH)
    if abs(y) < WALL_HALF:  # beside the wall's tip
        x = max(x, WALL_TIP)
    above = y >= WALL_HALF
    y = min(max(y + dy, -HALF_HEIGHT), HALF_HEIGHT)
    if x < WALL_TIP:  # over or under the wall
        y = max(y, WALL_HALF) if above else min(y, -WALL_HALF)
    return x, y
