"""Run commands a few at a time, each in a process of one thread, until a deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 120.0
"""How long a process that was asked to stop may take to write its checkpoint."""


@dataclass(frozen=True)
class Job:
    """Commands to run one after the other, as long as each succeeds."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    log: Path
    """Gets what they print."""


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    rest: tuple[tuple[str, ...], ...]


def run(jobs: Iterable[Job], at_once: int, deadline: float, say: Callable[[str], None] = print) -> dict[str, int]:
    """Run jobs in order, ``at_once`` of them together.

    Args:
        jobs: what to run.
        at_once: processes.
        deadline: on ``time.monotonic``; what still runs then gets SIGTERM, and no other is started.
        say: hears of every job that ended.

    Returns:
        Name -> exit status of its last command, of every job that was started and not stopped.
    """
    waiting, exhausted = iter(jobs), False
    running: list[_Running] = []
    ended: dict[str, int] = {}
    try:
        while True:
            while not exhausted and len(running) < at_once and time.monotonic() < deadline:
                job = next(waiting, None)
                if job is None:
                    exhausted = True
                else:
                    running.append(_start(job, job.commands))
            if not running or time.monotonic() >= deadline:
                return ended
            time.sleep(POLL_SECONDS)
            running = list(_advance(running, ended, say))
    finally:
        _stop(running)


def _start(job: Job, commands: Sequence[tuple[str, ...]]) -> _Running:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with job.log.open("ab") as log:
        process = subprocess.Popen(
            commands[0], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
    return _Running(job, process, tuple(commands[1:]))


def _advance(running: Sequence[_Running], ended: dict[str, int], say: Callable[[str], None]) -> Iterator[_Running]:
    """Those that still run; who is done with a command goes on with its next."""
    for one in running:
        status = one.process.poll()
        if status is None:
            yield one
        elif status == 0 and one.rest:
            yield _start(one.job, one.rest)
        else:
            ended[one.job.name] = status
            say(f"{one.job.name}: {'done' if status == 0 else f'failed, see {one.job.log}'}")


def _stop(running: Sequence[_Running]) -> None:
    for one in running:
        one.process.send_signal(signal.SIGTERM)
    until = time.monotonic() + PATIENCE_SECONDS
    for one in running:
        try:
            one.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
