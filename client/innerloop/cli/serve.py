"""``innerloop serve``: becomes the server."""

from __future__ import annotations

import os
from typing import Any

import click

from innerloop._server_process import flags, server_command
from innerloop.cli.connection import default_data_dir


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--host", default="127.0.0.1", show_default=True, help="Another than loopback needs TLS and tokens.")
@click.option("--port", type=click.IntRange(0, 65535), default=50551, show_default=True, help="0: any free port.")
@click.option("--data-dir", type=click.Path(), help="What outlives the server. [default: ~/.local/share/innerloop]")
@click.option("--device", help="cpu, cuda, cuda:1; by default CUDA where there is one.")
@click.option("--actors", type=click.IntRange(min=0), help="Environment-actor processes.")
@click.option("--admin-port", type=click.IntRange(0, 65535), help="Prometheus metrics on 127.0.0.1.")
@click.option("--tls-cert", type=click.Path(exists=True), help="PEM file of the server's certificate.")
@click.option("--tls-key", type=click.Path(exists=True), help="PEM file of its key.")
@click.option("--tls-client-ca", type=click.Path(exists=True), help="Clients must show a certificate signed by it.")
@click.option("--tokens-file", type=click.Path(exists=True), help='TOML: who may come, [tokens] token = "principal".')
@click.option(
    "--allow-env", multiple=True, metavar="ID", help="Clients may define families of it, such as CartPole-v1."
)
@click.option("--insecure", is_flag=True, help="Serve another address without TLS and tokens.")
@click.option("--log-format", type=click.Choice(["console", "json"]), help="How to log.")
@click.argument("rest", nargs=-1, type=click.UNPROCESSED, metavar="[MORE OPTIONS]")
def serve(data_dir: str | None, rest: tuple[str, ...], **options: Any) -> None:
    """Run a server in this terminal. Options that are not listed here go to it as they are; `python -m
    innerloop_server --help` lists them all.
    """
    words = [*server_command(), *flags({"data_dir": data_dir or default_data_dir(), **options}), *rest]
    os.execv(words[0], words)
