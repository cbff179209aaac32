"""``innerloop evaluate`` and ``innerloop scores``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
from rich.progress import Progress

from innerloop._core.names import short
from innerloop.cli.connection import Connection, connected
from innerloop.cli.interruption import goes_on, interruptible
from innerloop.cli.options import POSITIVE, zero_if_left_out
from innerloop.cli.output import Output
from innerloop.cli.tasks import SPLITS
from innerloop.client import EvaluationRun
from innerloop.types import Reference, Score

COLUMNS = ("k", "mean", "95 % low", "high", "IQM", "gap closed", "tasks", "episodes")
TRIAL_RETURN = "trial_return"
DROPPABLE = ("episodes", "IQM", "tasks", "gap closed")


@click.command()
@click.argument("learner", metavar="FAMILY_OR_LEARNER")
@click.option("--split", type=SPLITS, default="test", show_default=True, help="Which stream of tasks.")
@click.option("--tasks", type=POSITIVE, callback=zero_if_left_out, help="How many tasks.")
@click.option("--task-seed", type=int, help="Seed of the stream of tasks.")
@click.option("--steps", type=click.IntRange(min=0), help="Adaptation steps.")
@click.option("--episodes-per-step", type=POSITIVE, callback=zero_if_left_out, help="Episodes of each adaptation step.")
@click.option("--evaluation-episodes", type=POSITIVE, callback=zero_if_left_out, help="Fresh episodes at each k.")
@click.option("--seed", type=int, help="Seed of all else that is drawn.")
@click.option("--guard/--no-guard", default=None, help="[default: from 20 episodes a step, or where it remembers]")
@click.option("--greedy", is_flag=True, help="Score the mode of the policy instead of its samples.")
@click.option("--simulator", type=click.Choice(["batch", "actors"]), default=None, help="What runs the episodes.")
@connected
def evaluate(connection: Connection, learner: str, simulator: str | None, **plan: Any) -> None:
    """Score a learner on held-out tasks, after each adaptation step.

    What is left out is taken from the family's fixed protocol, so that scores can be compared.
    """
    out = connection.output
    with connection.open() as client:
        run = client.evaluate(learner, simulator=simulator or "", **plan)
        with interruptible(goes_on(run.name, client)):
            _follow(run, out)
        done = run.evaluation
    if out.as_json:
        out.value(done)
        return
    out.say(f"{done.name}: {done.plan.learner} on {done.plan.tasks} {done.plan.split} tasks")
    _table(out, done.scores)
    _references(out, done.references, "episode")
    for score in done.scores:
        if TRIAL_RETURN in score.metrics:
            out.say(_trial(score))
            _references(out, score.trial_references, "trial")


@click.command()
@click.option("--family", default="", help="Of this family alone.")
@click.option("--learner", default="", help="Of this learner or revision alone.")
@click.option("--k", type=int, help="After so many adaptation steps alone.")
@connected
def scores(connection: Connection, family: str, learner: str, k: int | None) -> None:
    """Show the scores that were measured so far."""
    out = connection.output
    with connection.open() as client:
        found = client.scores(family=family, learner=learner, k=k)
    if out.as_json:
        out.value(found)
        return
    _table(out, found, ("revision", "split"), lambda score: (short(score.revision), score.split), empty="no scores yet")


def _references(out: Output, found: Sequence[Reference], unit: str) -> None:
    for reference in found:
        if reference.unit == unit:
            out.say(f"{reference.name}: {reference.value:.2f} ({reference.source})")


def _trial(score: Score) -> str:
    """``whole trials, 4 episodes each: 36.48 (95 % 36.10 to 36.80), 83.5 % of the gap closed``."""
    low, high = score.metrics.get("trial_low"), score.metrics.get("trial_high")
    interval = "" if low is None or high is None else f" (95 % {low:.2f} to {high:.2f})"
    closed = "" if score.trial_gap_closed is None else f", {100 * score.trial_gap_closed:.1f} % of the gap closed"
    episodes = f"{score.k + 1} episode{'s' if score.k else ''} each"
    return f"whole trials, {episodes}: {score.metrics[TRIAL_RETURN]:.2f}{interval}{closed}"


def _follow(run: EvaluationRun, out: Output) -> None:
    if not out.live:
        run.result()
        return
    with Progress(console=out.console) as bars:
        bar = bars.add_task(run.name, total=None)
        for evaluation in run.follow():
            bars.update(bar, total=evaluation.units_total, completed=evaluation.units_done)


def _table(
    out: Output,
    found: Sequence[Score],
    columns: tuple[str, ...] = (),
    more: Callable[[Score], tuple[Any, ...]] = lambda _: (),
    *,
    empty: str = "",
) -> None:
    """Scores, each metric that any of them has in a column of its own.

    Args:
        out: where to.
        found: the scores.
        columns: what stands before the numbers.
        more: what stands in those columns.
        empty: what to say when there are none.
    """
    metrics = sorted({name for score in found for name in score.metrics} - {"trial_low", "trial_high"})
    rows = [(*more(score), *_row(score), *(score.metrics.get(name) for name in metrics)) for score in found]
    out.table((*columns, *COLUMNS, *metrics), rows, empty=empty, droppable=DROPPABLE)


def _row(score: Score) -> tuple[Any, ...]:
    closed = "" if score.gap_closed is None else f"{100 * score.gap_closed:.1f} %"
    return (
        score.k,
        score.mean,
        score.low,
        score.high,
        score.interquartile_mean,
        closed,
        score.tasks,
        score.episodes,
    )
