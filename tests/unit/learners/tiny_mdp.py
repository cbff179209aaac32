"""A decision process small enough to be summed over: two states, two actions, three steps.

All its probabilities are quarters (the start's are halves), so a batch of 2 * 4^(2H - 1) episodes holds every
trajectory exactly as often as it is expected: what an estimator makes of that batch *is* its expectation. The reference
numbers come from dynamic programming over state occupancies and action values, which knows no trajectories, advantages
or ratios.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch

from innerloop_server.domain import Experience

F64 = torch.float64
START = torch.tensor([0.5, 0.5], dtype=F64)
NEXT = torch.tensor([[[0.75, 0.25], [0.25, 0.75]], [[0.5, 0.5], [0.25, 0.75]]], dtype=F64)
"""[s, a, s']."""
REWARD = torch.tensor([[-0.4, 0.3], [0.2, 1.0]], dtype=F64)
"""[s, a]."""


def policy(theta: torch.Tensor) -> torch.Tensor:
    """[s, a] probabilities of the linear policy: ``theta`` is its kernel [2, 2] and its bias [2], flattened."""
    return torch.softmax(theta[:4].reshape(2, 2) + theta[4:], -1)


def theta_of(*chances: float) -> torch.Tensor:
    """The parameters [6] that take action 1 with these chances in state 0 and in state 1; no bias."""
    half = torch.logit(torch.tensor(chances, dtype=F64)) / 2
    return torch.cat([torch.stack([-half, half], -1).reshape(-1), torch.zeros(2, dtype=F64)])


def expected_return(theta: torch.Tensor, horizon: int) -> torch.Tensor:
    """J, by summing over every trajectory."""
    pi = policy(theta)
    total = torch.zeros((), dtype=F64)
    for states, actions in _paths(horizon):
        chance, gained = START[states[0]], torch.zeros((), dtype=F64)
        for t, (s, a) in enumerate(zip(states, actions, strict=True)):
            chance = chance * pi[s, a]
            gained = gained + REWARD[s, a]
            if t + 1 < horizon:
                chance = chance * NEXT[s, a, states[t + 1]]
        total = total + chance * gained
    return total


@dataclass(frozen=True)
class Sampled:
    """What a policy meets: constants of everything that is computed on its episodes."""

    occupancy: torch.Tensor
    """[T, s] chance of being in s at step t."""
    values: torch.Tensor
    """[T, s, a] expected return from step t on."""
    old: torch.Tensor
    """[s, a] the policy itself."""

    def surrogate(self, theta: torch.Tensor, deviation: float) -> torch.Tensor:
        """Minus the mean over steps of ratio times advantage, in units of ``deviation``, up to a constant."""
        gained = torch.einsum("ts,sa,tsa->", self.occupancy, policy(theta), self.values)
        return -gained / (len(self.occupancy) * deviation)

    def kl(self, theta: torch.Tensor) -> torch.Tensor:
        """Mean over steps of KL(old || policy(theta))."""
        apart = (self.old * torch.log(self.old / policy(theta))).sum(-1)
        return (self.occupancy * apart).sum() / len(self.occupancy)


def sampled(theta: torch.Tensor, horizon: int) -> Sampled:
    pi = policy(theta)
    occupancy = [START]
    for _ in range(horizon - 1):
        occupancy.append(torch.einsum("s,sa,sab->b", occupancy[-1], pi, NEXT))
    values = [REWARD]
    for _ in range(horizon - 1):
        values.insert(0, REWARD + NEXT @ (pi * values[0]).sum(-1))
    return Sampled(torch.stack(occupancy), torch.stack(values), pi)


def every_episode(theta: torch.Tensor, horizon: int) -> Experience[torch.Tensor]:
    """[1, N, T] episodes of the policy, each trajectory as often as it is expected. Its chances must be quarters."""
    n = 2 * 4 ** (2 * horizon - 1)
    pi = policy(theta)
    states: list[torch.Tensor] = []
    actions: list[torch.Tensor] = []
    for path, taken in _paths(horizon):
        chance = START[path[0]]
        for t, (s, a) in enumerate(zip(path, taken, strict=True)):
            chance = chance * pi[s, a] * (NEXT[s, a, path[t + 1]] if t + 1 < horizon else 1.0)
        count = round(float(chance * n))
        assert abs(count - float(chance * n)) < 1e-6, "not a whole number of episodes"
        states += [torch.tensor(path)] * count
        actions += [torch.tensor(taken)] * count
    assert len(states) == n
    o, a = torch.stack(states)[None], torch.stack(actions)[None]
    return Experience(
        observations=o,
        actions=a,
        rewards=REWARD[o, a],
        log_probs=torch.log(pi)[o, a],
        lengths=torch.full((1, n), horizon),
        bootstrap=torch.zeros(1, n, dtype=torch.bool),
        final_observations=torch.zeros(1, n, dtype=torch.int64),
        time_offset=torch.zeros(1, n, dtype=torch.int64),
        feedback=torch.zeros(1, n, horizon, 0),
        success=torch.zeros(1, n, dtype=torch.bool),
    )


def _paths(horizon: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    one_kind = list(itertools.product((0, 1), repeat=horizon))
    return list(itertools.product(one_kind, one_kind))
