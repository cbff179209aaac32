"""What the rows of a client's environments remember, between its messages. Owned by the session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from innerloop.arrays import Array
from innerloop.policy import LAST_REWARD, LAST_TERMINATED, LAST_TRUNCATED
from innerloop_server.adaptation.messages import Observe
from innerloop_server.adaptation.orders import KeptRows, Rows
from innerloop_server.errors import Exhausted

MOST_ROWS = 10_000
"""Rows that a session remembers for."""


class Settled(NamedTuple):
    """What a row remembers where no episode of it is under way."""

    memory: dict[str, Array]
    """[...] each."""
    episodes: int = 0
    """Whole ones that it is of."""


Saved = tuple[Settled | None, bool]


class RowMemory:
    """The memories of one client-owned session, by row; each is a trial of its own until its ``trial_end``.

    A row's memory is *settled* where an episode of it has ended: that is what is made durable, and what an episode that
    is restarted starts from. Within an episode it moves on with every action. A row that remembers as many whole
    episodes as it may is *held*: what it has settled stays, and every further episode starts from there.
    """

    def __init__(self, kept: KeptRows) -> None:
        """Args:
        kept: what the session's last durable step kept.
        """
        self._empty, self._most = kept.empty, kept.most
        self._settled: dict[int, Settled] = {
            int(row): Settled({name: array[i] for name, array in kept.rows.memory.items()}, int(n))
            for i, (row, n) in enumerate(zip(kept.rows.ids, kept.rows.remembered, strict=True))
        }
        self._moved = False
        self._open: dict[int, dict[str, Array]] = {}
        self._acted: set[int] = set()
        """Rows that were given an action whose outcome has not been reported."""

    def report(self, message: Observe) -> None:
        """Take in what the rows did since their last actions.

        Raises:
            Exhausted: there are too many rows.
        """
        known = self._settled.keys() | self._open.keys() | set(message.row_ids)
        if len(known) > MOST_ROWS:
            raise Exhausted(
                f"{len(known)} rows would be remembered for, {MOST_ROWS} may; use ids of rows that are done again",
                reason="ROWS_EXHAUSTED",
                retry_after_seconds=None,
            )
        for i, row in enumerate(message.row_ids):
            if row in self._acted:
                self._acted.discard(row)
                ended = bool(message.terminated[i] or message.truncated[i])
                if ended:
                    after = self._open.pop(row) | {
                        LAST_REWARD: np.asarray(message.rewards[i], np.float32),
                        LAST_TERMINATED: np.asarray(message.terminated[i], np.bool_),
                        LAST_TRUNCATED: np.asarray(message.truncated[i] and not message.terminated[i], np.bool_),
                    }
                    room = self.room(row, 1)
                    self._settle(row, after if room else self._of(row).memory, room)
                elif message.report_only:
                    del self._open[row]  # its episode is forgotten, and with it what it was remembered for
                else:
                    self._open[row] = self._open[row] | {LAST_REWARD: np.asarray(message.rewards[i], np.float32)}
            if message.trial_end is not None and message.trial_end[i]:
                self._open.pop(row, None)
                self._settled[row] = Settled(dict(self._empty))

    def of(self, rows: Sequence[int]) -> dict[str, Array]:
        """What the rows remember before they act: [R, ...] each."""
        each = [self._open.get(row) or self._of(row).memory for row in rows]
        return {name: np.stack([one[name] for one in each]) for name in self._empty}

    def acted(self, rows: Sequence[int], memory: Mapping[str, Array]) -> None:
        """Take in what the rows remember after they acted: [R, ...] each."""
        for i, row in enumerate(rows):
            self._open[row] = {name: array[i] for name, array in memory.items()}
            self._acted.add(row)

    def is_open(self, row: int) -> bool:
        """Whether an episode of the row is under way."""
        return row in self._open

    def room(self, row: int, episodes: int) -> int:
        """How many of so many further whole episodes the row may remember."""
        if self._most is None:
            return episodes
        return max(0, min(episodes, self._most - self._of(row).episodes))

    def settle(self, row: int, memory: Mapping[str, Array], episodes: int) -> None:
        """Take in what a row remembers after so many further whole episodes: [1, ...] each."""
        self._settle(row, {name: array[0] for name, array in memory.items()}, episodes)

    def saved(self, row: int) -> Saved:
        """What :meth:`restore` needs to undo whatever is settled from here on."""
        return self._settled.get(row), self._moved

    def restore(self, row: int, saved: Saved) -> None:
        """Undo what was settled since."""
        settled, self._moved = saved
        if settled is None:
            self._settled.pop(row, None)
        else:
            self._settled[row] = settled

    def _of(self, row: int) -> Settled:
        return self._settled.get(row) or Settled(dict(self._empty))

    def _settle(self, row: int, memory: dict[str, Array], episodes: int) -> None:
        self._settled[row] = Settled(memory, self._of(row).episodes + episodes)
        self._moved |= episodes > 0

    @property
    def held(self) -> bool:
        """No episode since the last step is remembered."""
        return not self._moved

    def stepped(self) -> None:
        """The episodes until now belong to a step that is durable, or to none."""
        self._moved = False

    def drop_open(self) -> None:
        """Forget what open episodes were remembered for: after a lost stream the client restarts them."""
        self._open.clear()
        self._acted.clear()

    def settled(self) -> Rows:
        """What a durable step keeps, ids in order."""
        ids = sorted(self._settled)
        each = [self._settled[row] for row in ids]
        memory = {
            name: np.stack([one.memory[name] for one in each]) if each else np.zeros((0, *like.shape), like.dtype)
            for name, like in self._empty.items()
        }
        return Rows(np.array(ids, np.int64), np.array([one.episodes for one in each], np.int64), memory)
