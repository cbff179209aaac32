"""Which server a command talks to, and where its output goes."""

from __future__ import annotations

import functools
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from innerloop._core.options import DEFAULT_ADDRESS
from innerloop._embedded import embedded
from innerloop.cli.output import Output
from innerloop.client import Client, connect

PROBE_SECONDS = 0.3


def default_data_dir() -> Path:
    """$INNERLOOP_DATA_DIR, else ~/.local/share/innerloop."""
    given = os.environ.get("INNERLOOP_DATA_DIR")
    return Path(given) if given else Path.home() / ".local" / "share" / "innerloop"


@dataclass(frozen=True)
class Connection:
    """What a command was told about the server."""

    server: str | None
    token: str | None
    ca: str | None
    cert: str | None
    key: str | None
    insecure: bool
    output: Output

    @contextmanager
    def open(self) -> Iterator[Client]:
        """A client; of a private server where none was named and none answers."""
        if self.server is None and not _answers(DEFAULT_ADDRESS):
            where = default_data_dir()
            self.output.note(
                f"no server answers at {DEFAULT_ADDRESS}; starting a private one on {where} "
                "(`innerloop serve` keeps one running)"
            )
            with embedded(where) as client:
                yield client
            return
        with connect(
            self.server or DEFAULT_ADDRESS, self.token, ca=self.ca, cert=self.cert, key=self.key, insecure=self.insecure
        ) as client:
            yield client


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say where to connect to and how to print; it receives a Connection first."""

    @click.option("--server", metavar="ADDRESS", envvar="INNERLOOP_ADDRESS", help="host:port of the server.")
    @click.option("--token", envvar="INNERLOOP_TOKEN", help="Who you are, to the server.")
    @click.option("--ca", type=click.Path(exists=True), help="PEM file of the server's authority (TLS).")
    @click.option("--cert", type=click.Path(exists=True), help="PEM file of your certificate (mutual TLS).")
    @click.option("--key", type=click.Path(exists=True), help="PEM file of its key.")
    @click.option("--insecure", is_flag=True, help="Send the token in the clear to another machine.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON value, or JSON lines, on stdout; nothing else.")
    @functools.wraps(command)
    def wrapped(
        server: str | None,
        token: str | None,
        ca: str | None,
        cert: str | None,
        key: str | None,
        insecure: bool,
        as_json: bool,
        **rest: Any,
    ) -> None:
        command(Connection(server, token, ca, cert, key, insecure, Output(as_json, sys.stdout.isatty())), **rest)

    return wrapped


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), PROBE_SECONDS):
            return True
    except OSError:
        return False
