"""Evaluations in the background: one at a time, in the order they were asked for, so that live sessions come first.

The store holds the truth (what is queued, how far it is, how it ended); the runner works it off. An evaluation that a
server was stopped or killed in is run again from its beginning, which ends the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator

import structlog

from innerloop_server.adaptation.engine import Engine
from innerloop_server.errors import InnerloopError, PreconditionFailed, Unavailable
from innerloop_server.evaluation.plan import Plan, draw_tasks
from innerloop_server.evaluation.protocol import CHUNK, evaluate, units
from innerloop_server.evaluation.references.catalog import references
from innerloop_server.evaluation.request import EvaluationRequest
from innerloop_server.learners.registry import remembers
from innerloop_server.settings import Limits
from innerloop_server.store.pages import PageRequest
from innerloop_server.store.records import EvaluationRecord, EvaluationState, LearnerRecord
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import Registry

UNFINISHED = (EvaluationState.QUEUED, EvaluationState.RUNNING)

log = structlog.get_logger(__name__)


class EvaluationRunner:
    """Owns the queue and the evaluation that runs. Lives in one event loop."""

    def __init__(
        self, engine: Engine, store: Store, registry: Registry, limits: Limits | None = None, chunk: int = CHUNK
    ) -> None:
        """Args:
        engine: adapts.
        store: keeps.
        registry: where families are looked up.
        limits: ``evaluations_per_owner`` bounds what waits.
        chunk: tasks that are resident together; at most the device's rows.
        """
        self._engine = engine
        self._store = store
        self._registry = registry
        self._limits = limits or Limits()
        self._chunk = chunk
        self._queue: deque[str] = deque()
        self._running: tuple[str, asyncio.Task[None]] | None = None
        self._worker: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._bell = asyncio.Event()
        self._stopped = False

    async def start(self) -> None:
        """Take up what the last server left unfinished, and work from now on."""
        for state in (EvaluationState.RUNNING, EvaluationState.QUEUED):
            self._queue.extend(await asyncio.to_thread(self._left, state))
        self._wanted.set()
        self._worker = asyncio.create_task(self._work(), name="evaluations")

    async def stop(self) -> None:
        """Stop at once; what is unfinished stays so and is taken up by the next start. Followers get ``Unavailable``.
        Idempotent.
        """
        self._stopped = True
        self._ring()
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
            self._worker = None

    async def resolve(self, learner_id: str, revision: int | None) -> tuple[LearnerRecord, int]:
        """The learner, and the number of the revision meant; ``None``: its champion. Anybody may score any learner.

        Raises:
            NotFound: no such learner or revision.
            PreconditionFailed: ``NO_CHAMPION``.
        """
        learner = await asyncio.to_thread(self._store.get_learner, learner_id)
        number = learner.champion if revision is None else revision
        if number is None:
            raise PreconditionFailed(
                f"learner {learner_id} has no champion yet; train it, or name one of its revisions",
                reason="NO_CHAMPION",
                facts={"learner": learner_id},
            )
        await asyncio.to_thread(self._store.get_revision, learner_id, number)
        return learner, number

    async def submit(
        self, learner: LearnerRecord, revision: int, plan: Plan, owner: str = "", request_id: str = ""
    ) -> EvaluationRecord:
        """Queue an evaluation; the same ``request_id`` again gives the one that exists.

        Raises:
            Exhausted: ``EVALUATION_QUOTA``.
        """
        request = EvaluationRequest(learner.spec.family, learner.id, revision, plan)
        record = await asyncio.to_thread(
            self._store.create_evaluation,
            request.to_json(),
            owner,
            units(plan, self._chunk),
            self._limits.evaluations_per_owner,
            request_id,
        )
        if record.state is EvaluationState.QUEUED and record.id not in self._queue:
            self._queue.append(record.id)
            self._wanted.set()
        return record

    async def cancel(self, evaluation_id: str, owner: str | None = None) -> EvaluationRecord:
        """End an evaluation; one that has ended stays as it is. Its states and slots are free when this returns.

        Raises:
            NotFound: there is none, or it is somebody else's.
        """
        try:
            record = await asyncio.to_thread(self._store.cancel_evaluation, evaluation_id, owner)
        except PreconditionFailed:
            return await asyncio.to_thread(self._store.get_evaluation, evaluation_id, owner)
        if self._running is not None and self._running[0] == evaluation_id:
            self._running[1].cancel()
            await asyncio.wait([self._running[1]])
        self._ring()
        return record

    async def follow(self, evaluation_id: str, owner: str | None = None) -> AsyncGenerator[EvaluationRecord, None]:
        """The record now, and again whenever it has changed, until it has ended. A slow reader skips states.

        Raises:
            NotFound: there is none, or it is somebody else's.
            Unavailable: the server stops; follow again when it is back.
        """
        last: EvaluationRecord | None = None
        while True:
            bell = self._bell  # taken before the look, so that no change is missed
            record = await asyncio.to_thread(self._store.get_evaluation, evaluation_id, owner)
            if record != last:
                yield record
            if record.state not in UNFINISHED:
                return
            if self._stopped:
                raise Unavailable("the server is stopping; the evaluation goes on when it is back")
            last = record
            await bell.wait()

    # ------------------------------------------------------------------------------------------------------------

    def _left(self, state: EvaluationState) -> list[str]:
        """Ids of everybody's evaluations in a state, the oldest first."""
        found: list[str] = []
        token = ""
        while True:
            page = self._store.list_evaluations(page=PageRequest(token=token), state=state)
            found += [record.id for record in page.items]
            token = page.next_token
            if not token:
                return found[::-1]

    async def _work(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._queue:
                evaluation_id = self._queue.popleft()
                task = asyncio.create_task(self._run(evaluation_id))
                self._running = evaluation_id, task
                try:
                    await asyncio.wait([task])
                finally:
                    # Where the runner is stopped, nothing stays resident behind it.
                    task.cancel()
                    await asyncio.wait([task])
                    self._running = None
                if not task.cancelled() and (error := task.exception()) is not None:
                    log.error("evaluation_lost", evaluation=evaluation_id, exc_info=error)
                self._ring()

    async def _run(self, evaluation_id: str) -> None:
        """Run one evaluation to its end, whatever that is."""
        record = await asyncio.to_thread(self._store.get_evaluation, evaluation_id)
        if record.state not in UNFINISHED:
            return  # cancelled while it waited
        log.info("evaluation_started", evaluation=evaluation_id)
        try:
            await self._evaluate(record)
        except InnerloopError as error:
            if error.reason == "EVALUATION_ENDED":
                return  # cancelled while it ran
            log.warning("evaluation_failed", evaluation=evaluation_id, reason=error.reason, error=error.message)
            await asyncio.to_thread(self._store.fail_evaluation, evaluation_id, error.message)
        except Exception as error:
            log.error("evaluation_failed", evaluation=evaluation_id, exc_info=error)
            await asyncio.to_thread(self._store.fail_evaluation, evaluation_id, "the server failed; its log says how")
        else:
            log.info("evaluation_done", evaluation=evaluation_id)

    async def _evaluate(self, record: EvaluationRecord) -> None:
        request = EvaluationRequest.from_json(record.request)
        family = self._registry.get(request.family)
        revision = await asyncio.to_thread(request.ref, self._store)
        tasks = await asyncio.to_thread(draw_tasks, family, request.plan)

        async def progress(done: int, total: int) -> None:
            await asyncio.to_thread(self._store.progress_evaluation, record.id, done, total)
            self._ring()

        await progress(0, units(request.plan, self._chunk))
        result = await evaluate(
            self._engine,
            request.plan,
            tasks,
            revision,
            progress,
            trial_episodes=family.episodes_per_trial if remembers(revision.spec) else 0,
            chunk=self._chunk,
        )
        against = await asyncio.to_thread(references, family)
        # The last k first: lists of scores are read newest first, and then k ascends within an evaluation.
        scores = [request.record(record.id, score, against) for score in reversed(result.scores)]
        await asyncio.to_thread(self._store.finish_evaluation, record.id, scores)

    def _ring(self) -> None:
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()
