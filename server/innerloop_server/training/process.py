"""One trainer process, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, Self

from innerloop_server.actors.supervision import THREAD_VARIABLES
from innerloop_server.training.messages import Message, decode
from innerloop_server.training.run import RunFolder

MODULE = "innerloop_server.training"


class Trainer(Protocol):
    """A trainer at work."""

    @property
    def pid(self) -> int:
        """Of its process."""
        ...

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; ``None`` while it runs."""
        ...

    def messages(self) -> AsyncIterator[Message]:
        """What it says, until it has ended."""
        ...

    def pause(self) -> None:
        """Ask it to write a checkpoint after the present update, and end."""
        ...

    async def kill(self) -> None:
        """End it now; what it did since its last checkpoint is done again later. Fine if it has ended."""
        ...


Launch = Callable[[RunFolder], Awaitable[Trainer]]
"""Starts a trainer on a run; it goes on from the last checkpoint."""


class TrainerProcess:
    """A running trainer. It ends by itself, when told to, or when this process is gone: it holds our pipe."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, folder: RunFolder) -> Self:
        """Start a trainer on a run; it goes on from the last checkpoint.

        Raises:
            OSError: no process could be made.
        """
        with folder.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", MODULE, "run", "--run", str(folder.path), "--supervised"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")},
            )
        return cls(process)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; ``None`` while it runs."""
        return self._process.returncode

    async def messages(self) -> AsyncIterator[Message]:
        """What the trainer says, until it has ended."""
        assert self._process.stdout is not None  # we asked for a pipe
        async for line in self._process.stdout:
            yield decode(line)
        await self._process.wait()

    def pause(self) -> None:
        """Ask it to write a checkpoint after the present update, and end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    async def kill(self) -> None:
        """End it now; what it did since its last checkpoint is done again later. Fine if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
