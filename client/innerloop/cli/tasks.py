"""``innerloop families`` and ``innerloop tasks``."""

from __future__ import annotations

import click

from innerloop._core.names import short
from innerloop.cli.connection import Connection, connected
from innerloop.cli.output import parameters
from innerloop.types import Family

SPLITS = click.Choice(["train", "validation", "test"])


@click.command()
@click.argument("name", required=False)
@connected
def families(connection: Connection, name: str | None) -> None:
    """List the task families, or describe one."""
    out = connection.output
    with connection.open() as client:
        if name is not None:
            family = client.family(name)
            out.value(family) if out.as_json else out.say(_describe(family))
            return
        found = client.families()
    if out.as_json:
        out.value(found)
        return
    rows = [
        (short(f.name), f.title, f.observation_space, f.action_space, f.horizon, ", ".join(f.simulators), _state(f))
        for f in found
    ]
    droppable = ("simulators", "horizon", "does", "sees")
    out.table(("family", "what it is", "sees", "does", "horizon", "simulators", "state"), rows, droppable=droppable)


@click.command()
@click.argument("family")
@click.option("--split", type=SPLITS, default="test", show_default=True, help="Which stream of tasks.")
@click.option("--seed", default=0, show_default=True, help="Seed of the stream.")
@click.option("--count", type=click.IntRange(min=1), default=5, show_default=True, help="How many.")
@click.option("--start-index", default=0, show_default=True, help="Place of the first one.")
@connected
def tasks(connection: Connection, family: str, split: str, seed: int, count: int, start_index: int) -> None:
    """Draw tasks of a FAMILY. The same split, seed and index are always the same task."""
    out = connection.output
    with connection.open() as client:
        drawn = client.sample_tasks(family, split, seed, count, start_index)
    if out.as_json:
        out.value(drawn)
    else:
        out.table(("task", "hidden parameters"), [(short(t.name), parameters(t.parameters)) for t in drawn])


def _state(family: Family) -> str:
    if family.broken_reason:
        return f"broken: {family.broken_reason}"
    if family.missing_extra:
        return f"needs pip install 'innerloop[{family.missing_extra}]'"
    return "ready"


def _describe(family: Family) -> str:
    lines = [
        f"{short(family.name)}: {family.title}",
        "",
        family.description,
        "",
        f"sees        {family.observation_space}",
        f"does        {family.action_space}",
        f"episode     {family.horizon} steps, discount {family.discount:g}",
        f"simulators  {', '.join(family.simulators)}",
        f"state       {_state(family)}",
        *(f"hidden      {name}: {space}" for name, space in family.parameter_space.items()),
        *(f"reference   {r.name} {r.value:.2f} ({r.source})" for r in family.references),
    ]
    return "\n".join(lines)
