"""``innerloop policies``."""

from __future__ import annotations

from pathlib import Path

import click

from innerloop._core.names import short
from innerloop.cli.connection import Connection, connected


@click.command()
@click.argument("name", required=False)
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Download it to a file.")
@click.option("--delete", is_flag=True, help="Delete it from the server.")
@connected
def policies(connection: Connection, name: str | None, save: Path | None, delete: bool) -> None:
    """List your policies; or show, download or delete one."""
    if name is None and (save is not None or delete):
        raise click.UsageError("--save and --delete need the NAME of a policy")
    out = connection.output
    with connection.open() as client:
        found = client.policies() if name is None else [client.policy(name)]
        if name is not None and save is not None:
            client.download(name).save(save)
        if name is not None and delete:
            client.delete_policy(name)
    if out.as_json:
        out.value(found if name is None else found[0])
    else:
        rows = [
            (short(p.name), short(p.family), short(p.revision), p.steps, p.size_bytes, p.create_time) for p in found
        ]
        columns = ("policy", "family", "revision", "steps", "bytes", "made")
        out.table(columns, rows, empty="no policies yet", droppable=("bytes", "family", "made"))
    if save is not None:
        out.note(f"saved {save}")
    if delete:
        out.note(f"deleted {found[0].name}")
