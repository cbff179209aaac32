"""``innerloop families`` and ``innerloop tasks``."""

from __future__ import annotations

import click

from innerloop._core.names import short
from innerloop.cli.connection import Connection, connected
from innerloop.cli.families import describe, overview, parameter_of
from innerloop.cli.options import POSITIVE
from innerloop.cli.output import parameters

SPLITS = click.Choice(["train", "validation", "test"])


@click.command()
@click.argument("name", required=False)
@click.option(
    "--define", "env_id", metavar="ENV_ID", help="Make the family NAME of a registered Gymnasium environment."
)
@click.option(
    "--parameter",
    "given",
    multiple=True,
    metavar="NAME=LOW:HIGH",
    help="With --define: what is hidden and drawn uniformly; NAME=N for 0 to N - 1. Repeatable.",
)
@click.option(
    "--apply",
    type=click.Choice(["arguments", "attributes"]),
    default="arguments",
    show_default=True,
    help="With --define: how parameters reach the environment.",
)
@click.option("--horizon", type=POSITIVE, help="With --define: steps of an episode at most.")
@click.option("--trial", type=POSITIVE, default=1, show_default=True, help="With --define: episodes in a trial.")
@click.option("--delete", is_flag=True, help="Forget the family NAME that was defined.")
@connected
def families(
    connection: Connection,
    name: str | None,
    env_id: str | None,
    given: tuple[str, ...],
    apply: str,
    horizon: int | None,
    trial: int,
    delete: bool,
) -> None:
    """List the task families; or describe, define or delete one."""
    out = connection.output
    if name is None and (env_id is not None or delete):
        raise click.UsageError("--define and --delete need the NAME of a family")
    if env_id is not None and (not given or horizon is None or delete):
        raise click.UsageError("--define needs --parameter and --horizon, and no --delete")
    if env_id is None and (given or horizon is not None):
        raise click.UsageError("--parameter and --horizon need --define")
    hidden = dict(parameter_of(text) for text in given)
    with connection.open() as client:
        if name is None:
            found = client.families()
            learned = {learner.family for learner in client.learners()}
        else:
            if env_id is None:
                family = client.family(name)
            else:
                family = client.define_family(
                    name, env_id, hidden, horizon=horizon or 0, apply=apply, episodes_per_trial=trial
                )
            if delete:
                client.delete_family(name)
    if name is not None:
        out.value(family) if out.as_json else out.say(describe(family))
        if delete:
            out.note(f"deleted {family.name}")
    elif out.as_json:
        out.value(found)
    else:
        overview(out, found, learned)


@click.command()
@click.argument("family")
@click.option("--split", type=SPLITS, default="test", show_default=True, help="Which stream of tasks.")
@click.option("--seed", default=0, show_default=True, help="Seed of the stream.")
@click.option("--count", type=click.IntRange(min=1), default=5, show_default=True, help="How many.")
@click.option("--start-index", default=0, show_default=True, help="Place of the first one.")
@click.option(
    "--generator", default="", help="What draws them: uniform, grid; or, of a training: replay, goal-gan, paired."
)
@click.option("--training", default="", help="Whose replay, goal-gan or paired is asked what it would run next.")
@connected
def tasks(
    connection: Connection,
    family: str,
    split: str,
    seed: int,
    count: int,
    start_index: int,
    generator: str,
    training: str,
) -> None:
    """Draw tasks of a FAMILY. The same split, seed and index are always the same task."""
    out = connection.output
    with connection.open() as client:
        drawn = client.sample_tasks(family, split, seed, count, start_index, generator=generator, training=training)
    if out.as_json:
        out.value(drawn)
    else:
        out.table(("task", "hidden parameters"), [(short(t.name), parameters(t.parameters)) for t in drawn])
