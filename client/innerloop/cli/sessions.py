"""``innerloop sessions``."""

from __future__ import annotations

import click

from innerloop._core.names import short
from innerloop.cli.connection import Connection, connected


@click.command()
@click.argument("name", required=False)
@click.option("--cancel", is_flag=True, help="End it and remove all that it held.")
@connected
def sessions(connection: Connection, name: str | None, cancel: bool) -> None:
    """List your sessions; or show or cancel one."""
    if name is None and cancel:
        raise click.UsageError("--cancel needs the NAME of a session")
    out = connection.output
    with connection.open() as client:
        one = client.cancel if cancel else client.session
        found = client.sessions() if name is None else [one(name)]
    if out.as_json:
        out.value(found if name is None else found[0])
        return
    rows = [
        (
            short(s.name),
            s.state,
            short(s.revision),
            s.step,
            s.episodes,
            s.attached,
            s.lease_expire_time,
            short(s.policy),
        )
        for s in found
    ]
    columns = ("session", "state", "revision", "step", "episodes", "attached", "lease until", "policy")
    out.table(
        columns, rows, empty="no sessions yet", droppable=("episodes", "policy", "attached", "lease until", "revision")
    )
