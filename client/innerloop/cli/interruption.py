"""Ctrl-C: one sentence on what goes on without the command, and exit code 130."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

from innerloop._embedded import EmbeddedClient
from innerloop.cli.output import wrapped
from innerloop.client import Client


class Interrupted(click.ClickException):
    """The user pressed Ctrl-C."""

    exit_code = 130  # 128 + SIGINT, as shells have it

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(wrapped(self.message, err=True), file=file, err=True)


@contextmanager
def interruptible(lives_on: str = "") -> Iterator[None]:
    """Turn Ctrl-C in the block into :class:`Interrupted`.

    Args:
        lives_on: a sentence on what goes on without the command.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {lives_on}" if lives_on else "interrupted") from None


def goes_on(name: str, client: Client) -> str:
    """What becomes of an evaluation or a training that nobody watches any more."""
    if isinstance(client, EmbeddedClient):
        return f"{name} goes on when a server is next started on {client.data_dir}"
    return f"{name} goes on in the server"
