"""One row of one run that plays a trial: episode after episode on one task, and a memory that all of them share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from innerloop.arrays import Array, Arrays
from innerloop_server.actors.acting import Decision
from innerloop_server.actors.environments import EnvironmentCache
from innerloop_server.actors.episodes import Episodes
from innerloop_server.actors.messages import Run
from innerloop_server.actors.rows import stack_in_time


class Trial:
    """Stands where :class:`Episodes` stands, and is one of them at a time: each episode starts from the memory that the
    one before ended with. Episode ``i`` draws from the streams that row ``i`` of an order without ``trial`` would.

    Raises:
        RowsError: as :class:`Episodes` does.
    """

    def __init__(self, run: Run, cache: EnvironmentCache) -> None:
        """Args:
            run: the one row of an order with ``trial``.
            cache: where the environment comes from and goes back to.

        Raises:
            RowsError: weights or memory are not those that the header calls for.
        """
        self.run = run
        self._cache = cache
        self._over: list[Arrays] = []
        self._episode = self._begin(run.order.memory)

    @property
    def weights(self) -> Arrays:
        """As of :class:`Episodes`."""
        return self._episode.weights

    @property
    def memory(self) -> Arrays:
        """[1, ...] each: what the row remembers."""
        return self._episode.memory

    @property
    def remembered(self) -> Arrays:
        """As of :class:`Episodes`."""
        return self._episode.remembered

    @property
    def started(self) -> bool:
        """The episode that is on has been reset."""
        return self._episode.started

    @property
    def finished(self) -> bool:
        """The last episode has ended."""
        return self._episode.finished

    @property
    def observation(self) -> Array:
        """[1, *O]: what the policy sees now."""
        return self._episode.observation

    @property
    def noise(self) -> Array | None:
        """[1, d] for this step; ``None`` when greedy."""
        return self._episode.noise

    def start_row(self) -> None:
        """Start the episode that is on."""
        self._episode.start_row()

    def step(self, decision: Decision) -> None:
        """Step the row with its action; when its episode ends, the next one is on."""
        self._episode.step(decision)
        if self._episode.finished:
            self._over.append(self._episode.arrays())
            if len(self._over) < self.run.order.episodes:
                self._episode.release()
                self._episode = self._begin({name: array[0] for name, array in self._episode.memory.items()})

    def arrays(self) -> Arrays:
        """Fields of ``Experience`` for the episodes, [episodes, ...], time cut where the longest of them ended."""
        return stack_in_time(self._over)

    def release(self) -> None:
        """As of :class:`Episodes`."""
        self._episode.release()

    def discard(self) -> None:
        """As of :class:`Episodes`."""
        self._episode.discard()

    def _begin(self, memory: Arrays) -> Episodes:
        number = len(self._over)
        order = replace(self.run.order, memory={name: np.asarray(array) for name, array in memory.items()})
        return Episodes(Run(self.run.ticket, order, number, number + 1), self._cache)
