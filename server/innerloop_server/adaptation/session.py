"""One attached session: what a client says comes in, what it is told goes out, and each step is durable in between."""

from __future__ import annotations

import abc
import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from innerloop.policy import Policy
from innerloop_server import faults
from innerloop_server.adaptation import budget
from innerloop_server.adaptation.engine import Engine
from innerloop_server.adaptation.journal import JournalWriter
from innerloop_server.adaptation.messages import (
    Adapted,
    AdaptedReply,
    ClientMessage,
    EndReason,
    Heartbeat,
    Opened,
    Reply,
    ServerMessage,
    StepTaken,
)
from innerloop_server.adaptation.orders import ExportOrder, Stepped
from innerloop_server.adaptation.outbox import Outbox
from innerloop_server.adaptation.sequence import ReplyBook, forgotten
from innerloop_server.adaptation.worth import Worth
from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import PreconditionFailed
from innerloop_server.store.ids import new_id
from innerloop_server.store.records import CommitStep, SessionRecord, StepRecord
from innerloop_server.store.store import Store

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How a session runs; kept with its record."""

    episodes_per_step: int
    guard: bool
    policy_in_steps: bool
    worth: Worth | None = None
    """Of a session with budget ``auto``."""

    @staticmethod
    def of(record: SessionRecord) -> Options:
        """Read from a record."""
        value: Mapping[str, Any] = record.options
        worth = value.get("worth")
        return Options(
            episodes_per_step=int(value["episodes_per_step"]),
            guard=bool(value["guard"]),
            policy_in_steps=bool(value["policy_in_steps"]),
            worth=None if worth is None else Worth.from_json(worth),
        )


class LiveSession(abc.ABC):
    """A session with a stream attached to it. Its state between messages is the record, the books and the outbox.

    ``SimulatedSession`` and ``OwnedSession`` say who runs the episodes.
    """

    def __init__(
        self,
        record: SessionRecord,
        key: int,
        spec: LearnerSpec,
        *,
        engine: Engine,
        store: Store,
        journal: JournalWriter,
        replies: ReplyBook | None = None,
    ) -> None:
        """Args:
        record: as it is on disk; the engine is at the same step, under ``key``.
        key: of the resident state.
        spec: of the learner.
        engine: runs the orders.
        store: keeps the record.
        journal: makes steps durable.
        replies: what was answered on the last stream, where that is kept.
        """
        self.record = record
        self.key = key
        self.spec = spec
        self.options = Options.of(record)
        self._engine = engine
        self._store = store
        self._journal = journal
        self._replies = replies or ReplyBook(max(1, record.last_sequence))
        self._outbox = Outbox()
        self._worker: asyncio.Task[None] | None = None
        self._settling: asyncio.Task[Any] | None = None
        self._caught_up = asyncio.Event()
        self._receiving = asyncio.Lock()
        self._closed = False

    # -- what the two kinds say -----------------------------------------------------------------------------------

    @abc.abstractmethod
    async def _take(self, message: ClientMessage) -> None:
        """Take in a message whose number is the next one."""

    async def _run(self) -> None:
        """What goes on by itself once the client has been told all that it missed."""

    def _learned(self, sequence: int | None, event: StepTaken) -> None:
        """A step has become durable."""

    @property
    def pending(self) -> int:
        """Complete episodes that wait for the next step."""
        return 0

    # -- the stream's side ----------------------------------------------------------------------------------------

    def start(self, sequence: int, last_step: int, policy_file: bytes) -> None:
        """Say ``opened``, say the steps after ``last_step`` again, and go on.

        Args:
            sequence: 1 for ``open``, 0 for ``resume``.
            last_step: the last one that the client saw.
            policy_file: of the present state.
        """
        self._worker = asyncio.get_running_loop().create_task(self._work(sequence, last_step, policy_file))

    async def messages(self, heartbeat_seconds: float) -> AsyncIterator[ServerMessage]:
        """What the client is to be told, until the session ends or leaves the stream.

        Raises:
            InnerloopError: whatever ended the stream.
        """
        while True:
            try:
                message = await self._outbox.get(heartbeat_seconds)
            except TimeoutError:
                yield Heartbeat(self.record.expires_at)
                continue
            if message is None:
                return
            faults.point("answer.before")
            yield message
            faults.point("answer.after")

    async def receive(self, message: ClientMessage) -> None:
        """Take in one client message, in order; its replies go to the outbox.

        Raises:
            InnerloopError: the message cannot be; the session goes on, the stream ends.
        """
        await self._caught_up.wait()
        async with self._receiving:
            if self._closed:  # another stream has the session by now, and its books
                raise PreconditionFailed("another stream resumed this session", reason="TAKEN_OVER")
            await self._receive(message)

    async def _receive(self, message: ClientMessage) -> None:
        if not self._replies.admit(message.sequence):
            await self._repeat(message.sequence)
        else:
            await self._take(message)

    def fail(self, error: BaseException) -> None:
        """End the stream with an error; the session itself stays."""
        self._outbox.fail(error)

    def announce(self, message: ServerMessage) -> None:
        """Say something unasked, however far behind the client is."""
        self._outbox.add(message)

    def renewed(self, now: float) -> None:
        """The lease was renewed on disk at ``now``."""
        self.record = replace(self.record, expires_at=now + self.record.lease_seconds)

    async def close(self) -> None:
        """Let go: free the device row and actor slots at once, then wait for a step that is being made durable."""
        self._closed = True
        self._engine.detach(self.key)
        self._outbox.end()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
        if self._settling is not None and not self._settling.done():
            await asyncio.wait([self._settling])
        self._caught_up.set()
        async with self._receiving:  # a message that is half taken in ends first: what is parked changes no more
            pass

    # -- work -----------------------------------------------------------------------------------------------------

    async def _work(self, sequence: int, last_step: int, policy_file: bytes) -> None:
        try:
            await self._outbox.put(
                Opened(
                    sequence=sequence,
                    record=self.record,
                    next_sequence=self._replies.next,
                    episodes_pending=self.pending,
                    policy_file=policy_file if self.options.policy_in_steps else b"",
                )
            )
            last = await self._say_again(last_step)
            # A budget that was reached before the server went down is found here again; no message may come between.
            if self.record.step and (reason := self._reached(last)) is not None:
                await self._finish(reason, 0, [])
                return
            self._caught_up.set()
            await self._run()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._outbox.fail(error)

    async def _say_again(self, last_step: int) -> StepTaken | None:
        """Send the durable steps after ``last_step`` again; the last durable step of all, if there is one."""
        steps = await asyncio.to_thread(
            self._store.steps_after, self.record.id, min(last_step, max(0, self.record.step - 1))
        )
        events = [StepTaken.from_bytes(step.reply) for step in steps]
        for event in events:
            if event.number > last_step:
                await self._outbox.put(event)
        return events[-1] if events else None

    async def _settle(self, stepped: Stepped, sequence: int | None) -> StepTaken:
        """Make a step durable, and only then part of the session. Never interrupted half-way (see :meth:`close`)."""
        event = self._told(stepped, sequence or 0)
        commit = CommitStep(
            StepRecord(self.record.id, stepped.number, event.to_bytes(), sequence),
            stepped.snapshot,
            episodes=event.total_episodes,
            seconds=event.total_seconds,
        )
        if not await self._journal.commit(commit):
            raise _session_ended(self.record.id)
        self.record = replace(
            self.record,
            step=stepped.number,
            episodes=event.total_episodes,
            seconds=event.total_seconds,
            last_sequence=sequence or self.record.last_sequence,
        )
        self._learned(sequence, event)
        return event

    def _told(self, stepped: Stepped, sequence: int) -> StepTaken:
        """What the client is told of a step that is not durable yet."""
        event = StepTaken.of(stepped, self.record, sequence)
        worth = self.options.worth
        return replace(
            event,
            end_reason=self._reached(event, after=stepped) or "",
            expected_gain=None if worth is None else worth.expected_gain(stepped.number),
        )

    async def _finish(self, reason: EndReason, sequence: int, replies: list[Reply]) -> None:
        exported = await self._engine.export(ExportOrder(self.key))
        faults.point("finish.before")
        adapted = await self._shielded(self._keep_policy(exported.policy, reason, sequence))
        faults.point("finish.after")
        if sequence:
            self._replies.answer(sequence, [*replies, adapted], durable=True)
        await self._outbox.put(adapted)
        self._outbox.end()

    async def _keep_policy(self, policy: bytes, reason: EndReason, sequence: int) -> Adapted:
        reply = AdaptedReply(sequence, new_id("p"), reason, self.record.step)
        header = json.loads(Policy.from_bytes(policy).header.to_json())
        self.record, kept = await asyncio.to_thread(
            self._store.finish_session,
            self.record.id,
            policy_id=reply.policy_id,
            policy=policy,
            header=header,
            reply=reply.to_bytes(),
            sequence=sequence or None,
            reason=reason,
        )
        return Adapted(sequence, kept, reason, self.record.step)

    async def _repeat(self, sequence: int) -> None:
        """Answer a repeated message as it was answered before."""
        replies = self._replies.replies(sequence)
        if replies is None:
            stored = await asyncio.to_thread(self._store.reply_for_sequence, self.record.id, sequence)
            if stored is None:
                raise forgotten(sequence)
            replies = (StepTaken.from_bytes(stored),)
        for reply in replies:
            await self._outbox.put(reply)

    def _reached(self, last: StepTaken | None, after: Stepped | None = None) -> EndReason | None:
        """The bound that is reached at the session's present step, or after one that is not durable yet."""
        mean_return = None
        if last is not None:
            mean_return = last.pre_return if last.post_return is None else last.post_return
        return budget.reached(
            self.record.budget,
            steps=after.number if after else self.record.step,
            episodes=last.total_episodes if after and last else self.record.episodes,
            seconds=last.total_seconds if after and last else self.record.seconds,
            mean_return=mean_return,
            worth=None if self.options.worth is None else self.options.worth.steps,
        )

    async def _shielded(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to its end even if the stream goes away meanwhile; :meth:`close` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._settling = task
        return await asyncio.shield(task)


def _session_ended(session_id: str) -> PreconditionFailed:
    return PreconditionFailed(
        f"session {session_id} was cancelled or has expired", reason="SESSION_ENDED", facts={"session": session_id}
    )
