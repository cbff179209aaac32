"""The way to an actor: bounded, and never in the owner's way."""

from __future__ import annotations

import contextlib
import queue
import threading
from multiprocessing.connection import Connection
from typing import Any

from innerloop_server.actors.messages import FromPool

STOP_WRITING = None


class Mailbox:
    """Messages on their way to one actor.

    A pipe takes some tens of kilobytes and then makes the writer wait, so writing is a thread's business: the owner
    goes on while the actor is busy, stopped or dead. What waits here is bounded by ``room``, which the owner asks
    before it posts a Run; a Drop always goes in, and there is at most one for every Run.
    """

    def __init__(self, connection: Connection[FromPool, Any], capacity: int) -> None:
        self._connection = connection
        self._capacity = capacity
        self._waiting: queue.SimpleQueue[FromPool | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="actor-mailbox", daemon=True)
        self._writer.start()

    @property
    def room(self) -> bool:
        """Another Run may be posted."""
        return self._waiting.qsize() < self._capacity

    def post(self, message: FromPool) -> None:
        """Send, without waiting. A message to a dead actor is lost: its supervisor knows what it had."""
        self._waiting.put(message)

    def close(self) -> None:
        """Write no more. The actor has ended, so that a writer in the middle of a message finds out too."""
        self._waiting.put(STOP_WRITING)
        self._writer.join()

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # the actor died
            while (message := self._waiting.get()) is not STOP_WRITING:
                self._connection.send(message)
