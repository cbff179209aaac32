"""A server in a process of its own, armed to kill itself at a fault point."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 60.0
END_SECONDS = 20.0


@dataclass(frozen=True)
class ServerProcess:
    """A server that serves."""

    address: str
    process: subprocess.Popen[bytes]
    fault: str
    fault_log: Path

    def was_killed_at_its_point(self) -> bool:
        """Wait for the end; whether it came by SIGKILL, and the log tells of the armed point and of this process."""
        status = self.process.wait(END_SECONDS)
        last = self.fault_log.read_text().splitlines()[-1] if self.fault_log.exists() else ""
        return status == -signal.SIGKILL and last == f"{self.fault} pid {self.process.pid}"


@contextmanager
def served(data_dir: Path, fault: str = "", *, actors: int = 0) -> Iterator[ServerProcess]:
    """Run a server on a data directory.

    Args:
        data_dir: holds all that a killed server leaves behind; ``faults.log`` beside it tells of hit points.
        fault: ``name:n``, the point at which the server dies; empty: it lives.
        actors: environment actors.
    """
    ready, fault_log = data_dir.with_suffix(".ready"), data_dir.with_name("faults.log")
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "innerloop_server", "--port", "0", "--device", "cpu", "--actors", str(actors)]
    with data_dir.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--data-dir", str(data_dir), "--ready-file", str(ready), "--parent-pid", str(os.getpid())],
            stdout=log,
            stderr=log,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "INNERLOOP_FAULT": fault,
                "INNERLOOP_FAULT_LOG": str(fault_log),
            },
        )
    try:
        yield ServerProcess(_address(process, ready), process, fault, fault_log)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(END_SECONDS)


def _address(process: subprocess.Popen[bytes], ready: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"the server did not start: {ready.with_suffix('.log').read_text()}")
        time.sleep(0.02)
    address: str = json.loads(ready.read_text())["address"]
    return address
