"""The composition root: the one place that builds the parts of a server and joins them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from importlib.metadata import version
from pathlib import Path

import structlog

from innerloop_server.adaptation.client import EngineClient
from innerloop_server.adaptation.hub import SessionHub
from innerloop_server.adaptation.process import EngineSettings
from innerloop_server.errors import PreconditionFailed, Unavailable
from innerloop_server.evaluation.runner import EvaluationRunner
from innerloop_server.service.adaptation import AdaptationServicer
from innerloop_server.service.definitions import FamilyDefiner
from innerloop_server.service.evaluation import EvaluationServicer
from innerloop_server.service.learners import LearnerServicer
from innerloop_server.service.occupancy import OccupancyGauges
from innerloop_server.service.permissions import Permissions
from innerloop_server.service.policies import PolicyServicer
from innerloop_server.service.server import Server
from innerloop_server.service.tasks import TaskServicer
from innerloop_server.settings import Settings
from innerloop_server.store.store import Store
from innerloop_server.tasks.defined import Definitions
from innerloop_server.tasks.registry import load_registry
from innerloop_server.training.intake import TrainerSettings
from innerloop_server.training.promotion import validator
from innerloop_server.training.proposals import TrainingProposals
from innerloop_server.training.supervisor import TrainingSupervisor
from innerloop_server.training.zoo import install_zoo

PARENT_POLL_SECONDS = 0.5
OCCUPANCY_SECONDS = 5.0
"""How often the engine's occupancy goes to the metrics."""

log = structlog.get_logger()


class App:
    """One server, all its parts."""

    def __init__(self, settings: Settings) -> None:
        """Open the store and build the parts; nothing runs yet.

        Raises:
            InvalidField: an address that may not be served like this.
            PreconditionFailed: the data directory cannot be used, another server has it, or a later version wrote it.
        """
        self.settings = settings
        definitions = Definitions(settings.data_dir.absolute() / "families", settings.allowed_environments)
        # the one thing that the engine, its actors and trainers are told by the environment: they load families
        # themselves, and whoever starts one of them inherits it
        os.environ.update(definitions.to_environment())
        self.registry = load_registry(definitions=definitions)
        for name, reason in self.registry.reasons().items():
            log.warning("family broken", family=name, reason=reason)
        self.store = _open_store(settings)
        install_zoo(self.store, self.registry)
        self.engine = EngineClient(
            EngineSettings(
                device=settings.device,
                device_rows=settings.device_rows,
                batching=settings.batching,
                actors=settings.actors,
                actor_slots=settings.actor_slots,
            ),
            on_lost=lambda: self.hub.engine_lost(),
        )
        self.hub = SessionHub(self.engine, self.store, self.registry, settings)
        self.evaluations = EvaluationRunner(self.engine, self.store, self.registry, settings.limits)
        self.trainings = TrainingSupervisor(
            self.store,
            self.registry,
            validator(self.engine, self.registry),
            TrainerSettings(
                device=settings.device,
                actors=settings.actors,
                actor_slots=settings.actor_slots,
                trainings_per_owner=settings.limits.trainings_per_owner,
            ),
        )
        self.server = Server(
            settings,
            [
                TaskServicer(
                    self.registry,
                    settings.limits,
                    FamilyDefiner(self.registry, self.store, Permissions.of(settings), settings.limits),
                    TrainingProposals(self.store),
                ),
                AdaptationServicer(self.hub, self.store, self.registry, settings, version("innerloop")),
                PolicyServicer(self.store, settings.limits),
                EvaluationServicer(self.evaluations, self.store, self.registry, settings.limits),
                LearnerServicer(self.store, self.registry, self.trainings, Permissions.of(settings)),
            ],
        )
        self._background: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start every part, the ones below first; serving when this returns."""
        await self.engine.start()
        self.hub.start()
        await self.evaluations.start()
        await self.trainings.open()
        await self.server.start()
        self._background.append(asyncio.create_task(self._watch_occupancy()))
        log.info(
            "serving",
            address=self.address,
            device=self.engine.device,
            families=len(self.registry.names()),
            data_dir=str(self.settings.data_dir),
        )

    @property
    def address(self) -> str:
        """``host:port`` that it serves on."""
        return f"{self.settings.host}:{self.server.port}"

    async def drain(self) -> None:
        """Take nothing new, and wait until the streams have ended or their time is over."""
        await self.server.drain()
        await self.hub.drain(self.settings.drain_seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_seconds):
                while self.hub.attached:
                    await asyncio.sleep(0.05)

    async def close(self) -> None:
        """Stop every part, the ones above first. Everything acknowledged is durable already."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        parts = (
            self.hub.close,
            self.trainings.close,
            self.evaluations.stop,
            lambda: self.server.stop(1.0),
            self.engine.close,
            lambda: asyncio.to_thread(self.store.close),
        )
        for close in parts:
            try:
                await close()
            except Exception:  # one part that cannot close must not keep the others, and the data directory, open
                log.exception("a part did not close")

    async def _watch_occupancy(self) -> None:
        gauges = OccupancyGauges(self.server.metrics.registry)
        while True:
            with contextlib.suppress(Unavailable):  # the engine is restarting; the next look will tell
                gauges.set(await self.engine.occupancy(), self.hub.attached)
            await asyncio.sleep(OCCUPANCY_SECONDS)


def _open_store(settings: Settings) -> Store:
    try:
        return Store.open(settings.data_dir, settings.database_url)
    except OSError as error:
        raise PreconditionFailed(
            f"the data directory {settings.data_dir} cannot be used: {error.strerror}; give another --data-dir",
            reason="DATA_DIR_UNUSABLE",
        ) from error


async def serve(settings: Settings, ready_file: Path | None = None) -> None:
    """Serve until SIGTERM, SIGINT, or the end of the parent that asked for it; then drain and stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    app = App(settings)
    try:
        await app.start()
        if ready_file is not None:
            _announce(ready_file, app)
        await _until(stop, settings.parent_pid)
        log.info("draining", streams=app.hub.attached)
        await app.drain()
    finally:
        await app.close()
    log.info("stopped")


def _announce(path: Path, app: App) -> None:
    """Write where we serve, all at once: whoever waits for the file must never read half of it."""
    ready = {
        "address": app.address,
        "admin": app.server.admin_port,
        "channelz": app.server.channelz_port,
        "pid": os.getpid(),
    }
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(ready) + "\n", encoding="utf-8")
    part.replace(path)


async def _until(stop: asyncio.Event, parent_pid: int | None) -> None:
    """Wait for the signal, or for the parent's end."""
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PARENT_POLL_SECONDS if parent_pid else None):
                await stop.wait()
        if parent_pid is not None and not _alive(parent_pid):
            return


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
