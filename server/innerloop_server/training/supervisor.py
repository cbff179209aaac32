"""Trainings in the background of a living server: started, paused, resumed, followed, and restarted when they die.

One trainer process works at a time; the others wait their turn. What is true of a training lies in the store and in
its run's folder, so a server that is killed goes on where it was when it starts again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from innerloop_server.errors import InnerloopError, PreconditionFailed, say
from innerloop_server.store.records import LearnerRecord, TrainingRecord, TrainingState
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import Registry
from innerloop_server.training import candidates
from innerloop_server.training.adoption import adopt
from innerloop_server.training.bells import Bells
from innerloop_server.training.intake import Intake, TrainerSettings
from innerloop_server.training.messages import Checkpointed, Done, Failed, Message, Paused, Revised, Updated
from innerloop_server.training.metrics import MetricsReader, UpdateMetrics
from innerloop_server.training.process import Launch, Trainer, TrainerProcess
from innerloop_server.training.promotion import Validate
from innerloop_server.training.requests import TrainingRequest
from innerloop_server.training.run import RunFolder

MOST_DEATHS = 5
"""A trainer that died this often in a row, without a checkpoint in between, is not started again."""

T = TypeVar("T")

_log = structlog.get_logger()


def backoff_seconds(deaths: int) -> float:
    """How long to wait before the trainer that died so often in a row is started again: 0.5, 1, 2, 4, ... 30."""
    return float(min(30.0, 0.5 * 2 ** (deaths - 1)))


@dataclass
class _Active:
    """The training that has its turn."""

    training_id: str
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    process: Trainer | None = None

    def request_stop(self) -> None:
        self.stop.set()
        if self.process is not None:
            self.process.pause()


class TrainingSupervisor:
    """All trainings of a server. Use it from one event loop: ``await open()``, ..., ``await close()``."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        validate: Validate,
        settings: TrainerSettings | None = None,
        launch: Launch = TrainerProcess.start,
        backoff: Callable[[int], float] = backoff_seconds,
    ) -> None:
        """Args:
        store: where trainings, learners and revisions are kept.
        registry: where families are looked up.
        validate: scores revisions (``promotion.validator`` makes one of an engine).
        settings: how trainers run.
        launch: starts a trainer.
        backoff: seconds to wait after that many deaths in a row.
        """
        self._store = store
        self._validate = validate
        self._intake = Intake(store, registry, settings or TrainerSettings())
        self._launch = launch
        self._backoff = backoff
        self._bells = Bells()
        self._starting = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._queue: dict[str, None] = {}
        self._queued = asyncio.Event()
        self._active: _Active | None = None
        self._worker: asyncio.Task[None] | None = None
        self._closing = False

    # -- life -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Go on with every training that was running when the last server ended, oldest first."""
        running = await asyncio.to_thread(lambda: list(self._intake.all(state=TrainingState.RUNNING)))
        for record in reversed(running):
            self._enqueue(record.id)
        self._worker = asyncio.create_task(self._work())

    async def close(self, grace_seconds: float = 10.0) -> None:
        """Stop the trainer with a checkpoint; if that takes longer than the grace, without one. Idempotent.

        Trainings stay RUNNING in the store: the next server goes on with them. Followers are left to be cancelled.
        """
        self._closing = True
        worker, self._worker = self._worker, None
        if worker is None:
            return
        if self._active is not None and self._active.process is not None:
            self._active.request_stop()
            await asyncio.wait([worker], timeout=grace_seconds)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)

    @property
    def pid(self) -> int | None:
        """Of the trainer process, while there is one."""
        process = self._active.process if self._active else None
        return process.pid if process is not None and process.status is None else None

    # -- what callers ask -----------------------------------------------------------------------------------------

    async def start(
        self, request: TrainingRequest, owner: str, permit: Callable[[LearnerRecord], None] = lambda _: None
    ) -> TrainingRecord:
        """Start a training, and make its learner if there is none.

        Args:
            request: what is asked for; one with the ``request_id`` of an earlier one of the owner gives that training.
            owner: who asks.
            permit: called with the learner where it exists; raises if the owner may not train it.

        Raises:
            NotFound: no such family, or no revision to continue from.
            InvalidField, PreconditionFailed: see ``requests.plan``.
            Exhausted: the owner has too many running.
        """
        return await self._surely(self._start(request, owner, permit))

    async def pause(self, training_id: str) -> TrainingRecord:
        """Stop a training at its next update, with a checkpoint. Returns when it has stopped.

        Raises:
            NotFound: there is none.
            PreconditionFailed: it is done or failed.
        """
        record = await self.get(training_id)
        if record.state in (TrainingState.DONE, TrainingState.FAILED):
            raise PreconditionFailed(
                f"trainings/{training_id} is {record.state}; only a running one can be paused",
                reason="TRAINING_NOT_RUNNING",
            )
        if training_id in self._queue:
            del self._queue[training_id]
            return await self._change(training_id, state=TrainingState.PAUSED)
        if self._active is not None and self._active.training_id == training_id:
            self._active.request_stop()
        while True:
            bell = self._bells.at(training_id)
            record = await self.get(training_id)
            if record.state is not TrainingState.RUNNING:
                return record
            await bell.wait()

    async def resume(self, training_id: str) -> TrainingRecord:
        """Go on with a paused or failed training, from its checkpoint. A running one runs on.

        Raises:
            NotFound: there is none.
            PreconditionFailed: it is done.
        """
        record = await self.get(training_id)
        if record.state is TrainingState.DONE:
            raise PreconditionFailed(
                f"trainings/{training_id} is done; start another with continue_from", reason="TRAINING_DONE"
            )
        if record.state is TrainingState.RUNNING:
            return record
        return await self._surely(self._restart(training_id))

    async def get(self, training_id: str) -> TrainingRecord:
        """A training.

        Raises:
            NotFound: there is none.
        """
        return await asyncio.to_thread(self._store.get_training, training_id)

    async def follow(self, training_id: str, after_update: int = 0) -> AsyncIterator[UpdateMetrics | TrainingRecord]:
        """The training as it is, then every update after ``after_update`` exactly once as it is made, and the training
        again whenever its state or its learner's champion changes; until it is no longer running.

        Metrics come from the run's log on disk, so a slow follower delays nobody and misses nothing.

        Raises:
            NotFound: there is none.
        """
        reader = MetricsReader(
            RunFolder(self._store.training_dir((await self.get(training_id)).id)).metrics, after_update
        )
        said: tuple[object, ...] = ()
        while True:
            bell = self._bells.at(training_id)
            record, champion = await asyncio.to_thread(self._look, training_id)
            news = (record.state, record.error, champion)
            if not said:
                yield record
                said = news
            for metrics in await asyncio.to_thread(lambda: list(reader.read())):
                yield metrics
            if news != said:
                yield record
                said = news
            if record.state is not TrainingState.RUNNING:
                return
            await bell.wait()

    async def promote(self, learner_id: str, number: int) -> LearnerRecord:
        """Make a revision champion by hand.

        Raises:
            NotFound: no such revision.
        """
        record = await asyncio.to_thread(self._store.promote, learner_id, number)
        self._bells.ring_all()
        return record

    async def roll_back(self, learner_id: str) -> LearnerRecord:
        """Make the champion before the present one champion again.

        Raises:
            NotFound: no such learner.
            PreconditionFailed: ``NO_PREVIOUS_CHAMPION``.
        """
        record = await asyncio.to_thread(self._store.roll_back, learner_id)
        self._bells.ring_all()
        return record

    # -- one training after the other -----------------------------------------------------------------------------

    async def _surely(self, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work`` to its end, even if the caller goes away in the middle of it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _start(
        self, request: TrainingRequest, owner: str, permit: Callable[[LearnerRecord], None]
    ) -> TrainingRecord:
        async with self._starting:
            existing = await asyncio.to_thread(self._intake.asked_before, request.request_id, owner)
            if existing is not None:
                return existing
            record = await asyncio.to_thread(self._intake.create, request, owner, permit)
            self._enqueue(record.id)
            return record

    async def _restart(self, training_id: str) -> TrainingRecord:
        record = await self._change(training_id, state=TrainingState.RUNNING, error="")
        self._enqueue(training_id)
        return record

    def _look(self, training_id: str) -> tuple[TrainingRecord, int | None]:
        record = self._store.get_training(training_id)
        return record, self._store.get_learner(record.learner_id).champion

    def _enqueue(self, training_id: str) -> None:
        self._queue[training_id] = None
        self._queued.set()

    async def _work(self) -> None:
        while not self._closing:
            if not self._queue:
                self._queued.clear()
                await self._queued.wait()
                continue
            training_id = next(iter(self._queue))
            del self._queue[training_id]
            self._active = _Active(training_id)
            try:
                await self._run(self._active)
            except Exception as error:  # whatever it is, it is this training's end and not the supervisor's
                _log.exception("training failed", training=training_id)
                with contextlib.suppress(InnerloopError):  # the store does not answer: the next server tries again
                    await self._change(training_id, state=TrainingState.FAILED, error=say(error))
            finally:
                self._active = None

    async def _run(self, active: _Active) -> None:
        """Run a training until it is done, stopped or failed."""
        folder = await asyncio.to_thread(self._intake.lay_out, active.training_id)
        deaths = 0
        while True:
            outcome, progressed = await self._attempt(active, folder)
            if isinstance(outcome, Done):
                await self._change(active.training_id, state=TrainingState.DONE, update_number=outcome.update)
                return
            if isinstance(outcome, Failed):
                await self._change(active.training_id, state=TrainingState.FAILED, error=outcome.message)
                return
            if active.stop.is_set():
                if not self._closing:
                    await self._change(active.training_id, state=TrainingState.PAUSED)
                return
            deaths = 1 if progressed else deaths + 1
            _log.warning("trainer died", training=active.training_id, deaths=deaths)
            if deaths >= MOST_DEATHS:
                error = f"the trainer died {deaths} times in a row; see {folder.log}"
                await self._change(active.training_id, state=TrainingState.FAILED, error=error)
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(active.stop.wait(), self._backoff(deaths))

    async def _attempt(self, active: _Active, folder: RunFolder) -> tuple[Message | None, bool]:
        """Run one trainer process to its end.

        Returns:
            (its last word: Done, Paused, Failed, or ``None`` if it died; whether it wrote a checkpoint).
        """
        if active.stop.is_set():
            return None, False
        process = active.process = await self._launch(folder)
        if active.stop.is_set():
            process.pause()
        last: Message | None = None
        progressed = False
        revised: asyncio.Queue[int | None] = asyncio.Queue()
        adopting = asyncio.create_task(self._adopt_all(active.training_id, folder, revised))
        try:
            async for message in process.messages():
                match message:
                    case Updated():
                        self._bells.ring(active.training_id)
                    case Checkpointed(update):
                        progressed = True
                        await self._change(active.training_id, update_number=update)
                    case Revised(update):
                        revised.put_nowait(update)
                    case Done() | Paused() | Failed():
                        last = message
            active.process = None
            revised.put_nowait(None)
            if not self._closing:  # else the next server's trainer announces them again
                await adopting
        finally:
            adopting.cancel()
            active.process = None
            await process.kill()
        return last, progressed

    async def _adopt_all(self, training_id: str, folder: RunFolder, revised: asyncio.Queue[int | None]) -> None:
        """Take in the candidates one by one, while the trainer goes on."""
        while (update := await revised.get()) is not None:
            candidate = await asyncio.to_thread(candidates.read, folder, update)
            revision = await adopt(self._store, self._validate, await self.get(training_id), candidate)
            _log.info(
                "revision made",
                training=training_id,
                revision=f"learners/{revision.learner_id}/revisions/{revision.number}",
                **revision.manifest["promotion"],
            )
            self._bells.ring_all()

    async def _change(self, training_id: str, **values: Any) -> TrainingRecord:
        record = await asyncio.to_thread(lambda: self._store.update_training(training_id, **values))
        self._bells.ring(training_id)
        return record
