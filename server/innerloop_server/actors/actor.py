"""The actor: a process that holds environments and steps them, looking at its mailbox between steps."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Hashable
from multiprocessing.connection import Connection, wait

from innerloop.arrays import Arrays
from innerloop_server.actors.acting import decide, shape_key, stack
from innerloop_server.actors.environments import EnvironmentCache
from innerloop_server.actors.episodes import Episodes, RowsError
from innerloop_server.actors.messages import Done, Drop, Dropped, Failed, FromActor, FromPool, Ready, Run

PREPARE_SECONDS = 0.005
"""Making and resetting environments may hold up the rows that are running for this long a step (or for one
environment, if that alone takes longer)."""


def main(connection: Connection[FromActor, FromPool], source: str, slots: int, delay_seconds: float) -> None:
    """Entry point of the process.

    Args:
        connection: to the pool.
        source: of families, see ``environments.load_source``.
        slots: environments at most.
        delay_seconds: to wait before being ready (a restart's backoff; so the pool needs no timer).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner, who then stops us
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    time.sleep(delay_seconds)
    cache = EnvironmentCache(source, slots)
    try:
        Actor(connection, cache).serve()
    except (EOFError, OSError):  # the pool is gone: there is nobody to answer
        pass
    finally:
        cache.close()


class Actor:
    """All runs of one process, stepped together."""

    def __init__(self, connection: Connection[FromActor, FromPool], cache: EnvironmentCache) -> None:
        self._connection = connection
        self._cache = cache
        self._runs: dict[int, Episodes] = {}
        self._stacks: dict[Hashable, tuple[tuple[int, ...], Arrays]] = {}

    def serve(self) -> None:
        """Work until told to stop.

        Raises:
            EOFError, OSError: the pool is gone.
        """
        self._connection.send(Ready())
        while self._read():
            self._prepare()
            self._step()

    def _read(self) -> bool:
        """Take in the mailbox, waiting for it when there is nothing else to do. False: stop."""
        while self._connection.poll(0 if self._runs else None):
            match self._connection.recv():
                case Run() as run:
                    try:
                        self._runs[run.ticket] = Episodes(run, self._cache)
                    except RowsError as error:
                        self._connection.send(Failed(run.ticket, str(error)))
                case Drop(ticket):
                    dropped = self._runs.pop(ticket, None)
                    if dropped is not None:
                        dropped.release()
                    self._connection.send(Dropped(ticket))
                case _:
                    return False
        return True

    def _prepare(self) -> None:
        until = time.monotonic() + PREPARE_SECONDS
        for episodes in list(self._runs.values()):
            while not episodes.started:
                try:
                    episodes.start_row()
                except RowsError as error:
                    self._fail(episodes, error)
                    break
                if time.monotonic() > until:
                    return

    def _step(self) -> None:
        """One step of every run that has started."""
        groups: defaultdict[Hashable, list[Episodes]] = defaultdict(list)
        for episodes in self._runs.values():
            if episodes.started:
                groups[shape_key(episodes.run.order.header), episodes.run.order.greedy].append(episodes)
        self._stacks = {key: value for key, value in self._stacks.items() if key in groups}
        for key, group in groups.items():
            noises = [noise for episodes in group if (noise := episodes.noise) is not None]
            decisions = decide(
                group[0].run.order.header,
                self._stacked(key, group),
                [episodes.observation for episodes in group],
                noises or None,
                [episodes.remembered for episodes in group],
            )
            for episodes, decision in zip(group, decisions, strict=True):
                try:
                    episodes.step(decision)
                except RowsError as error:
                    self._fail(episodes, error)
                    continue
                if episodes.finished:
                    del self._runs[episodes.run.ticket]
                    episodes.release()
                    done = Done(episodes.run.ticket, episodes.run.start, episodes.arrays(), episodes.memory)
                    self._connection.send(done)

    def _stacked(self, key: Hashable, group: list[Episodes]) -> Arrays:
        """The group's weights, stacked anew only when somebody came or went."""
        members = tuple(episodes.run.ticket for episodes in group)
        if key not in self._stacks or self._stacks[key][0] != members:
            self._stacks[key] = members, stack([episodes.weights for episodes in group])
        return self._stacks[key][1]

    def _fail(self, episodes: Episodes, error: RowsError) -> None:
        del self._runs[episodes.run.ticket]
        episodes.discard()
        self._connection.send(Failed(episodes.run.ticket, str(error)))


def _exit_with_parent() -> None:
    """End this process when its parent has ended, even while an environment is stuck in a step."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
