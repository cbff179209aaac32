"""Group commit: the steps of many sessions become durable in one transaction, while the event loop goes on."""

from __future__ import annotations

import asyncio

from innerloop_server import faults
from innerloop_server.store.records import CommitStep
from innerloop_server.store.store import Store


class JournalWriter:
    """Collects steps while a commit is under way and commits them together afterwards."""

    def __init__(self, store: Store) -> None:
        """Args:
        store: written from a worker thread, one commit at a time.
        """
        self._store = store
        self._waiting: list[tuple[CommitStep, asyncio.Future[bool]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def commit(self, step: CommitStep) -> bool:
        """Make a step durable.

        Returns:
            True when it is on disk; False when the session is no longer active, so that it was left out.

        Raises:
            Exhausted: ``DISK_FULL``. The step is not durable.
        """
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((step, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write())
        return await done

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                left_out = await asyncio.to_thread(self._commit, [step for step, _ in batch])
            except Exception as error:
                for _, done in batch:
                    if not done.done():
                        done.set_exception(error)
                continue
            for step, done in batch:
                if not done.done():
                    done.set_result(step.step.session_id not in left_out)

    def _commit(self, steps: list[CommitStep]) -> frozenset[str]:
        faults.point("journal.before")
        left_out = self._store.commit(steps)
        faults.point("journal.after")
        return left_out
