"""What a session has to say, until its stream has said it: bounded, and it can end with an error."""

from __future__ import annotations

import asyncio
from collections import deque

from innerloop_server.adaptation.messages import ServerMessage

CAPACITY = 256
"""Messages that may wait for a slow client; then the session waits, not the server's memory."""


class Outbox:
    """Messages in order, then the end. One producer side, one consumer."""

    def __init__(self) -> None:
        self._messages: deque[ServerMessage] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._ended = False
        self._error: BaseException | None = None

    async def put(self, message: ServerMessage) -> None:
        """Add a message; waits while the client is far behind. After the end it is dropped."""
        while len(self._messages) >= CAPACITY and not self._ended:
            self._room.clear()
            await self._room.wait()
        self.add(message)

    def add(self, message: ServerMessage) -> None:
        """Add a message at once, room or not: for what may not wait for a slow client."""
        if not self._ended:
            self._messages.append(message)
            self._changed.set()

    def end(self) -> None:
        """No more messages come; those that wait are still given out."""
        self._ended = True
        self._changed.set()
        self._room.set()

    def fail(self, error: BaseException) -> None:
        """End with an error, at once: what waits is dropped (it is on disk, or acknowledges nothing)."""
        if not self._ended:
            self._messages.clear()
            self._error = error
            self.end()

    async def get(self, timeout_seconds: float) -> ServerMessage | None:
        """The next message.

        Raises:
            TimeoutError: nothing came in time.
            BaseException: what :meth:`fail` was given.

        Returns:
            The message; ``None`` at the end.
        """
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._changed.clear()
            async with asyncio.timeout(timeout_seconds):
                await self._changed.wait()
        self._room.set()
        return self._messages.popleft()
