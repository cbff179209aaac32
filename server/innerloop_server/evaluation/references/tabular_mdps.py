"""What is possible in ``tabular-mdp``: the oracle, two textbook learners, and what nobody without memory can beat.

All are scored on the same MDPs with the same random numbers, so that their differences are paired: MDPs differ more
from each other than strategies do. Pure numpy. M MDPs, S states, A actions, N episodes, H steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from innerloop.arrays import Array
from innerloop_server.domain import Reference, ReturnUnit
from innerloop_server.errors import InvalidField
from innerloop_server.evaluation.references.measured import Measured
from innerloop_server.evaluation.references.planning import plan
from innerloop_server.tasks.families.tabular_mdp import (
    HORIZON,
    REWARD_MEAN,
    START,
    TabularMDP,
    cumulative,
    next_state,
    standard_normal,
)
from innerloop_server.tasks.family import Family

CUSTOMARY_SAMPLES = 4_000
_normals = np.frompyfunc(standard_normal, 1, 1)


@dataclass(frozen=True)
class MDPs:
    """A sample of M tasks."""

    transitions: Array
    """[M, S, A, S]."""
    rewards: Array
    """[M, S, A] mean rewards."""


@dataclass(frozen=True)
class Belief:
    """What was seen of each MDP. Posteriors are Dirichlet for transitions and Normal for mean rewards."""

    moves: Array
    """[M, S, A, S]: how often each transition was seen."""
    paid: Array
    """[M, S, A]: the sum of the rewards seen."""

    @property
    def concentration(self) -> Array:
        """[M, S, A, S] of the Dirichlet posterior; the prior is 1 everywhere."""
        return self.moves + 1

    @property
    def precision(self) -> Array:
        """[M, S, A] of the Normal posterior of the mean reward; the prior's and the noise's are 1."""
        precision: Array = 1 + self.moves.sum(-1)
        return precision

    @property
    def mean(self) -> Array:
        """[M, S, A] of the Normal posterior of the mean reward."""
        mean: Array = (REWARD_MEAN + self.paid) / self.precision
        return mean


Strategy = Callable[[Belief, np.random.Generator], tuple[Array, Array]]
"""Before each episode: (belief, its own random numbers) -> the (transitions, rewards) to plan the episode in."""


def posterior_sample(belief: Belief, rng: np.random.Generator) -> tuple[Array, Array]:
    """PSRL (Strens 2000; Osband et al. 2013): act best in an MDP drawn from the posterior."""
    weights = rng.standard_gamma(belief.concentration)
    noise = rng.standard_normal(belief.paid.shape)
    return weights / weights.sum(-1, keepdims=True), belief.mean + noise / np.sqrt(belief.precision)


def posterior_mean(belief: Belief, rng: np.random.Generator) -> tuple[Array, Array]:  # noqa: ARG001
    """Certainty equivalence: act best in the mean of the posterior. Explores only by having had an optimistic prior."""
    concentration = belief.concentration
    return concentration / concentration.sum(-1, keepdims=True), belief.mean


STRATEGIES: Mapping[str, tuple[str, Strategy]] = {
    "posterior-mean": ("plans each episode in the mean of the posterior", posterior_mean),
    "psrl": ("plans each episode in a sample of the posterior", posterior_sample),
}
"""Name -> (what it is, the strategy)."""


def sample(family: TabularMDP, mdps: int, rng: np.random.Generator) -> MDPs:
    """``mdps`` tasks of the family's own distribution."""
    drawn = [family.sample(rng) for _ in range(mdps)]
    return MDPs(np.stack([d["transitions"] for d in drawn]), np.stack([d["rewards"] for d in drawn]))


def oracle(mdps: MDPs) -> Array:
    """[M]: the expected return of one episode for who knows the MDP."""
    return plan(mdps.transitions, mdps.rewards, HORIZON)[1][:, START]


def simulate(strategy: Strategy, mdps: MDPs, uniforms: Array, rng: np.random.Generator) -> Array:
    """Whole trials, learning from everything that is seen, planning before each episode.

    Args:
        strategy: what to plan in.
        mdps: M of them.
        uniforms: [M, N, H, 2] in [0, 1), for the environments: as ``TabularMDPEnv`` draws them.
        rng: the strategy's.

    Returns:
        [M, N]: return of each episode.
    """
    m, episodes, steps, _ = uniforms.shape
    distributions = cumulative(mdps.transitions)
    noise = np.asarray(_normals(uniforms[..., 1]), np.float64)
    belief = Belief(np.zeros(mdps.transitions.shape), np.zeros(mdps.rewards.shape))
    returns = np.zeros((m, episodes))
    rows = np.arange(m)
    for episode in range(episodes):
        actions, _ = plan(*strategy(belief, rng), steps)
        moves, paid = belief.moves.copy(), belief.paid.copy()
        state = np.full(m, START)
        for t in range(steps):
            action = actions[rows, t, state]
            reward = mdps.rewards[rows, state, action] + noise[:, episode, t]
            after = next_state(distributions[rows, state, action], uniforms[:, episode, t, 0])
            moves[rows, state, action, after] += 1
            paid[rows, state, action] += reward
            returns[:, episode] += reward
            state = after
        belief = Belief(moves, paid)
    return returns


def memoryless_return(episodes: int) -> float:
    """Expected return of a trial for a policy that keeps nothing of what it saw, whatever it does: the uniform one too.

    Its actions depend on state and time alone. Then which states it is in depends on the transitions alone, rewards are
    independent of those, and each step pays the prior mean.
    """
    return REWARD_MEAN * HORIZON * episodes


def tabular_mdp_references(family: Family) -> tuple[Reference, ...]:
    """What is known of random MDPs without simulating anything; nothing of any other family."""
    if not isinstance(family, TabularMDP):
        return ()
    value = memoryless_return(family.episodes_per_trial)
    source = "closed form: without memory every step pays the prior mean of 1, whatever is done"
    return tuple(Reference(name, value, source, ReturnUnit.TRIAL) for name in ("memoryless", "random"))


def measure_tabular_mdp(family: Family, samples: int | None, seed: int) -> dict[str, Measured]:
    """The oracle and the textbook learners, on the same MDPs.

    Args:
        family: of random MDPs.
        samples: how many MDPs; ``None``: 4,000.
        seed: of everything drawn.

    Raises:
        InvalidField: another family.
    """
    if not isinstance(family, TabularMDP):
        raise InvalidField("family", f"{family.name} is no tabular-mdp")
    m, n = samples or CUSTOMARY_SAMPLES, family.episodes_per_trial
    tasks_rng, world_rng, *own = np.random.default_rng(seed).spawn(2 + len(STRATEGIES))
    mdps = sample(family, m, tasks_rng)
    uniforms = world_rng.random((m, n, HORIZON, 2))
    measured = {"oracle": _measured(n * oracle(mdps), "value iteration in the known MDP, exact for each of")}
    for (name, (what, strategy)), rng in zip(STRATEGIES.items(), own, strict=True):
        measured[name] = _measured(simulate(strategy, mdps, uniforms, rng).sum(1), f"{what}; one trial in each of")
    return measured


def _measured(trials: Array, what: str) -> Measured:
    """The mean over [M] trials."""
    m = len(trials)
    error = float(trials.std(ddof=1) / np.sqrt(m))
    source = f"{what} {m:,} MDPs, the same for all, standard error {error:.2g}"
    return Measured(float(trials.mean()), error, m, source, ReturnUnit.TRIAL)
