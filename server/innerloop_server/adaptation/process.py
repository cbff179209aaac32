"""The engine's own process: the event loop that answers callers never waits on a tensor.

Messages are lists of ``orders`` values over one pipe, whose other end only the parent holds; multiprocessing's own
serialisation is used between these two processes alone, never on disk or on the wire. The process ends when the pipe
does.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from innerloop_server.adaptation.core import EngineCore

STUCK_ACTOR_SECONDS = 0.5
"""While actors work, they are asked this often at the least: one that is stuck makes no sound."""


@dataclass(frozen=True)
class EngineSettings:
    """What an engine is started with."""

    device: str
    device_rows: int
    batching: bool
    actors: int
    actor_slots: int


@dataclass(frozen=True)
class AskOccupancy:
    """Answered with an ``Occupancy``, in order with nothing."""


@dataclass(frozen=True)
class Started:
    """The first message of the engine."""

    device: str
    """The device that it took."""


@dataclass(frozen=True)
class CannotStart:
    """The first and only message of an engine that has nothing to compute on."""

    message: str


def main(connection: Connection[Any, Any], settings: EngineSettings) -> None:
    """Body of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the gateway decides when to stop
    import torch

    torch.set_num_threads(1)  # one thread an operation: see kernels
    try:
        device = resolve_device(settings.device)
    except (RuntimeError, ValueError) as error:
        connection.send([CannotStart(f"device {settings.device} cannot be used: {str(error).splitlines()[0]}")])
        return
    core = build(settings, device)
    try:
        connection.send([Started(str(device))])
        serve(connection, core)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the gateway is gone, and so are we
    finally:
        core.close()


def resolve_device(name: str) -> torch.device:
    """The device that a setting means; ``auto``: CUDA where there is one.

    Raises:
        RuntimeError, ValueError: no such device, here or at all.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type not in ("cpu", "cuda"):
        raise ValueError("use cpu, cuda, cuda:1 or auto")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no CUDA device here; use cpu or auto")
    torch.zeros(1, device=device)  # an index past the last device fails here, not in somebody's session
    return device


def build(settings: EngineSettings, device: torch.device) -> EngineCore:
    """A core with its registry, device and actors."""
    from innerloop_server.actors.pool import ActorPool
    from innerloop_server.adaptation.core import EngineCore
    from innerloop_server.tasks.registry import load_registry

    return EngineCore(
        load_registry(),
        device,
        device_rows=settings.device_rows,
        batching=settings.batching,
        actors=ActorPool(settings.actors, settings.actor_slots) if settings.actors else None,
    )


def serve(connection: Connection[Any, Any], core: EngineCore) -> None:
    """Take requests, run batches, send answers, until the pipe ends (EOFError)."""
    while True:
        busy = not core.idle
        if not busy:
            wait([connection, *core.waitables], STUCK_ACTOR_SECONDS if core.waitables else None)
        while connection.poll():
            for request in connection.recv():
                if isinstance(request, AskOccupancy):
                    connection.send([core.occupancy()])
                else:
                    core.submit(request)
        if answers := core.run():
            connection.send(answers)
