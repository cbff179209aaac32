"""``tabular-mdp``: small random Markov decision processes (RL2, Duan et al. 2016, section 3.2; Osband et al. 2013)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

from innerloop.arrays import Array, Arrays, Discrete
from innerloop_server.domain import Split, Task
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.options import check_range, configured_name

if TYPE_CHECKING:
    import torch

HORIZON = 10
START = 0
"""Every episode begins in this state."""
REWARD_MEAN = 1.0
"""A state and action's mean reward is drawn from Normal(REWARD_MEAN, 1); what is paid is Normal around that mean."""
SUM_TOLERANCE = 1e-5
"""How far from 1 given probabilities may sum: as far as rounding to float32 takes them, and no farther."""
MOST_STATES = 50
MOST_ACTIONS = 50
MOST_EPISODES = 10_000
SMALLEST_UNIFORM = 2.0**-54
"""Stands for a uniform number of 0, whose normal would be minus infinity: half the step of the generator's grid."""


def cumulative(transitions: Array) -> Array:
    """Distribution functions over the next state, as :func:`next_state` takes them.

    Args:
        transitions: [..., S] probabilities.

    Returns:
        [..., S] float64; the last is exactly 1, so that every uniform number below 1 finds a state of positive
        probability whatever the rounding.
    """
    sums: Array = np.cumsum(np.asarray(transitions, np.float64), -1)
    return sums / sums[..., -1:]


def next_state(distribution: Array, uniform: Array | float) -> Array:
    """The first state whose distribution function exceeds a uniform number.

    Args:
        distribution: [..., S] from :func:`cumulative`.
        uniform: [...] in [0, 1).

    Returns:
        [...] int64.
    """
    return np.asarray((distribution <= np.asarray(uniform)[..., None]).sum(-1), np.int64)


def standard_normal(uniform: float) -> float:
    """The quantile of the standard normal at a uniform number in [0, 1)."""
    return NormalDist().inv_cdf(max(uniform, SMALLEST_UNIFORM))


class TabularMDPEnv(gymnasium.Env[np.int64, np.int64]):
    """A finite MDP. Each step draws two uniform numbers: one for the next state, one for the noise of the reward."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium declares it so

    def __init__(self, transitions: Array, rewards: Array) -> None:
        """A task with these dynamics.

        Args:
            transitions: [S, A, S] probabilities of the next state.
            rewards: [S, A] mean rewards.
        """
        self.rewards = np.asarray(rewards, np.float64)
        states, actions = self.rewards.shape
        self.observation_space = gymnasium.spaces.Discrete(states)
        self.action_space = gymnasium.spaces.Discrete(actions)
        self.state = START
        self._cumulative = cumulative(transitions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Go to state 0."""
        super().reset(seed=seed, options=options)
        self.state = START
        return np.int64(self.state), {}

    def step(self, action: np.int64) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """Be paid for the state and action, then move."""
        where, noise = self.np_random.random(2)
        reward = float(self.rewards[self.state, action]) + standard_normal(float(noise))
        self.state = int(next_state(self._cumulative[self.state, action], where))
        return np.int64(self.state), reward, False, False, {}


class TabularMDP(Family):
    """RL2's random MDPs. Hidden: everything. A trial is several episodes of one MDP."""

    options: ClassVar[Mapping[str, int | str]] = {"states": 10, "actions": 5, "episodes": 10}
    title = "Plan in a random Markov decision process"
    horizon = HORIZON

    def __init__(self, states: int = 10, actions: int = 5, episodes: int = 10) -> None:
        """MDPs of this size.

        Args:
            states: of an MDP.
            actions: in each state.
            episodes: in a trial.

        Raises:
            InvalidField: fewer than 2 states, 2 actions or 1 episode, or very many.
        """
        check_range("states", states, 2, MOST_STATES)
        check_range("actions", actions, 2, MOST_ACTIONS)
        check_range("episodes", episodes, 1, MOST_EPISODES)
        self.states = states
        self.actions = actions
        self.episodes_per_trial = episodes
        chosen = {"states": states, "actions": actions, "episodes": episodes}
        self.name = configured_name("tabular-mdp", self.options, chosen)
        self.description = (
            f"{states} states, {actions} actions. Hidden: transitions, the probabilities of the next state, "
            "Dirichlet(1, ..., 1) for each state and action; rewards, the mean reward of each, Normal(1, 1). "
            "Reward: that mean plus Normal(0, 1). The policy sees the number of its state. Every episode starts in "
            f"state 0, never terminates and is truncated after {HORIZON} steps; a trial is {episodes} episodes of the "
            "same MDP, scored by the sum of all rewards. As in RL2 (Duan et al. 2016, section 3.2), after Osband et "
            "al. 2013."
        )

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """``transitions``: [S, A, S], each [S] sums to 1. ``rewards``: [S, A]."""
        box, shape = gymnasium.spaces.Box, (self.states, self.actions)
        return gymnasium.spaces.Dict(
            {
                "transitions": box(0.0, 1.0, (*shape, self.states), np.float64),
                "rewards": box(-np.inf, np.inf, shape, np.float64),
            }
        )

    @functools.cached_property
    def observation_space(self) -> Discrete:
        """The state."""
        return Discrete(self.states)

    @functools.cached_property
    def action_space(self) -> Discrete:
        """Numbers without a meaning of their own."""
        return Discrete(self.actions)

    def sample(self, rng: np.random.Generator, split: Split = Split.TRAIN) -> dict[str, Array]:  # noqa: ARG002
        """Dirichlet(1) transitions and Normal(1, 1) mean rewards, all independent."""
        shape = (self.states, self.actions)
        return {
            "transitions": rng.dirichlet(np.ones(self.states), shape),
            "rewards": rng.normal(REWARD_MEAN, 1.0, shape),
        }

    def check(self, parameters: Mapping[str, Array], field: str = "task.parameters") -> dict[str, Array]:
        """As every family, and the probabilities of a state and action sum to 1.

        Raises:
            InvalidField: as ``Family.check``; or they do not, and the error says where.
        """
        checked = super().check(parameters, field)
        sums = checked["transitions"].sum(-1)
        for state, action in np.argwhere(np.abs(sums - 1) > SUM_TOLERANCE):
            raise InvalidField(
                f"{field}.transitions",
                f"the probabilities of state {state}, action {action} sum to {sums[state, action]:.6g}, not to 1",
            )
        return checked

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """See :class:`TabularMDPEnv`."""
        return TimeLimit(TabularMDPEnv(task.parameters["transitions"], task.parameters["rewards"]), HORIZON)

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        """See :class:`~innerloop_server.tasks.families.tabular_mdp_batch.TabularMDPBatch`."""
        from innerloop_server.tasks.families.tabular_mdp_batch import TabularMDPBatch

        distributions = cumulative(parameters["transitions"])
        return TabularMDPBatch(
            distributions, parameters["rewards"], device, start=START, smallest_uniform=SMALLEST_UNIFORM
        )
