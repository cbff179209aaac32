"""Score what learning from a task's examples alone reaches, on the fixed test tasks of a supervised family.

    python scripts/baselines.py FAMILY [--shots 1 2 5 10 20 50] [--tasks N] [--run RUN] [--json]

Shots are examples of a class, or of a regression task. Baselines learn from the very examples that an evaluation's
sessions draw, the first so many of them, and are tested on the very queries that it scores its last step on. With --run
the learner of that folder is scored in the same run, adapting on as many shots.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, Ridge

from innerloop.arrays import Array, Discrete
from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.measures import ACCURACY, CROSS_ENTROPY, MSE
from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.adaptation.rollout import draw
from innerloop_server.domain import LearnerSpec, Supervision, Task
from innerloop_server.evaluation.plan import Plan, draw_tasks, fixed_plan, session_seed
from innerloop_server.evaluation.protocol import evaluate
from innerloop_server.evaluation.scores import bootstrap_interval
from innerloop_server.store.codec import spec_from_json
from innerloop_server.streams import Purpose, stream
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import stack_parameters
from innerloop_server.training.specs import spec_for

SHOTS = (1, 2, 5, 10, 20, 50)
Baseline = Callable[[Array, Array, Array], Array]
"""(support [n, O], answers [n, F], queries [m, O]) -> log-probabilities [m, ways], or predictions [m, F]."""


@dataclass(frozen=True)
class Examples:
    """Of M tasks. Inputs are shifted and scaled as a policy's are."""

    support: Array
    """[M, n, O] float64."""
    answers: Array
    """[M, n, F]."""
    queries: Array
    """[M, m, O]."""
    truths: Array
    """[M, m, F]."""


@dataclass(frozen=True)
class Row:
    """What one method reached with so many shots."""

    method: str
    shots: int
    scores: Mapping[str, tuple[float, float, float]]
    """Metric -> mean over the tasks, and the ends of its 95 % interval; NaN where tasks' own values are not known."""


def examples(family: Family, plan: Plan, tasks: Sequence[Task], support: int) -> Examples:
    """The examples that the plan's sessions adapt on and are scored on after their last step.

    Args:
        family: supervised, with a batch face.
        plan: names the streams, and how many queries.
        tasks: the plan's first.
        support: examples of a task; fewer are the first of more.
    """
    batch = family.batch(stack_parameters(tasks), torch.device("cpu"))
    seeds = [session_seed(plan, index) for index in range(len(tasks))]

    def drawn(number: int, step: int, query: bool) -> tuple[Array, Array]:
        noise = draw(
            spec_for(family),
            seeds,
            step,
            0,
            episodes=number,
            reset_uniforms=batch.reset_uniforms,
            evaluation=query,
            query=query,
        )
        state, seen = batch.reset(torch.from_numpy(noise.resets))
        inputs = (seen.double().numpy() - family.observation_shift) / family.observation_scale
        return inputs, batch.feedback(state).double().numpy()

    return Examples(*drawn(support, 0, False), *drawn(plan.evaluation_episodes, plan.steps, True))


def logistic_regression(support: Array, answers: Array, queries: Array) -> Array:
    """scikit-learn's, with its default penalty."""
    fitted = LogisticRegression(max_iter=1000).fit(support, answers[:, 0].astype(np.int64))
    found: Array = fitted.predict_log_proba(queries)
    return found


def nearest_centroid(support: Array, answers: Array, queries: Array) -> Array:
    """The nearest class mean; probabilities fall with the squared distance, as in prototypical networks."""
    labels = answers[:, 0].astype(np.int64)
    centres = np.stack([support[labels == label].mean(0) for label in range(labels.max() + 1)])
    logits = -((queries[:, None] - centres) ** 2).sum(-1)
    logits -= logits.max(-1, keepdims=True)
    found: Array = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return found


def mean(support: Array, answers: Array, queries: Array) -> Array:  # noqa: ARG001 - it looks at no input
    """The mean answer, whatever is asked."""
    return np.broadcast_to(answers.mean(0), (len(queries), answers.shape[1]))


def ridge(support: Array, answers: Array, queries: Array) -> Array:
    """A linear function, hardly penalised."""
    found: Array = Ridge(alpha=0.1).fit(support, answers).predict(queries)
    return found.reshape(len(queries), -1)


def kernel_ridge(support: Array, answers: Array, queries: Array) -> Array:
    """Ridge regression on all features of a Gaussian kernel of width one, around the mean answer."""
    centre = answers.mean(0)
    fitted = KernelRidge(alpha=0.01, kernel="rbf", gamma=0.5).fit(support, answers - centre)
    found: Array = centre + fitted.predict(queries)
    return found


BASELINES: Mapping[Supervision, Mapping[str, Baseline]] = {
    Supervision.CLASSIFICATION: {"logistic regression": logistic_regression, "nearest centroid": nearest_centroid},
    Supervision.REGRESSION: {"mean": mean, "ridge": ridge, "kernel ridge": kernel_ridge},
}


def measure(supervision: Supervision, predicted: Array, truths: Array) -> Mapping[str, float]:
    """One task's metrics, as an evaluation names them."""
    if supervision is Supervision.REGRESSION:
        return {MSE: float(np.mean((predicted - truths) ** 2))}
    labels = truths[:, 0].astype(np.int64)
    right = predicted[np.arange(len(labels)), labels]
    return {ACCURACY: float(np.mean(predicted.argmax(-1) == labels)), CROSS_ENTROPY: float(-right.mean())}


def estimate(values: Array, seed: int, shots: int) -> tuple[float, float, float]:
    """Mean and interval of tasks' values."""
    return (float(values.mean()), *bootstrap_interval(values, stream(seed, Purpose.BOOTSTRAP, shots)))


def baseline_scores(family: Family, shots: Sequence[int], tasks: Sequence[Task], plan: Plan) -> list[Row]:
    """Every baseline with every number of shots.

    Args:
        family: supervised.
        shots: of a class, or of a task in regression.
        tasks: the plan's first.
        plan: whose examples.
    """
    assert family.supervision is not None
    drawn = examples(family, plan, tasks, ways(family) * max(shots))
    rows = []
    for method, baseline in BASELINES[family.supervision].items():
        for number in shots:
            n = ways(family) * number
            of_tasks = [
                measure(family.supervision, baseline(support[:n], answers[:n], queries), truths)
                for support, answers, queries, truths in zip(
                    drawn.support, drawn.answers, drawn.queries, drawn.truths, strict=True
                )
            ]
            values = {name: np.array([one[name] for one in of_tasks]) for name in of_tasks[0]}
            rows.append(Row(method, number, {name: estimate(of, plan.seed, number) for name, of in values.items()}))
    return rows


def learner_scores(run: Path, family: Family, shots: Sequence[int], tasks: Sequence[Task], plan: Plan) -> list[Row]:
    """The learner in the folder ``run`` after the plan's last step, on the same examples and queries."""
    spec: LearnerSpec = spec_from_json(json.loads((run / "manifest.json").read_text())["spec"])
    if spec.family != family.name:
        raise SystemExit(f"{run} holds a learner of {spec.family}, not of {family.name}")
    weights = (run / "meta.safetensors").resolve()
    ref = RevisionRef(f"learners/{spec.name}", hashlib.sha256(weights.read_bytes()).hexdigest(), str(weights), spec)
    sign, main_metric = (-1, MSE) if family.supervision is Supervision.REGRESSION else (1, ACCURACY)
    rows = []
    for number in shots:
        core = EngineCore(load_registry(), torch.device("cpu"), device_rows=256)
        as_many = dataclasses.replace(plan, tasks=len(tasks), episodes_per_step=ways(family) * number, guard=False)
        result = asyncio.run(evaluate(LocalEngine(core), as_many, tasks, ref))
        scores = {main_metric: estimate(sign * result.returns[:, -1], plan.seed, number)}
        if CROSS_ENTROPY in result.scores[-1].metrics:
            scores[CROSS_ENTROPY] = (result.scores[-1].metrics[CROSS_ENTROPY], math.nan, math.nan)
        rows.append(Row(spec.name, number, scores))
    return rows


def ways(family: Family) -> int:
    """Labels of a task; 1 in regression."""
    return family.action_space.n if isinstance(family.action_space, Discrete) else 1


def catches_up(rows: Sequence[Row], score: float) -> int | None:
    """The fewest shots with which a baseline is as good as a score; ``None``: none of those tried."""
    for row in sorted(rows, key=lambda row: row.shots):
        as_good = row.scores[MSE][0] <= score if MSE in row.scores else row.scores[ACCURACY][0] >= score
        if as_good:
            return row.shots
    return None


def report(family: Family, plan: Plan, tasks: int, rows: Sequence[Row], learner: Sequence[Row]) -> None:
    """The table, and where baselines catch up with the learner."""
    metrics = list(rows[0].scores)
    print(f"{family.name}: {tasks} fixed {plan.split} tasks, {plan.evaluation_episodes} queries each")
    print(f"{'method':<24} {'shots':>5} " + " ".join(f"{name + ' (95 % interval)':>32}" for name in metrics))
    for row in (*learner, *rows):
        cells = " ".join("{:>9.4f}  ({:>8.4f}, {:>8.4f})".format(*row.scores[name]).rjust(32) for name in metrics)
        print(f"{row.method:<24} {row.shots:>5} {cells}")
    for mine in learner:
        for method in dict.fromkeys(row.method for row in rows):
            shots = catches_up([row for row in rows if row.method == method], mine.scores[metrics[0]][0])
            when = f"at {shots} shots" if shots else f"not within {max(row.shots for row in rows)} shots"
            print(f"{method} catches up with {mine.method} of {mine.shots} shots {when}")


def main() -> int:
    """Score, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family")
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS, help="of a class, or of a regression task")
    parser.add_argument("--tasks", type=int, default=None, help="the plan's first so many; left out: all")
    parser.add_argument(
        "--run",
        type=Path,
        default=None,
        help="a revision to score in the same run: DIR/revisions/N of scripts/train --out DIR, or one of the zoo",
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    family = load_registry().get(args.family)
    if family.supervision is None:
        parser.error(f"{family.name} is not supervised: there are no examples to learn from")
    plan = fixed_plan(family)
    tasks = draw_tasks(family, plan)[: args.tasks]
    rows = baseline_scores(family, args.shots, tasks, plan)
    learner = [] if args.run is None else learner_scores(args.run, family, args.shots, tasks, plan)
    if args.json:
        found = {"family": family.name, "plan": plan.to_json(), "tasks": len(tasks)}
        print(json.dumps({**found, "scores": [dataclasses.asdict(row) for row in (*learner, *rows)]}, indent=2))
    else:
        report(family, plan, len(tasks), rows, learner)
    return 0


if __name__ == "__main__":
    sys.exit(main())
