"""``bernoulli-bandit``: arms that pay 1 or nothing, each with its own chance (RL2, Duan et al. 2016, section 3.1)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium
import numpy as np

from innerloop.arrays import Array, Arrays, Box, Discrete
from innerloop_server.domain import Task
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.options import check_range, configured_name

if TYPE_CHECKING:
    import torch

MOST_ARMS = 1_000
MOST_PULLS = 10_000


class BernoulliBanditEnv(gymnasium.Env[Array, np.int64]):
    """One pull: arm ``a`` pays 1 with probability ``probabilities[a]``, and the episode is over.

    There is nothing to see: the observation is always zero. A policy learns from its last action and the reward.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium declares it so

    def __init__(self, probabilities: Array) -> None:
        """A task with these arms.

        Args:
            probabilities: [arms] float64 in [0, 1].
        """
        self.probabilities = np.asarray(probabilities, np.float64)
        self.observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(self.probabilities))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Be ready for a pull. Draws nothing."""
        super().reset(seed=seed, options=options)
        return np.zeros(1, np.float32), {}

    def step(self, action: np.int64) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Pull the arm ``action``. Draws one uniform number."""
        paid = self.np_random.random(1)[0] < self.probabilities[action]
        return np.zeros(1, np.float32), float(paid), True, False, {}


class BernoulliBandit(Family):
    """RL2's bandit. Hidden: the probability of each arm. A trial is the whole series of pulls."""

    options: ClassVar[Mapping[str, int | str]] = {"arms": 5, "pulls": 10}
    title = "Find the arm that pays most"
    horizon = 1

    def __init__(self, arms: int = 5, pulls: int = 10) -> None:
        """A bandit of this size.

        Args:
            arms: how many there are to choose from.
            pulls: in a trial.

        Raises:
            InvalidField: fewer than 2 arms or than 1 pull, or very many.
        """
        check_range("arms", arms, 2, MOST_ARMS)
        check_range("pulls", pulls, 1, MOST_PULLS)
        self.arms = arms
        self.pulls = pulls
        self.episodes_per_trial = pulls
        self.name = configured_name("bernoulli-bandit", self.options, {"arms": arms, "pulls": pulls})
        self.description = (
            f"{arms} arms; arm i pays 1 with probability p_i, else 0. Hidden: the probabilities, each uniform on "
            f"[0, 1]. An episode is 1 pull, which terminates it; a trial is {pulls} pulls of the same arms, scored by "
            "their sum. The observation is always zero: a policy that gets better remembers its actions and their "
            "rewards. As in RL2 (Duan et al. 2016, section 3.1), where a whole trial is called an episode."
        )

    @functools.cached_property
    def parameter_space(self) -> gymnasium.spaces.Dict:
        """``probabilities``: [arms]."""
        return gymnasium.spaces.Dict({"probabilities": gymnasium.spaces.Box(0.0, 1.0, (self.arms,), np.float64)})

    @functools.cached_property
    def observation_space(self) -> Box:
        """Always zero."""
        return Box.of(0, 1, (1,))

    @functools.cached_property
    def action_space(self) -> Discrete:
        """The arm to pull."""
        return Discrete(self.arms)

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """See :class:`BernoulliBanditEnv`. It ends by itself: a time limit of 1 would say it was also cut short."""
        return BernoulliBanditEnv(task.parameters["probabilities"])

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        """See :class:`~innerloop_server.tasks.families.bernoulli_bandit_batch.BernoulliBanditBatch`."""
        from innerloop_server.tasks.families.bernoulli_bandit_batch import BernoulliBanditBatch

        return BernoulliBanditBatch(parameters["probabilities"], device)
