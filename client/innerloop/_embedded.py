"""A private server for a notebook, a test or one command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from innerloop._core.options import ConnectOptions
from innerloop._server_process import ServerProcess, flag
from innerloop.client import Client
from innerloop.errors import ServerFailed

START_SECONDS = 120.0
"""The first start on a cold disk reads all of torch."""


class EmbeddedClient(Client):
    """A client with a server of its own, which ends when the client is closed, or with this process."""

    def __init__(self, server: ServerProcess, options: ConnectOptions) -> None:
        """Use :func:`embedded`."""
        super().__init__(options)
        self._server = server

    @property
    def address(self) -> str:
        """Where the server listens: for ``innerloop.aio.connect``, or a client in another language."""
        return self._server.address

    @property
    def data_dir(self) -> Path:
        """What outlives the server (unless it is temporary)."""
        return self._server.data_dir

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return self._server.log_path

    def close(self) -> None:
        """Close the connection and stop the server. Closing again does nothing."""
        super().close()
        self._server.stop()


def embedded(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    start_timeout: float = START_SECONDS,
    timeout: float | None = 60.0,
    patience: float = 60.0,
    wait: bool = False,
    **options: Any,
) -> EmbeddedClient:
    """Start a private server on the loopback address and connect to it.

    Args:
        data_dir: what outlives the server; left out, a temporary directory that is removed with it.
        start_timeout: seconds the server may take to become ready.
        timeout: as in :func:`innerloop.connect`.
        patience: as in :func:`innerloop.connect`.
        wait: as in :func:`innerloop.connect`.
        options: flags of ``python -m innerloop_server``, such as ``device="cpu"`` or ``actors=1``.

    Raises:
        ServerNotInstalled: there is no server in this Python; says what to install.
        ServerFailed: it died, or did not become ready in time; shows the end of its log.
        TypeError: an option that the server does not have.
    """
    try:
        server = ServerProcess(data_dir, start_timeout=start_timeout, options=options)
    except ServerFailed as error:
        # the server alone knows its flags, and it may be of another version than this client
        unknown = [name for name in options if f"unrecognized arguments: {flag(name)}" in error.log_tail]
        if unknown:
            raise TypeError(f"embedded() got an unknown option {unknown[0]!r}; `innerloop serve` lists them") from error
        raise
    settled = ConnectOptions(address=server.address, timeout=timeout, patience=patience, wait=wait)
    return EmbeddedClient(server, settled)
