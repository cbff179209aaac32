"""A session whose client steps its own environments: episodes come in, actions or steps go out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from innerloop.arrays import Array, Arrays
from innerloop_server import faults
from innerloop_server.adaptation.episodes import Episode, EpisodeBook, stack
from innerloop_server.adaptation.messages import (
    Accepted,
    Actions,
    Advance,
    ClientMessage,
    EndReason,
    Observe,
    Reply,
    StepTaken,
    Trajectories,
)
from innerloop_server.adaptation.orders import ActOrder, AdaptOrder, KeepOrder, KeptRows, ReplayOrder, Stepped
from innerloop_server.adaptation.row_memory import RowMemory
from innerloop_server.adaptation.sequence import ReplyBook
from innerloop_server.adaptation.session import LiveSession
from innerloop_server.errors import PreconditionFailed, StaleStep

_SHOWN = 0
"""The row that whole episodes are shown to."""


@dataclass(frozen=True)
class Parked:
    """What a client-owned session keeps in memory while nobody is attached to it."""

    episodes: EpisodeBook
    replies: ReplyBook
    rows: RowMemory | None = None


class OwnedSession(LiveSession):
    """Adapts on what its client reports."""

    def __init__(self, *args: Any, parked: Parked | None = None, kept: KeptRows | None = None, **kwargs: Any) -> None:
        """Args:
        *args: as :class:`LiveSession`.
        parked: what the session kept from its last stream.
        kept: of a method that remembers: what the last durable step kept.
        **kwargs: as :class:`LiveSession`.
        """
        super().__init__(*args, replies=parked.replies if parked else None, **kwargs)
        fresh = EpisodeBook(self.spec.horizon, supervised=self.spec.supervision is not None)
        self._episodes = parked.episodes if parked else fresh
        self._rows = parked.rows if parked else RowMemory(kept) if kept else None

    @property
    def pending(self) -> int:
        """Complete episodes that wait for the next step."""
        return self._episodes.pending

    def park(self) -> Parked:
        """What to keep for the next stream, once this one is closed. Open episodes are dropped: the client restarts
        them.
        """
        self._episodes.drop_open()
        if self._rows is not None:
            self._rows.drop_open()
        return Parked(self._episodes, self._replies, self._rows)

    async def _take(self, message: ClientMessage) -> None:
        if isinstance(message, Observe):
            await self._observe(message)
        elif isinstance(message, Trajectories):
            await self._take_trajectories(message)
        elif isinstance(message, Advance):
            await self._advance(message)
        else:
            await self._finish(EndReason.FINISHED, message.sequence, [])

    async def _observe(self, message: Observe) -> None:
        self._check_lag(message.step)
        faults.point("observe")
        self._episodes.report(message)
        if self._rows is not None:
            self._rows.report(message)
        replies: list[Reply] = []
        wanted = self.options.episodes_per_step
        if wanted and self._episodes.pending >= wanted:
            replies.append(await self._adapt(message.sequence))
            if await self._ended(message.sequence, replies):
                return
        if message.report_only:
            replies.append(Accepted(message.sequence, self._episodes.pending))
        else:
            remembered = {} if self._rows is None else self._rows.of(message.row_ids)
            acted = await self._engine.act(ActOrder(self.key, message.observations, (message.sequence,), remembered))
            faults.point("acted")
            self._episodes.acted(message, acted)
            if self._rows is not None:
                self._rows.acted(message.row_ids, acted.memory)
                acted = replace(acted, memory={}, entropies=None)
            replies.append(Actions(message.sequence, self.record.step, message.row_ids, acted))
        self._replies.answer(message.sequence, replies, durable=len(replies) > 1)
        await self._outbox.put(replies[-1])

    async def _take_trajectories(self, message: Trajectories) -> None:
        self._check_lag(message.step, exact=message.log_probs is None)
        faults.point("experience")
        if self._rows is not None:
            await self._show(message, self._rows)
            return
        before = self._episodes.pending
        self._episodes.add(message)
        wanted = self.options.episodes_per_step
        if wanted and self._episodes.pending >= wanted:
            try:
                replies: list[Reply] = [await self._adapt(message.sequence)]
            except BaseException:
                if self._replies.next == message.sequence:  # unanswered: it is sent again, and must not count twice
                    self._episodes.keep(before)
                raise
            await self._ended(message.sequence, replies)
            return
        accepted = Accepted(message.sequence, self._episodes.pending)
        self._replies.answer(message.sequence, [accepted], durable=False)
        await self._outbox.put(accepted)

    async def _show(self, message: Trajectories, rows: RowMemory) -> None:
        """Show row 0 whole episodes, and make what it then remembers durable: their step. Those that it may not
        remember are shown one by one, each as the first that it does not.
        """
        if rows.is_open(_SHOWN):
            raise PreconditionFailed(
                f"row {_SHOWN} is in the middle of an episode, end it with observe before you send whole ones",
                reason="ROW_OPEN",
            )
        pending, saved, episodes = self._episodes.pending, rows.saved(_SHOWN), len(message.rewards)
        memory: Arrays = rows.of((_SHOWN,))
        room = rows.room(_SHOWN, episodes)
        self._episodes.add(message)
        try:
            entropies: list[Array] = []
            if room:
                shown = await self._engine.replay(_replay(self.key, memory, message, slice(room)))
                memory = shown.memory
                entropies.append(shown.entropies)
            for i in range(room, episodes):
                shown = await self._engine.replay(_replay(self.key, memory, message, slice(i, i + 1)))
                entropies.append(shown.entropies)
            rows.settle(_SHOWN, memory, room)
            self._episodes.note_entropies(np.concatenate(entropies))
            replies: list[Reply] = [await self._adapt(message.sequence)]
        except BaseException:
            if self._replies.next == message.sequence:  # unanswered: it is sent again, and must not count twice
                self._episodes.keep(pending)
                rows.restore(_SHOWN, saved)
            raise
        await self._ended(message.sequence, replies)

    async def _advance(self, message: Advance) -> None:
        if not self._episodes.pending:
            raise PreconditionFailed(
                "there is no complete episode since the last step; report some, then advance", reason="NO_EPISODES"
            )
        replies: list[Reply] = [await self._adapt(message.sequence)]
        await self._ended(message.sequence, replies)

    async def _adapt(self, sequence: int) -> StepTaken:
        """Adapt on the complete episodes, durably, and say so."""
        episodes = self._episodes.complete()
        faults.point("adapt.before")
        try:
            stepped = await self._step(episodes)
        except PreconditionFailed as error:
            if error.reason == "DIVERGED":  # these would spoil every step to come
                self._episodes.drop(len(episodes))
                if self._rows is not None:
                    self._rows.stepped()
            raise
        faults.point("adapt.after")
        event = await self._shielded(self._settle(stepped, sequence))
        await self._outbox.put(event)
        return event

    async def _step(self, episodes: Sequence[Episode]) -> Stepped:
        """Learn from the episodes; or, where the rows have done so as they played, keep what they remember."""
        number, policy = self.record.step + 1, self.options.policy_in_steps
        if self._rows is not None:
            returns = np.array([episode.total_reward for episode in episodes])
            lengths = [len(episode.rewards) for episode in episodes]
            entropy = float(np.average([episode.entropy for episode in episodes], weights=lengths))
            rows, held = self._rows.settled(), self._rows.held
            return await self._engine.keep(KeepOrder(self.key, number, rows, returns, entropy, held, policy))
        experience, returns = await asyncio.to_thread(stack, episodes)
        return await self._engine.adapt(AdaptOrder(self.key, number, experience, returns, policy=policy))

    async def _ended(self, sequence: int, replies: list[Reply]) -> bool:
        """Finish if a bound is reached by the step in ``replies``."""
        step = replies[-1]
        reason = self._reached(step if isinstance(step, StepTaken) else None)
        if reason is not None:
            await self._finish(reason, sequence, replies)
        return reason is not None

    def _learned(self, sequence: int | None, event: StepTaken) -> None:
        self._episodes.drop(event.episodes)
        if self._rows is not None:
            self._rows.stepped()
        if sequence is not None:
            self._replies.answer(sequence, [event], durable=True)

    def _check_lag(self, step: int, *, exact: bool = False) -> None:
        lag = self.record.step - step
        # An answer is right whoever predicted, and a row remembers whatever the others have done.
        free = self.spec.supervision is not None or self._rows is not None
        allowed = math.inf if free else 0 if exact else 1
        if lag < 0 or lag > allowed:
            raise StaleStep(step, self.record.step)


def _replay(key: int, memory: Arrays, message: Trajectories, which: slice) -> ReplayOrder:
    """The order to show a row some of a message's episodes."""
    parts = (message.observations, message.raw_actions, message.rewards, message.lengths, message.truncated)
    return ReplayOrder(key, memory, *(array[which] for array in parts))
