"""Trainings small enough for a test: a few updates of a few episodes of navigation-2d."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.domain import Simulator
from innerloop_server.errors import InnerloopError
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import load_registry
from innerloop_server.training.intake import TrainerSettings
from innerloop_server.training.messages import Failed, Message
from innerloop_server.training.metrics import MetricsReader
from innerloop_server.training.process import Launch, TrainerProcess
from innerloop_server.training.promotion import Validate, Validation
from innerloop_server.training.requests import TrainingRequest, plan
from innerloop_server.training.run import RunFolder, RunSettings, Schedule
from innerloop_server.training.supervisor import TrainingSupervisor
from innerloop_server.training.trainer import train

FAMILY = "navigation-2d"
TINY: dict[str, Any] = {
    "hidden_sizes": [4],
    "inner_steps": 1,
    "episodes_per_step": 2,
    "tasks_per_update": 2,
    "epochs": 1,
    "updates": 4,
    "checkpoint_every": 2,
}


def tiny_request(**changes: Any) -> TrainingRequest:
    settings = {**TINY, **changes.pop("settings", {})}
    return replace(TrainingRequest(FAMILY, settings=settings, seed=3), **changes)


def tiny_settings(schedule: Schedule | None = None, **changes: Any) -> RunSettings:
    run = plan(tiny_request(settings=changes), load_registry().get(FAMILY))
    return replace(run, schedule=schedule or run.schedule)


def tiny_run(path: Path, schedule: Schedule | None = None, **changes: Any) -> RunFolder:
    folder = RunFolder(path)
    folder.create(tiny_settings(schedule, **changes))
    return folder


def actors_run(path: Path) -> RunFolder:
    folder = RunFolder(path)
    settings = tiny_settings(updates=2, checkpoint_every=1)
    folder.create(replace(settings, simulator=Simulator.ACTORS, actors=1, actor_slots=8))
    return folder


def logged(folder: RunFolder) -> list[tuple[int, dict[str, float]]]:
    """The metric log, wall-clock columns aside."""
    return [(metrics.update, metrics.reproducible) for metrics in MetricsReader(folder.metrics).read()]


def final_weights(folder: RunFolder) -> bytes:
    """The bytes of the newest candidate's meta-parameters."""
    return (max(folder.revisions.glob("[0-9]*")) / "meta.safetensors").read_bytes()


def newest_checkpoint(folder: RunFolder) -> tuple[str, bytes]:
    path = max(folder.checkpoints.glob("*.safetensors"))
    return path.name, path.read_bytes()


def scripted(scores: Callable[[RevisionRef], float]) -> Validate:
    """Validation that costs nothing and says what a test wants."""

    async def validate(revision: RevisionRef) -> Validation:
        return Validation(np.full(4, scores(revision)), (), {"scripted": True})

    return validate


class ThreadTrainer:
    """The trainer's loop on a thread of this process: the same messages, without the seconds a process takes."""

    pid = 0

    def __init__(self, folder: RunFolder) -> None:
        self._said: asyncio.Queue[Message | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._work = asyncio.create_task(asyncio.to_thread(self._run, folder))

    @classmethod
    async def start(cls, folder: RunFolder) -> ThreadTrainer:
        return cls(folder)

    @property
    def status(self) -> int | None:
        return 0 if self._work.done() else None

    async def messages(self) -> AsyncIterator[Message]:
        while (message := await self._said.get()) is not None:
            yield message

    def pause(self) -> None:
        self._stop.set()

    async def kill(self) -> None:
        self._stop.set()
        await self._work

    def _run(self, folder: RunFolder) -> None:
        try:
            train(folder, self._tell, self._stop.is_set)
        except InnerloopError as error:
            self._tell(Failed(error.message))
        finally:
            self._tell(None)

    def _tell(self, message: Message | None) -> None:
        self._loop.call_soon_threadsafe(self._said.put_nowait, message)


@asynccontextmanager
async def supervising(
    store: Store,
    validate: Validate | None = None,
    settings: TrainerSettings | None = None,
    launch: Launch = TrainerProcess.start,
) -> AsyncIterator[TrainingSupervisor]:
    supervisor = TrainingSupervisor(
        store,
        load_registry(),
        validate or scripted(lambda _: 0.0),
        settings,
        launch,
        backoff=lambda deaths: 0.0,
    )
    await supervisor.open()
    try:
        yield supervisor
    finally:
        await supervisor.close()


async def ended(supervisor: TrainingSupervisor, training_id: str, seconds: float = 100) -> Any:
    """The training's record once it is no longer running."""

    async def drain() -> Any:
        record: Any = None
        async for news in supervisor.follow(training_id):
            record = news if hasattr(news, "state") else record
        return record

    return await asyncio.wait_for(drain(), seconds)
