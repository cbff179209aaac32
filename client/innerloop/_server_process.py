"""A server of one's own: a child process on the loopback address that ends with its parent."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from innerloop.errors import ServerFailed, ServerNotInstalled

LOG_NAME = "server.log"
LOG_TAIL_LINES = 20
STOP_SECONDS = 15.0
"""How long a server may take to drain before it is killed."""


def server_command() -> list[str]:
    """What starts a server in this Python.

    Raises:
        ServerNotInstalled: the server, or what it stands on, is not installed here.
    """
    for module in ("innerloop_server", "torch"):
        if importlib.util.find_spec(module) is None:
            raise ServerNotInstalled(module)
    return [sys.executable, "-m", "innerloop_server"]


def flag(name: str) -> str:
    """``admin_port`` as ``--admin-port``."""
    return f"--{name.replace('_', '-')}"


def flags(options: Mapping[str, Any]) -> list[str]:
    """Options as command-line flags: ``admin_port=0`` as ``--admin-port 0``; ``True`` as the flag alone; ``None`` and
    ``False`` as nothing; a list as the flag once for each.
    """
    words: list[str] = []
    for name, value in options.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if one is None or one is False:
                continue
            words.append(flag(name))
            if one is not True:
                words.append(str(one))
    return words


class ServerProcess:
    """A running server. It stops when this is stopped, collected, or when this process ends, however it ends."""

    def __init__(self, data_dir: str | os.PathLike[str] | None, *, start_timeout: float, options: Mapping[str, Any]):
        """Start it and wait until it serves.

        Args:
            data_dir: what outlives the server; left out, a temporary directory that is removed with it.
            start_timeout: seconds it may take to become ready.
            options: further flags of ``python -m innerloop_server``.

        Raises:
            ServerNotInstalled: there is no server in this Python.
            ServerFailed: it died, or did not become ready in time.
        """
        command = server_command()
        self._scratch = Path(tempfile.mkdtemp(prefix="innerloop-"))
        self.data_dir = Path(data_dir).expanduser() if data_dir is not None else self._scratch / "data"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.log_path = (self.data_dir if data_dir is not None else self._scratch) / LOG_NAME
        ready = self._scratch / "ready.json"
        given = {
            "host": "127.0.0.1",
            "port": 0,
            "data_dir": self.data_dir,
            "parent_pid": os.getpid(),
            "ready_file": ready,
            **options,
        }
        with self.log_path.open("wb") as log:
            # a session of its own: Ctrl-C at a terminal is for the parent, which then stops the child in order
            self._process = subprocess.Popen(
                [*command, *flags(given)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._finalizer = weakref.finalize(self, _end, self._process, self._scratch)
        self.address = self._wait_until_ready(ready, time.monotonic() + start_timeout)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the server still runs."""
        return self._process.poll() is None

    def log_tail(self) -> str:
        """The last lines of its log."""
        try:
            lines = self.log_path.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def stop(self) -> None:
        """Let it drain, then end it. Stopping again does nothing."""
        self._finalizer()

    def _wait_until_ready(self, ready: Path, deadline: float) -> str:
        while True:
            try:
                return str(json.loads(ready.read_text())["address"])
            except (FileNotFoundError, json.JSONDecodeError):
                pass  # not there yet, or half written
            if not self.alive:
                why = f"the server ended with exit code {self._process.returncode} before it served"
            elif time.monotonic() > deadline:
                why = "the server did not become ready in time"
            else:
                time.sleep(0.02)
                continue
            error = ServerFailed(why, log_tail=self.log_tail(), log_path=str(self.log_path))
            self.stop()
            raise error


def _end(process: subprocess.Popen[bytes], scratch: Path) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    shutil.rmtree(scratch, ignore_errors=True)
