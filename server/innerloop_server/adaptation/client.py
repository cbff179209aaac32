"""The gateway's end of the engine's pipe: starts the process, batches requests, hands out answers, restarts it."""

from __future__ import annotations

import asyncio
import multiprocessing
import queue
import threading
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import structlog

from innerloop_server.adaptation import process
from innerloop_server.adaptation.orders import Occupancy, Request
from innerloop_server.adaptation.process import AskOccupancy, CannotStart, EngineSettings, Started
from innerloop_server.adaptation.waiting import WaitingEngine
from innerloop_server.errors import PreconditionFailed, Unavailable

RESTART_SECONDS = (0.1, 0.5, 2.0, 5.0)
"""Pauses before the first, second, ... restart in a row; the last repeats."""
STOP_SECONDS = 5.0

log = structlog.get_logger()


class EngineClient(WaitingEngine):
    """The engine in a process of its own. Everything but the two pipe threads runs on the event loop.

    What is asked for in one iteration of the loop goes over the pipe as one message, so that sessions that were
    answered together come to the next batch together.
    """

    def __init__(self, settings: EngineSettings, on_lost: Callable[[], None] = lambda: None) -> None:
        """Args:
        settings: what to start it with.
        on_lost: called on the loop when the process has died; every key is gone then.
        """
        super().__init__()
        self._settings = settings
        self._on_lost = on_lost
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outbox: list[Request | AskOccupancy] = []
        self._asked: deque[asyncio.Future[Occupancy]] = deque()
        self._ready = asyncio.Event()
        self._link: _Link | None = None
        self._deaths = 0
        self._closing = False
        self._refusal = ""
        self.device = ""
        """The device that the engine took; empty before it is ready."""

    async def start(self) -> None:
        """Start the process and wait until it serves.

        Raises:
            PreconditionFailed: ``NO_DEVICE``; the device that was asked for is not there.
        """
        self._loop = asyncio.get_running_loop()
        self._spawn()
        await self._ready.wait()
        if self._refusal:
            raise PreconditionFailed(self._refusal, reason="NO_DEVICE")

    async def close(self) -> None:
        """Stop the process. Idempotent. Whoever waits gets ``Unavailable``."""
        self._closing = True
        if self._link is not None:
            link, self._link = self._link, None
            await asyncio.to_thread(link.close)
        self._fail_everybody()

    @property
    def pid(self) -> int | None:
        """Of the process, while it lives."""
        return self._link.process.pid if self._link is not None else None

    async def occupancy(self) -> Occupancy:
        """What the engine holds."""
        future: asyncio.Future[Occupancy] = asyncio.get_running_loop().create_future()
        self._asked.append(future)
        self._enqueue(AskOccupancy())
        return await future

    def _send(self, request: Request) -> None:
        self._enqueue(request)

    def _enqueue(self, request: Request | AskOccupancy) -> None:
        if self._link is None or self._loop is None:
            # Nothing is queued for an engine that is not there: the caller's session is durable and resumes.
            asyncio.get_running_loop().call_soon(self._fail_everybody)
            return
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(request)

    def _flush(self) -> None:
        batch, self._outbox = self._outbox, []
        if batch and self._link is not None:
            self._link.outgoing.put(batch)

    def _spawn(self) -> None:
        assert self._loop is not None
        loop = self._loop

        def on_messages(link: _Link, messages: list[Any]) -> None:
            loop.call_soon_threadsafe(self._on_messages, link, messages)

        def on_end(link: _Link) -> None:
            loop.call_soon_threadsafe(self._on_end, link)

        self._link = _Link(self._settings, on_messages, on_end)

    def _on_messages(self, link: _Link, messages: list[Any]) -> None:
        if link is not self._link:
            return
        for message in messages:
            if isinstance(message, Started):
                self.device = message.device
                self._deaths = 0
                self._ready.set()
            elif isinstance(message, CannotStart):
                self._refusal = message.message
                self._ready.set()
            elif isinstance(message, Occupancy):
                if self._asked:
                    future = self._asked.popleft()
                    if not future.done():
                        future.set_result(message)
            else:
                self._answered(message)

    def _on_end(self, link: _Link) -> None:
        if link is not self._link or self._closing or self._refusal:
            return
        self._link = None
        self._ready.clear()
        log.warning("engine died", exitcode=link.process.exitcode)
        self._fail_everybody()
        self._on_lost()
        assert self._loop is not None
        pause = RESTART_SECONDS[min(self._deaths, len(RESTART_SECONDS) - 1)]
        self._deaths += 1
        self._loop.call_later(pause, self._respawn)

    def _respawn(self) -> None:
        if not self._closing and self._link is None:
            self._spawn()

    def _fail_everybody(self) -> None:
        self._outbox.clear()
        asked, self._asked = self._asked, deque()
        for future in asked:
            if not future.done():
                future.set_exception(Unavailable("the engine is restarting; try again"))
        self._lost(lambda: Unavailable("the engine is restarting; resume the session"))


class _Link:
    """One life of the process: its pipe, and a thread for each direction."""

    def __init__(
        self,
        settings: EngineSettings,
        on_messages: Callable[[_Link, list[Any]], None],
        on_end: Callable[[_Link], None],
    ) -> None:
        context = multiprocessing.get_context("spawn")  # forking after gRPC has started deadlocks (grpc#22624)
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=process.main, args=(theirs, settings), name="innerloop-engine")
        self.process.start()
        theirs.close()
        self.outgoing: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        self._on_messages = on_messages
        self._on_end = on_end
        self._threads = [
            threading.Thread(target=self._read, name="engine-reader", daemon=True),
            threading.Thread(target=self._write, name="engine-writer", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the process; blocks until it is gone."""
        self.outgoing.put(None)
        self._threads[1].join(STOP_SECONDS)
        self._shut(self._connection)
        self.process.join(STOP_SECONDS)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        self._threads[0].join(STOP_SECONDS)  # it still tells the loop that this is the end, so the loop must be there

    def _read(self) -> None:
        try:
            while True:
                self._on_messages(self, self._connection.recv())
        except (EOFError, OSError):
            pass  # the process is gone
        except Exception:
            log.exception("the engine's answers cannot be read")
            self.process.kill()  # nobody would be answered: better a new one
        self.process.join(STOP_SECONDS)
        self.outgoing.put(None)
        self._on_end(self)

    def _write(self) -> None:
        try:
            while (batch := self.outgoing.get()) is not None:
                self._connection.send(batch)
        except OSError:
            return  # the reader notices the end
        except Exception:  # out of memory, say: a pipe with half a message in it is of no use
            log.exception("the engine cannot be written to")
            self.process.kill()

    @staticmethod
    def _shut(connection: Connection[Any, Any]) -> None:
        """Close in a way that wakes the thread that reads."""
        import socket

        with socket.socket(fileno=connection.fileno()) as pipe:
            pipe.shutdown(socket.SHUT_RDWR)
            pipe.detach()
