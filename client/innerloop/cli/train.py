"""``innerloop train`` and ``innerloop trainings``."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from innerloop._core.names import short
from innerloop.cli.connection import Connection, connected
from innerloop.cli.interruption import goes_on, interruptible
from innerloop.cli.options import POSITIVE, zero_if_left_out
from innerloop.cli.output import Output
from innerloop.cli.training_report import made_by, update_line, verdict
from innerloop.cli.training_score import LiveScore
from innerloop.client import Client, TrainingRun


@click.command()
@click.argument("family")
@click.option("--method", default="maml", show_default=True, help="The learning method.")
@click.option("--learner", default="", help="Name of the learner. [default: FAMILY-METHOD]")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting that differs; VALUE is JSON.")
@click.option(
    "--updates",
    type=POSITIVE,
    callback=zero_if_left_out,
    help="Updates of the outer loop. [default: as the configuration says]",
)
@click.option("--seed", default=0, show_default=True, help="Seed of all that the training draws.")
@click.option("--simulator", type=click.Choice(["batch", "actors"]), default=None, help="What runs the episodes.")
@click.option("--continue-from", default="", help="A revision to start from. [default: fresh meta-parameters]")
@click.option(
    "--generator",
    type=click.Choice(["uniform", "grid", "replay", "goal-gan", "paired"]),
    default="uniform",
    show_default=True,
    help="What proposes the tasks.",
)
@click.option("--detach", is_flag=True, help="Start it and leave; `innerloop trainings` shows how it goes.")
@connected
def train(
    connection: Connection,
    family: str,
    method: str,
    settings: tuple[str, ...],
    simulator: str | None,
    continue_from: str,
    detach: bool,
    **options: Any,
) -> None:
    """Train a learner for a FAMILY in the background of the server, and watch it."""
    out = connection.output
    changed = dict(_setting(text) for text in settings)
    with connection.open() as client:
        run = client.train(
            family, method, settings=changed, simulator=simulator or "", continue_from=continue_from, **options
        )
        start = short(continue_from) or "fresh meta-parameters (--continue-from starts from a revision)"
        out.say(f"{run.name}: {run.training.learner} trains from {start}")
        if detach:
            _report(run, out)
        else:
            _watch(client, run, out, 0)


@click.command()
@click.argument("name", required=False)
@click.option("--follow", "action", flag_value="follow", help="Watch it.")
@click.option("--pause", "action", flag_value="pause", help="Pause it at its next update.")
@click.option("--resume", "action", flag_value="resume", help="Go on from its checkpoint, and watch it.")
@connected
def trainings(connection: Connection, name: str | None, action: str | None) -> None:
    """List the trainings; or follow, pause or resume one."""
    if action is not None and name is None:
        raise click.UsageError(f"--{action} needs the NAME of a training")
    out = connection.output
    with connection.open() as client:
        if name is None:
            found = client.trainings()
            if out.as_json:
                out.value(found)
            else:
                rows = [(short(t.name), short(t.learner), t.state, t.update, t.updates, t.seed, t.error) for t in found]
                columns = ("training", "learner", "state", "update", "of", "seed", "error")
                out.table(columns, rows, empty="no trainings yet", droppable=("seed", "error"))
            return
        run = client.training(name)
        if action == "pause":
            run.pause()
        if action == "resume":
            run.resume()
        if action in ("follow", "resume"):
            _watch(client, run, out, run.training.update)
        else:
            _report(run, out)


def _watch(client: Client, run: TrainingRun, out: Output, after: int) -> None:
    with interruptible(goes_on(run.name, client)):
        _follow(run, out, after)
        _report(run, out)
        if not out.as_json and run.training.state == "done":
            made = made_by(run.training, client.revisions(run.training.learner))
            out.say(verdict(made) if made is not None else "it made no revision")


def _follow(run: TrainingRun, out: Output, after: int) -> None:
    if out.live:
        _draw(run, out.console, after)
        return
    for metrics in run.follow(after):
        if out.as_json:
            out.value({"event": "metrics", "metrics": metrics})
        else:
            out.say(update_line(metrics, run.training.updates))


def _draw(run: TrainingRun, console: Console, after: int) -> None:
    """For people who watch: one line that moves. Who pipes gets a line an update."""
    score = LiveScore()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[score]}"),
    )
    with Progress(*columns, console=console, expand=True) as bars:
        bar = bars.add_task(short(run.training.learner), total=None, completed=after, score="")
        for metrics in run.follow(after):
            score.add(metrics)
            bars.update(bar, total=run.training.updates or None, completed=metrics.update, score=str(score))


def _report(run: TrainingRun, out: Output) -> None:
    training = run.training
    if out.as_json:
        out.value({"event": "training", "training": training})
    else:
        out.say(f"{training.name}: {training.learner} is {training.state} at update {training.update}")


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--set {text}: write NAME=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value  # a bare word is itself
