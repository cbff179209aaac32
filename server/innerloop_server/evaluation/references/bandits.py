"""The references of ``bernoulli-bandit``, all over whole trials."""

from __future__ import annotations

from innerloop_server.domain import Reference, ReturnUnit
from innerloop_server.errors import InvalidField
from innerloop_server.evaluation.references.bandit_optimum import bayes_optimum
from innerloop_server.evaluation.references.bandit_strategies import (
    Gittins,
    SmoothedUcb,
    Strategy,
    greedy,
    simulate,
    thompson,
    ucb1,
)
from innerloop_server.evaluation.references.measured import Measured
from innerloop_server.tasks.families.bernoulli_bandit import BernoulliBandit
from innerloop_server.tasks.family import Family

LISTED_PULLS = 10
"""Trials up to this long have their optimum computed whenever they are listed (30 ms, once a process) ..."""
SOLVED_PULLS = 15
"""... and up to this long by ``scripts/references`` (a second)."""
OPTIMUM = "bayes-optimum"
_OPTIMUM_SOURCE = "exact: dynamic programming over what is known of the arms, prior Beta(1, 1)"


def bandit_references(family: Family) -> tuple[Reference, ...]:
    """What is known of a bandit without simulating anything; nothing of any other family."""
    if not isinstance(family, BernoulliBandit):
        return ()
    arms, pulls = family.arms, family.pulls
    known = {
        "oracle": (pulls * arms / (arms + 1), "closed form: the mean of the best arm, pulled all the time"),
        "memoryless": (
            pulls / 2,
            "closed form: arms are exchangeable, so who remembers nothing does no better than random",
        ),
        "random": (pulls / 2, "closed form: the mean of any arm"),
    }
    if pulls <= LISTED_PULLS:
        known = {OPTIMUM: (bayes_optimum(arms, pulls), _OPTIMUM_SOURCE), **known}
    return tuple(Reference(name, value, source, ReturnUnit.TRIAL) for name, (value, source) in known.items())


def measure_bandit(family: Family, samples: int | None, seed: int) -> dict[str, Measured]:
    """What the textbook strategies earn, and the optimum where it is not listed but can be solved.

    Args:
        family: a bandit.
        samples: trials; ``None``: 200,000 of up to 10 pulls, 20,000 of up to 100, 4,000 of more.
        seed: of everything drawn.

    Raises:
        InvalidField: not a bandit.
    """
    if not isinstance(family, BernoulliBandit):
        raise InvalidField("family", f"{family.name} is no bernoulli-bandit")
    arms, pulls = family.arms, family.pulls
    trials = samples or (200_000 if pulls <= 10 else 20_000 if pulls <= 100 else 4_000)
    measured: dict[str, Measured] = {}
    if LISTED_PULLS < pulls <= SOLVED_PULLS:
        measured[OPTIMUM] = Measured(bayes_optimum(arms, pulls), 0.0, 0, _OPTIMUM_SOURCE, ReturnUnit.TRIAL)
    for name, (what, strategy) in _strategies(pulls).items():
        mean, error = simulate(strategy, arms, pulls, trials, seed)
        source = f"{what}; {trials:,} simulated trials, standard error {error:.2g}"
        measured[name] = Measured(mean, error, trials, source, ReturnUnit.TRIAL)
    return measured


def _strategies(pulls: int) -> dict[str, tuple[str, Strategy]]:
    """Name -> (what it is, the strategy)."""
    gittins = Gittins(pulls)
    return {
        "gittins": (f"index of discount {gittins.discount:.4g}, by calibration", gittins),
        "smoothed-ucb": ("(s + 1) / (m + 2) + sqrt(0.04 ln t / (m + 1))", SmoothedUcb(0.02)),
        "posterior-mean-greedy": ("(s + 1) / (m + 2), ties at random", greedy),
        "thompson": ("prior Beta(1, 1)", thompson),
        "ucb1": ("as in the textbooks: each arm once, then mean + sqrt(2 ln t / m)", ucb1),
    }
