"""``innerloop train`` and ``innerloop trainings``."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.progress import Progress

from innerloop.cli.connection import Connection, connected
from innerloop.cli.output import Output
from innerloop.client import TrainingRun
from innerloop.types import TrainingMetrics


@click.command()
@click.argument("family")
@click.option("--method", default="maml", show_default=True, help="The learning method.")
@click.option("--learner", default="", help="Name of the learner. [default: FAMILY-METHOD]")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting that differs; VALUE is JSON.")
@click.option("--updates", default=0, help="Updates of the outer loop. [default: as the configuration says]")
@click.option("--seed", default=0, show_default=True, help="Seed of all that the training draws.")
@click.option("--simulator", type=click.Choice(["batch", "actors"]), default=None, help="What runs the episodes.")
@click.option("--continue-from", default="", help="A revision to start from.")
@click.option("--detach", is_flag=True, help="Start it and leave; `innerloop trainings` shows how it goes.")
@connected
def train(
    connection: Connection,
    family: str,
    method: str,
    settings: tuple[str, ...],
    simulator: str | None,
    detach: bool,
    **options: Any,
) -> None:
    """Train a learner for a FAMILY in the background of the server, and watch it."""
    out = connection.output
    changed = dict(_setting(text) for text in settings)
    with connection.open() as client:
        run = client.train(family, method, settings=changed, simulator=simulator or "", **options)
        if detach:
            _report(run, out)
        else:
            _watch(run, out, 0)


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
                rows = [(t.name, t.learner, t.state, t.update, t.updates, t.seed, t.error) for t in found]
                out.table(("training", "learner", "state", "update", "of", "seed", "error"), rows)
            return
        run = client.training(name)
        if action == "pause":
            run.pause()
        if action == "resume":
            run.resume()
        if action in ("follow", "resume"):
            _watch(run, out, run.training.update)
        else:
            _report(run, out)


def _watch(run: TrainingRun, out: Output, after: int) -> None:
    if out.live:
        with Progress(console=out.console) as bars:
            bar = bars.add_task(run.name, total=run.training.updates or None, completed=after)
            for metrics in run.follow(after):
                total = run.training.updates or None
                bars.update(bar, total=total, completed=metrics.update, description=_line(metrics))
    else:
        for metrics in run.follow(after):
            if out.as_json:
                out.value({"event": "metrics", "metrics": metrics})
            else:
                out.say(f"update {metrics.update}: {_line(metrics)}")
    _report(run, out)


def _report(run: TrainingRun, out: Output) -> None:
    training = run.training
    if out.as_json:
        out.value({"event": "training", "training": training})
    else:
        out.say(f"{training.name}: {training.learner} is {training.state} at update {training.update}")


def _line(metrics: TrainingMetrics) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.values.items())


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--set {text}: write NAME=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value  # a bare word is itself
