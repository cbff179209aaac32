"""``innerloop learners``."""

from __future__ import annotations

import click

from innerloop._core.names import short
from innerloop.cli.connection import Connection, connected


@click.command()
@click.argument("name", required=False)
@click.option("--family", default="", help="Of this family alone.")
@click.option("--promote", "action", flag_value="promote", help="Make the revision NAME champion.")
@click.option("--roll-back", "action", flag_value="roll_back", help="Make the champion before champion again.")
@connected
def learners(connection: Connection, name: str | None, family: str, action: str | None) -> None:
    """List the learners; or one learner's revisions; or choose a champion."""
    out = connection.output
    if action is not None and name is None:
        raise click.UsageError(f"--{action.replace('_', '-')} needs a NAME")
    with connection.open() as client:
        if name is not None and action is not None:
            learner = client.promote(name) if action == "promote" else client.roll_back(name)
            if out.as_json:
                out.value(learner)
            else:
                out.say(f"{learner.name}: the champion is {learner.champion}")
            return
        if name is not None:
            revisions = client.revisions(name)
            if out.as_json:
                out.value(revisions)
            else:
                rows = [(short(r.name), r.champion, r.hash[:12], r.create_time) for r in revisions]
                out.table(("revision", "champion", "hash", "made"), rows, empty="no revisions yet", droppable=("hash",))
            return
        found = client.learners(family)
    if out.as_json:
        out.value(found)
        return
    listed = [
        (short(x.name), x.method, short(x.family), x.inner_steps, x.episodes_per_step, x.champion.rpartition("/")[2])
        for x in found
    ]
    columns = ("learner", "method", "family", "steps", "episodes a step", "champion")
    out.table(columns, listed, empty="no learners yet", droppable=("family", "episodes a step", "steps", "method"))
