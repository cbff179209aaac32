"""The sessions of a server: opens, resumes, lists and ends them. One owner: the gateway's event loop."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from innerloop_server import faults
from innerloop_server.adaptation import budget
from innerloop_server.adaptation.engine import Engine
from innerloop_server.adaptation.guard import MINIMUM_EPISODES
from innerloop_server.adaptation.journal import JournalWriter
from innerloop_server.adaptation.messages import (
    Adapted,
    AdaptedReply,
    Draining,
    EndReason,
    Open,
    Opened,
    ServerMessage,
    StepTaken,
)
from innerloop_server.adaptation.orders import Attach, RevisionRef
from innerloop_server.adaptation.owned import OwnedSession, Parked
from innerloop_server.adaptation.session import LiveSession, Options
from innerloop_server.adaptation.simulated import SimulatedSession
from innerloop_server.adaptation.worth import Curve, Worth, worth
from innerloop_server.domain import LearnerSpec, SessionState, Simulator
from innerloop_server.errors import InvalidField, PreconditionFailed, Unavailable
from innerloop_server.learners import registry as methods
from innerloop_server.learners.registry import remembers
from innerloop_server.settings import Settings
from innerloop_server.store.records import NewSession, SessionRecord
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import Registry

SWEEP_SECONDS = 5.0
"""How often leases are renewed on disk and expired sessions ended."""
COLLECT_SECONDS = 300.0
"""How often what nobody refers to is removed."""
LEASE_SECONDS = (1.0, 7 * 86_400.0)
"""Shortest and longest lease."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Ended:
    """A finished session that a client comes back to: all there is to say, with nothing attached."""

    messages: tuple[ServerMessage, ...]


class SessionHub:
    """All sessions of a server."""

    def __init__(self, engine: Engine, store: Store, registry: Registry, settings: Settings) -> None:
        """Args:
        engine: runs the orders.
        store: keeps the records.
        registry: where families are looked up.
        settings: leases and limits.
        """
        self._engine = engine
        self._store = store
        self._registry = registry
        self._settings = settings
        self._journal = JournalWriter(store)
        self._live: dict[str, LiveSession] = {}
        self._parked: dict[str, Parked] = {}
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._draining = False

    def start(self) -> None:
        """Begin to look after leases."""
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def close(self) -> None:
        """Let go of every session; all stay resumable."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])
        for live in list(self._live.values()):
            live.fail(Unavailable("the server is shutting down; resume the session when it is back"))
            await self.leave(live)

    async def drain(self, remaining_seconds: float) -> None:
        """Take no new sessions, and tell every stream."""
        self._draining = True
        for live in list(self._live.values()):
            live.announce(Draining(remaining_seconds))

    def engine_lost(self) -> None:
        """The engine's process has died: every stream ends, and its client resumes."""
        for live in self._live.values():
            live.fail(Unavailable("the engine is restarting; resume the session"))

    @property
    def attached(self) -> int:
        """Sessions with a stream."""
        return len(self._live)

    def is_attached(self, session_id: str) -> bool:
        """Whether a stream is attached to a session now."""
        return session_id in self._live

    # -- streams --------------------------------------------------------------------------------------------------

    async def open(self, owner: str, message: Open) -> LiveSession | Ended:
        """Open a session, or come back to the one that was opened with the same ``request_id``.

        Raises:
            InvalidField: a field that cannot be.
            NotFound: no such learner or revision.
            PreconditionFailed: the learner has no champion yet.
            Exhausted: a quota, or no room on the device.
            Unavailable: the server is draining, or the engine restarting.
        """
        self._refuse_when_draining()
        if not message.request_id:
            return await self._open(owner, message)
        async with self._lock(f"{owner} {message.request_id}"):  # two at once must not both attach
            return await self._open(owner, message)

    async def _open(self, owner: str, message: Open) -> LiveSession | Ended:
        new, ref = await self._opening(owner, message)
        limit = self._settings.limits.sessions_per_owner
        record, fresh = await asyncio.to_thread(self._store.create_session, new, limit)
        faults.point("open.after")
        if not fresh:
            return await self.resume(owner, record.id, 0, sequence=1)
        async with self._lock(record.id):
            try:
                return await self._attach(record, ref, sequence=1, last_step=0)
            except BaseException:  # the caller's going away too
                if not message.request_id:  # nobody could ever come back to it
                    await asyncio.to_thread(self._store.cancel_session, record.id)
                raise

    async def resume(self, owner: str, session_id: str, last_step: int, sequence: int = 0) -> LiveSession | Ended:
        """Come back to a session; a stream that is still attached to it ends.

        Raises:
            NotFound: there is none, or it is somebody else's.
            InvalidField: ``last_step`` lies after the last durable step.
            PreconditionFailed: it was cancelled, or its lease has ended.
            Exhausted: no room on the device.
            Unavailable: the server is draining, or the engine restarting.
        """
        self._refuse_when_draining()
        record = await asyncio.to_thread(self._store.get_session, session_id, owner)
        if last_step > record.step:  # before the stream that is attached suffers; steps only ever grow
            raise InvalidField("resume.last_step", f"{last_step} is after the last durable step, {record.step}")
        async with self._lock(session_id):
            if (live := self._live.get(session_id)) is not None:
                live.fail(PreconditionFailed("another stream resumed this session", reason="TAKEN_OVER"))
                await self._let_go(live)
            record = await asyncio.to_thread(self._store.get_session, session_id, owner)
            if record.state is SessionState.FINISHED:
                return await self._ended(record, last_step, sequence)
            if record.state is not SessionState.ACTIVE:
                raise PreconditionFailed(
                    f"the session is over: {record.state}", reason="SESSION_ENDED", facts={"state": record.state}
                )
            await asyncio.to_thread(self._store.touch, [session_id])
            record = await asyncio.to_thread(self._store.get_session, session_id, owner)
            ref = await self.revision(record.learner_id, record.revision)
            return await self._attach(record, ref, sequence, last_step)

    async def leave(self, live: LiveSession) -> None:
        """A stream has ended. What its session held is free at once; the session stays."""
        self._engine.detach(live.key)
        async with self._lock(live.record.id):
            if self._live.get(live.record.id) is live:
                await self._let_go(live)

    # -- sessions -------------------------------------------------------------------------------------------------

    async def cancel(self, owner: str, session_id: str) -> SessionRecord:
        """End a session, with all that it held. Nothing happens to one that has ended.

        Raises:
            NotFound: there is none, or it is somebody else's.
        """
        record = await asyncio.to_thread(self._store.get_session, session_id, owner)
        async with self._lock(session_id):
            if (live := self._live.get(session_id)) is not None:
                live.fail(PreconditionFailed("the session was cancelled", reason="SESSION_ENDED"))
                await self._let_go(live)
            self._parked.pop(session_id, None)
            record = await asyncio.to_thread(self._store.get_session, session_id, owner)
            if record.state is not SessionState.ACTIVE:
                return record
            return await asyncio.to_thread(self._store.cancel_session, session_id, owner, EndReason.CANCELLED)

    async def revision(self, learner_id: str, number: int | None) -> RevisionRef:
        """A revision as the engine needs it; ``None``: the champion.

        Raises:
            NotFound: no such learner or revision.
            PreconditionFailed: no revision was promoted yet.
        """
        learner = await asyncio.to_thread(self._store.get_learner, learner_id)
        if number is None:
            number = learner.champion
        if number is None:
            raise PreconditionFailed(
                f"learner {learner_id} has no champion yet; train it, or name one of its revisions",
                reason="NO_CHAMPION",
                facts={"learner": learner_id},
            )
        revision = await asyncio.to_thread(self._store.get_revision, learner_id, number)
        path = self._store.blob_path(revision.blob)
        return RevisionRef(f"learners/{learner_id}/revisions/{number}", revision.blob, str(path), learner.spec)

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _opening(self, owner: str, message: Open) -> tuple[NewSession, RevisionRef]:
        """Check an ``open`` and fill in what it left to the server."""
        ref = await self.revision(message.learner, message.revision)
        spec = ref.spec
        simulated = message.task is not None
        simulator = self._simulator(message, spec)
        budget.check(message.budget, self._settings.limits, simulated=simulated)
        most = self._settings.limits.episodes_per_step
        if not 0 <= message.episodes_per_step <= most:
            raise InvalidField("open.episodes_per_step", f"{message.episodes_per_step} is not in 0 to {most}")
        lease = self._settings.lease_seconds if message.lease_seconds is None else message.lease_seconds
        if not LEASE_SECONDS[0] <= lease <= LEASE_SECONDS[1]:
            raise InvalidField("open.lease", f"{lease} s is not in {LEASE_SECONDS[0]:g} to {LEASE_SECONDS[1]:g} s")
        supervised = spec.supervision is not None
        if supervised and message.guard:
            why = "learns from labelled examples, whose rewards say nothing about others"
            raise InvalidField("open.guard", f"{spec.name} {why}; leave it unset")
        wanted = methods.get(spec.method).guarded and not supervised if message.guard is None else message.guard
        episodes = message.episodes_per_step
        if remembers(spec):
            if episodes > 1:
                raise InvalidField("open.episodes_per_step", f"a step of {spec.name} is one episode; leave it unset")
            episodes = 1
        elif simulated and not episodes:
            episodes = int(spec.settings.get("episodes_per_step", MINIMUM_EPISODES))
            if wanted:  # it needs enough to judge by
                episodes = max(episodes, MINIMUM_EPISODES)
        enough = remembers(spec) or not 0 < episodes < MINIMUM_EPISODES  # what it holds, it does not have to judge
        guard = wanted and (message.guard is True or enough)
        new = NewSession(
            owner=owner,
            learner_id=message.learner,
            revision=int(ref.name.rpartition("/")[2]),
            family=spec.family,
            simulated=simulated,
            task=message.task,
            budget=message.budget,
            seed=secrets.randbits(63) if message.seed is None else message.seed,
            lease_seconds=lease,
            request_id=message.request_id,
            options={
                "simulator": simulator,
                "episodes_per_step": episodes,
                "guard": guard,
                "policy_in_steps": message.policy_in_steps,
                **({"worth": (await self._worth(ref, episodes)).to_json()} if message.budget.auto else {}),
            },
        )
        return new, ref

    async def _worth(self, ref: RevisionRef, episodes_per_step: int) -> Worth:
        """What a session with budget ``auto`` goes by.

        Raises:
            PreconditionFailed: ``NO_CURVE``, nothing is known of what steps bring.
        """
        _, learner, _, number = ref.name.split("/")
        revision = await asyncio.to_thread(self._store.get_revision, learner, int(number))
        curve = Curve.of(revision.manifest)
        if curve is None and not methods.settings_of(ref.spec).inner_steps:
            return Worth(1, ())  # made to be good at once, and the first step is always taken
        if curve is None:
            raise PreconditionFailed(
                f"{ref.name} has no validation curve, by which budget auto would stop; set steps, or take a revision "
                "that was compared with a champion after at least one step",
                reason="NO_CURVE",
                facts={"revision": ref.name},
            )
        free = ref.spec.supervision is not None or remembers(ref.spec)  # their steps cost what the curve's did
        return worth(curve, None if free else episodes_per_step or None)

    def _simulator(self, message: Open, spec: LearnerSpec) -> Simulator | None:
        if message.task is None:
            return None
        if message.task.family != spec.family:
            raise InvalidField(
                "open.task.family", f"{message.task.family} is not {spec.family}, which {spec.name} was trained on"
            )
        simulators = self._registry.get(spec.family).simulators
        simulator = message.simulator or simulators[0]
        if simulator not in simulators:
            raise InvalidField("open.simulator", f"{spec.family} runs on {', '.join(simulators)} only")
        return simulator

    async def _attach(self, record: SessionRecord, ref: RevisionRef, sequence: int, last_step: int) -> LiveSession:
        options = Options.of(record)
        snapshot = await asyncio.to_thread(self._store.state_of, record.id) if record.step else None
        key = self._engine.new_key()
        simulator = record.options["simulator"]
        attached = await self._engine.attach(
            Attach(
                key=key,
                revision=ref,
                seed=record.seed,
                episodes_per_step=options.episodes_per_step,
                guard=options.guard,
                task=record.task,
                simulator=Simulator(simulator) if simulator else None,
                snapshot=snapshot or b"",
                number=record.step,
            )
        )
        live: LiveSession
        if record.simulated:
            live = SimulatedSession(
                record, key, ref.spec, engine=self._engine, store=self._store, journal=self._journal
            )
        else:
            live = OwnedSession(
                record,
                key,
                ref.spec,
                engine=self._engine,
                store=self._store,
                journal=self._journal,
                parked=self._parked.pop(record.id, None),
                kept=attached.kept,
            )
        self._live[record.id] = live
        live.start(sequence, last_step, attached.policy)
        return live

    async def _let_go(self, live: LiveSession) -> None:
        del self._live[live.record.id]
        await live.close()
        if live.record.state is SessionState.ACTIVE:
            if isinstance(live, OwnedSession):
                self._parked[live.record.id] = live.park()
            await asyncio.to_thread(self._store.touch, [live.record.id])

    async def _ended(self, record: SessionRecord, last_step: int, sequence: int) -> Ended:
        steps = await asyncio.to_thread(self._store.steps_after, record.id, last_step)
        reply = await asyncio.to_thread(self._store.final_reply, record.id)
        if reply is None:
            raise PreconditionFailed(
                f"the session finished long ago; its policy is policies/{record.policy_id}", reason="SESSION_ENDED"
            )
        adapted = AdaptedReply.from_bytes(reply)
        policy = await asyncio.to_thread(self._store.get_policy, adapted.policy_id, record.owner)
        return Ended(
            (
                Opened(sequence, record, max(1, record.last_sequence) + 1, 0),
                *(StepTaken.from_bytes(step.reply) for step in steps),
                Adapted(adapted.sequence, policy, EndReason(adapted.end_reason), adapted.step),
            )
        )

    def _refuse_when_draining(self) -> None:
        if self._draining:
            raise Unavailable("the server is shutting down; try again when it is back")

    @asynccontextmanager
    async def _lock(self, session_id: str) -> AsyncIterator[None]:
        """One thing at a time for a session: attaching, letting go, ending."""
        lock, users = self._locks.get(session_id, (asyncio.Lock(), 0))
        self._locks[session_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[session_id]
            if users == 1:
                del self._locks[session_id]
            else:
                self._locks[session_id] = (lock, users - 1)

    async def _sweep(self) -> None:
        """Renew the leases of attached sessions on disk, end expired ones, collect what nobody refers to."""
        collected = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(min([SWEEP_SECONDS, *(live.record.lease_seconds / 3 for live in self._live.values())]))
            try:
                await self._renew()
                for session_id in await asyncio.to_thread(self._store.expire):
                    self._parked.pop(session_id, None)
                    log.info("session expired", session=session_id)
                if asyncio.get_running_loop().time() - collected >= COLLECT_SECONDS:
                    collected = asyncio.get_running_loop().time()
                    await asyncio.to_thread(self._store.collect)
            except Exception:  # whatever it is, leases must go on being looked after
                log.exception("housekeeping failed")

    async def _renew(self) -> None:
        """Renew the leases of attached sessions. A call of its own: while the sweeper sleeps it holds no session."""
        attached = list(self._live.values())
        renewed = await asyncio.to_thread(self._store.touch, [live.record.id for live in attached])
        for live in attached:
            live.renewed(renewed)
