"""One place for an actor, and whoever currently holds it: started, watched, replaced when dead."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
import types
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from innerloop_server.actors import actor
from innerloop_server.actors.mailbox import Mailbox
from innerloop_server.actors.messages import Done, Drop, Dropped, Failed, FromActor, FromPool, Ready, Run, Stop

MAILBOX_CAPACITY = 1_024
"""Runs on their way to an actor at most."""
DROP_SECONDS = 10.0
"""An actor that has not let go of a dropped run by then is stuck in somebody's environment, and is killed."""
STOP_SECONDS = 2.0
"""An actor that has not ended by then after it was told to is killed."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def backoff_seconds(deaths: int) -> float:
    """How long the next actor waits after this many deaths in a row: 0, 0.1, 0.2, 0.4, ... 5."""
    return 0.0 if deaths < 2 else float(min(5.0, 0.1 * 2 ** (deaths - 2)))


class Place:
    """Where one actor works. Owned by the pool; not thread-safe.

    Attributes:
        runs: what the actor has been given and has not answered, by ticket.
        ready: it has said so.
        deaths: in a row, without a run answered in between.
        failed_starts: in a row, before the actor was ready.
        restarts: in all.
    """

    def __init__(self, source: str, slots: int) -> None:
        self.slots = slots
        self.runs: dict[int, Run] = {}
        self.ready = False
        self.deaths = 0
        self.failed_starts = 0
        self.restarts = 0
        self._source = source
        self._dropping: dict[int, float] = {}
        self._process: SpawnProcess
        self._connection: Connection[FromPool, FromActor]
        self._mailbox: Mailbox
        self._start()

    @property
    def pid(self) -> int | None:
        """Of the process, while it lives."""
        return self._process.pid if self._process.is_alive() else None

    @property
    def used(self) -> int:
        """Slots taken."""
        return sum(run.rows for run in self.runs.values())

    @property
    def free(self) -> int:
        """Slots that a Run could take now: none before the actor is ready, or while its mailbox is full."""
        return self.slots - self.used if self.ready and self._mailbox.room else 0

    @property
    def waitables(self) -> list[Connection[FromPool, FromActor] | int]:
        """For ``multiprocessing.connection.wait``: a message came, or the process ended."""
        return [self._connection, self._process.sentinel]

    def give(self, run: Run) -> None:
        """Hand the actor a run. The caller has seen that it is ``free``."""
        self.runs[run.ticket] = run
        self._mailbox.post(run)

    def drop(self, ticket: int) -> None:
        """Take a run back: its slots are free from now on. Nothing more is heard of it."""
        del self.runs[ticket]
        self._dropping[ticket] = time.monotonic() + DROP_SECONDS
        self._mailbox.post(Drop(ticket))

    def hear(self) -> Iterator[Done | Failed]:
        """Answers that have come, each to a run of this place; never waits for one."""
        with contextlib.suppress(EOFError, OSError):  # the process ended: ``dead`` says so
            while self._connection.poll():
                message = self._connection.recv()
                match message:
                    case Ready():
                        self.ready = True
                    case Dropped(ticket):
                        self._dropping.pop(ticket, None)
                    case Done(ticket) | Failed(ticket):
                        self.deaths = 0
                        if self.runs.pop(ticket, None) is not None:
                            yield message

    @property
    def dead(self) -> bool:
        """The process has ended. One that is stuck is ended here."""
        if any(until < time.monotonic() for until in self._dropping.values()):
            self._process.kill()
            self._process.join()
        return not self._process.is_alive()

    def replace(self) -> list[Run]:
        """Bury the dead and start the next one, which waits by itself for as long as ``backoff_seconds`` says.

        Returns:
            The runs that died with it.
        """
        lost = list(self.runs.values())
        self.failed_starts = 0 if self.ready else self.failed_starts + 1
        self._bury()
        self.runs, self._dropping, self.ready = {}, {}, False
        self.deaths += 1
        self.restarts += 1
        self._start()
        return lost

    def stop(self) -> None:
        """Tell the actor to end; ``finish`` sees to it."""
        self._mailbox.post(Stop())

    def finish(self, until: float) -> None:
        """Wait for the end until that moment (``time.monotonic``), then make it."""
        self._process.join(max(0.0, until - time.monotonic()))
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._bury()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=actor.main,
            args=(theirs, self._source, self.slots, backoff_seconds(self.deaths)),
            name="innerloop-actor",
            daemon=True,
        )
        with _bare_child():
            self._process.start()
        theirs.close()  # ours must be the only other end, or the actor's death would not show
        self._mailbox = Mailbox(self._connection, MAILBOX_CAPACITY)

    def _bury(self) -> None:
        self._mailbox.close()
        self._connection.close()
        self._process.close()


@contextlib.contextmanager
def _bare_child() -> Iterator[None]:
    """Children started here compute with one thread each (an actor's matrices are too small to share), and do not
    import the script that runs us, as spawning does otherwise: an actor has no use for it, nor for what it loads.
    """
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    script = sys.modules["__main__"]
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
