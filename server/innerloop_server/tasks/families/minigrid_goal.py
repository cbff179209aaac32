"""``minigrid-goal``: coloured goals in a MiniGrid room, and nobody says which of them pays."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium

from innerloop.arrays import Box, Discrete
from innerloop_server.domain import Task
from innerloop_server.tasks.families.minigrid_goal_rules import ACTIONS, COLORS, DIRECTIONS, VIEW, horizon_of
from innerloop_server.tasks.family import Extra, Family
from innerloop_server.tasks.options import check_range, configured_name

LIMITS: Mapping[str, tuple[int, int]] = {"size": (5, 8), "goals": (2, len(COLORS))}
EPISODES = 5
"""In a trial: enough to try every goal and to use what was found."""


class MiniGridGoal(Family):
    """A MiniGrid room with a goal of each colour. Hidden: which colour pays. Runs on actors only."""

    options: ClassVar[Mapping[str, int | str]] = {"size": 6, "goals": 3}
    title = "Walk to the one of several goals that pays (MiniGrid)"
    episodes_per_trial = EPISODES
    knows_success = True
    extra = Extra("games", ("minigrid",))
    environments_change_task = True
    splits_share_tasks = True

    def __init__(self, size: int = 6, goals: int = 3) -> None:
        """Rooms of this size.

        Args:
            size: of the room with its walls, in cells along a side.
            goals: how many there are, each of its own colour.

        Raises:
            InvalidField: one is out of its limits.
        """
        chosen = {"size": size, "goals": goals}
        for option, (least, most) in LIMITS.items():
            check_range(option, chosen[option], least, most)
        self.size = size
        self.goals = goals
        self.horizon = horizon_of(size)
        self.name = configured_name("minigrid-goal", self.options, chosen)
        colors = ", ".join(f"{number} {color}" for number, color in enumerate(COLORS[:goals]))
        self.description = (
            f"A MiniGrid room of {size} x {size} cells, walls included, with {goals} goals of different colours at "
            "random cells (none touching another), the agent at a random cell looking in a random direction, all drawn "
            "anew in each episode. Actions: turn left, turn right, go forward. Hidden: paying, the colour that pays "
            f"({colors}). The first goal that is entered terminates the episode, whichever it is. Reward: MiniGrid's 1 "
            f"- 0.9 steps / {self.horizon} for entering the one that pays, else 0, so that only the end of an episode "
            f"tells. Truncated after {self.horizon} steps; a trial is {EPISODES} episodes. The policy sees MiniGrid's "
            f"egocentric {VIEW} x {VIEW} view, one-hot by cell (wall, or a goal's colour), and its direction. Success: "
            "it entered the goal that pays. Our own, after MiniGrid's Fetch and GoToDoor (Chevalier-Boisvert et al. "
            "2023), which say what is wanted. There are so few tasks that the splits share them."
        )

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """``paying``: a number into ``COLORS``."""
        return gymnasium.spaces.Dict({"paying": gymnasium.spaces.Discrete(self.goals)})

    @functools.cached_property
    def observation_space(self) -> Box:
        """For each cell of the view 1 + goals numbers, the rows from far to near; then the direction, one-hot."""
        return Box.of(0, 1, (VIEW * VIEW * (1 + self.goals) + DIRECTIONS,))

    @functools.cached_property
    def action_space(self) -> Discrete:
        """Turn left, turn right, go forward."""
        return Discrete(ACTIONS)

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """See :class:`~innerloop_server.tasks.families.minigrid_goal_env.MiniGridGoalEnv`, which counts its steps.

        Raises:
            PreconditionFailed: MiniGrid is not installed; the message says how to get it.
        """
        assert self.extra is not None
        self.extra.require(self.name)
        from innerloop_server.tasks.families.minigrid_goal_env import MiniGridGoalEnv

        return MiniGridGoalEnv(self.size, self.goals, int(task.parameters["paying"]))
