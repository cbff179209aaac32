"""Champion and challenger: whether a new revision takes the champion's place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from innerloop.arrays import Array
from innerloop_server.adaptation.engine import Engine
from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.adaptation.worth import Gain, gains
from innerloop_server.domain import LearnerSpec, Score, Split
from innerloop_server.evaluation.plan import Plan, draw_tasks, fixed_plan
from innerloop_server.evaluation.protocol import evaluate
from innerloop_server.evaluation.scores import bootstrap_interval
from innerloop_server.learners.registry import remembers, settings_of
from innerloop_server.store.codec import spec_to_json
from innerloop_server.streams import Purpose, stream
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import Registry

REMEMBERED = 8
"""Results that a validator keeps."""


@dataclass(frozen=True)
class Validation:
    """A revision's result on the family's fixed validation protocol."""

    returns: Array
    """[M] mean undiscounted return of each task's fresh episodes after all adaptation steps; where a method
    remembers, of its whole trial."""
    scores: tuple[Score, ...]
    """k = 0 .. K."""
    protocol: Mapping[str, Any]
    """Which tasks, episodes and seed, as JSON values."""
    gains: tuple[Gain, ...] = ()
    """What going on from k = 0 .. K - 1 brings: what sessions with budget ``auto`` go by."""

    def to_json(self) -> dict[str, Any]:
        """For a manifest."""
        return {
            "protocol": dict(self.protocol),
            "scores": [_plain(asdict(score)) for score in self.scores],
            "gains": [_plain(asdict(gain)) for gain in self.gains],
        }


Validate = Callable[[RevisionRef], Coroutine[Any, Any, Validation]]
"""Scores a revision; always on the same tasks and seeds for one family."""


@dataclass(frozen=True)
class Verdict:
    """What a comparison came to."""

    promote: bool
    reason: str
    """For people."""
    champion: int | None
    """Number of the revision that was challenged; ``None``: there was none."""
    difference: float | None = None
    """Mean over tasks of challenger less champion."""
    low: float | None = None
    high: float | None = None
    """95 % bootstrap interval of it, over tasks; for people, the rule does not read it."""

    def to_json(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN, which stands for "unknown" in a score, and no infinity."""
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in values.items()}


def judge(challenger: Array, champion: Array, number: int, seed: int = 0) -> Verdict:
    """Promote if the challenger is no worse: if its mean return over the validation tasks is at least the champion's.

    Both are scored on the same tasks with the same seeds, so the difference is paired and equal weights give exactly
    zero. No margin is granted for noise, on purpose: with one, a chain of revisions that are each "not significantly
    worse" walks downhill; without one, the champion's validation score never falls. The price is that a challenger
    just as good is turned away about every other time, which costs nothing, since the champion is just as good.

    Args:
        challenger: [M] mean return of each task.
        champion: [M] for the same tasks and seeds.
        number: of the champion.
        seed: of the interval's resamples.

    Raises:
        ValueError: the two were not scored on the same tasks.
    """
    if challenger.shape != champion.shape:
        raise ValueError(f"paired comparison of {challenger.shape} and {champion.shape} tasks")
    differences = np.asarray(challenger, np.float64) - np.asarray(champion, np.float64)
    mean = float(differences.mean())
    if not math.isfinite(mean):
        return Verdict(False, f"its returns beside revision {number} are not finite", number)
    low, high = bootstrap_interval(differences, stream(seed, Purpose.BOOTSTRAP))
    interval = {} if math.isnan(low) else {"low": low, "high": high}
    better = "no worse" if mean >= 0 else "worse"
    reason = f"{better} than revision {number}: mean paired difference {mean:+.4g} over {len(differences)} tasks"
    return Verdict(mean >= 0, reason, number, mean, **interval)


async def challenge(
    validate: Validate, challenger: RevisionRef, champion: RevisionRef | None, number: int | None
) -> tuple[Validation, Verdict]:
    """Score a challenger and compare it with the champion, if there is one; the first is promoted unopposed.

    Args:
        validate: scores revisions.
        challenger: the new one.
        champion: the present champion.
        number: of the champion.
    """
    mine = await validate(challenger)
    if champion is None or number is None:
        return mine, Verdict(True, "the first revision: nothing to be worse than", None)
    theirs = await validate(champion)
    return mine, judge(mine.returns, theirs.returns, number)


def validation_plan(family: Family, spec: LearnerSpec) -> Plan:
    """The family's committed validation plan, for as many adaptation steps as the learner was trained for."""
    fixed = fixed_plan(family, Split.VALIDATION, remembers=remembers(spec))
    return replace(fixed, steps=settings_of(spec).inner_steps)


def validator(
    engine: Engine, registry: Registry, plan_for: Callable[[Family, LearnerSpec], Plan] = validation_plan
) -> Validate:
    """What scores revisions with an engine, at the priority of evaluations.

    Args:
        engine: adapts and runs the episodes.
        registry: where families are looked up.
        plan_for: which tasks, steps and episodes.

    Returns:
        A function that remembers the last few results: a champion is challenged often, and scores the same each time.
    """
    remembered: dict[tuple[str, str], Validation] = {}

    async def validate(revision: RevisionRef) -> Validation:
        # Of a training's weights and the revision that they become the names differ, and nothing else.
        key = revision.hash, json.dumps(spec_to_json(revision.spec), sort_keys=True)
        if key in remembered:
            return remembered[key]
        family = registry.get(revision.spec.family)
        plan = plan_for(family, revision.spec)
        trial = family.episodes_per_trial if remembers(revision.spec) else 0
        result = await evaluate(engine, plan, draw_tasks(family, plan), revision, trial_episodes=trial)
        returns = result.returns.sum(-1) if trial else result.returns[:, -1]
        validation = Validation(returns, result.scores, plan.to_json(), gains(result.returns))
        if len(remembered) >= REMEMBERED:
            del remembered[next(iter(remembered))]
        remembered[key] = validation
        return validation

    return validate
