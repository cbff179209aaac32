"""Exact references of the families in which a point walks to a hidden goal.

All are expectations over tasks and starts of undiscounted returns of an episode. In the open plane the best way to a
known goal shortens each axis by the farthest move until it is closed: no other way is nearer after any number of steps.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np

from innerloop.arrays import Array
from innerloop_server.domain import Reference
from innerloop_server.tasks.families import point_maze_walls, point_robot
from innerloop_server.tasks.family import Family

SQUARE_DISTANCE = (2 + math.sqrt(2) + 5 * math.asinh(1)) / 15
"""Mean distance between two uniform points of the unit square (0.5214)."""


def point_robot_dense(family: Family) -> tuple[Reference, ...]:  # noqa: ARG001 - it has no options
    """Of PEARL's dense point robot."""
    return (
        Reference("no-move", dense_no_move(), "closed form: mean distance between two points of a square"),
        Reference(
            "memoryless",
            dense_memoryless(),
            "quadrature: along each axis to the centre, which is the nearest to a goal that nobody knows",
        ),
        Reference("oracle", dense_oracle(), "closed form: along each axis straight to the known goal"),
    )


def point_robot_sparse(family: Family) -> tuple[Reference, ...]:  # noqa: ARG001 - it has no options
    """Of PEARL's sparse point robot."""
    return (
        Reference("no-move", 0.0, "the start is farther from every goal than the reward reaches"),
        Reference("oracle", sparse_oracle(), "quadrature over the angle: along each axis straight to the known goal"),
    )


def point_maze(family: Family) -> tuple[Reference, ...]:
    """Of the point maze."""
    return (
        Reference("no-move", maze_no_move(), "closed form: the share of goals that lie within reach of the start"),
        Reference("oracle", 1.0, f"every goal is within {family.horizon} steps of the start"),
    )


def dense_no_move() -> float:
    """Expected return of a dense robot that never moves: -20.86."""
    return -point_robot.HORIZON * 2 * point_robot.EXTENT * SQUARE_DISTANCE


def dense_oracle() -> float:
    """Expected return of a dense robot that knows its goal: -5.19.

    With extents of one, start and goal differ along an axis by D, of density (2 - d) / 2 on [0, 2]. After k steps
    u = 2 - 0.1 k is left of that range: the axis is still open with probability u^2 / 4, and what remains of D then has
    density (u - r) / 2 on [0, u]. Both open, the distances are those of a square of side u, with weight u^4 / 16; one
    open, u^3 / 12 for each axis, times 1 - u^2 / 4.
    """
    total = 0.0
    for k in range(1, point_robot.HORIZON + 1):
        u = max(2 - k * point_robot.STEP / point_robot.EXTENT, 0.0)
        total += u**5 / 16 * SQUARE_DISTANCE + (1 - u * u / 4) * u**3 / 6
    return -total * point_robot.EXTENT


@functools.cache
def dense_memoryless() -> float:
    """Expected return of the best dense robot that sees its position alone: -15.88.

    The mean distance to a uniform goal is convex and even in each coordinate, so nearer to the centre along an axis is
    never worse. With extents of one, after k steps the coordinate of the robot is 0 with probability p = 0.1 k and
    else uniform on [-(1 - p), 1 - p]. What it differs by from the goal's, d >= 0, then has a density that is linear
    between the knots 0, p, 1 and 2 - p; Gauss and Legendre integrate the distance over every pair of pieces.
    """
    total = 0.0
    for k in range(1, point_robot.HORIZON + 1):
        p = min(k * point_robot.STEP / point_robot.EXTENT, 1.0)
        nodes, weights = _pieces((0.0, p, 1.0, 2 - p))
        # The share that stands at 0 differs by a uniform on [0, 1]; the rest by a trapezium: flat to p, then falling.
        standing = p * (nodes < 1)
        walking = np.where(nodes < p, 1 - p, (2 - p - nodes) / 2) if p < 1 else np.zeros_like(nodes)
        density = weights * (standing + walking)
        total += float(density @ np.hypot(nodes[:, None], nodes) @ density)
    return -total * point_robot.EXTENT


@functools.cache
def sparse_oracle(horizon: int = point_robot.HORIZON) -> float:
    """Expected return of a sparse robot that knows its goal: 13.38; 93.38 in 100 steps.

    Args:
        horizon: steps of an episode.
    """
    n = 100_000
    angle = (np.arange(n) + 0.5) / n * (math.pi / 2)  # the other quarter is its mirror image
    goal = point_robot.EXTENT * np.stack((np.cos(angle), np.sin(angle)))
    total = 0.0
    for k in range(1, horizon + 1):
        distance = np.hypot(*np.maximum(goal - k * point_robot.STEP, 0))
        total += float(np.where(distance <= point_robot.GOAL_RADIUS, 1 - distance, 0).mean())
    return total


def maze_no_move() -> float:
    """Expected return of a point that stays at the start of the maze, with no wall within ``GOAL_RADIUS``: 0.014."""
    area = 4 * point_maze_walls.HALF_WIDTH * point_maze_walls.HALF_HEIGHT
    wall = (point_maze_walls.HALF_WIDTH + point_maze_walls.WALL_TIP) * 2 * point_maze_walls.WALL_HALF
    return math.pi * point_maze_walls.GOAL_RADIUS**2 / (area - wall)


def _pieces(knots: tuple[float, ...], order: int = 40) -> tuple[Array, Array]:
    """Nodes and weights of the Gauss-Legendre rule of ``order`` on each interval between increasing ``knots``."""
    x, w = np.polynomial.legendre.leggauss(order)
    spans = [(a, b) for a, b in itertools.pairwise(knots) if b > a]
    nodes = np.concatenate([(a + b) / 2 + (b - a) / 2 * x for a, b in spans])
    return nodes, np.concatenate([(b - a) / 2 * w for a, b in spans])
