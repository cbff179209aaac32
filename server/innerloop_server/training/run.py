"""A training run: its settings, and the folder that holds everything it leaves.

::

    settings.json                 what the run is; written once, before it starts
    initial.safetensors           the meta-parameters it starts from, where it continues a revision
    metrics.jsonl                 one line an update (``metrics``)
    checkpoints/00000040.<hash>.safetensors     the newest two (``checkpoints``)
    revisions/00000040/{meta.safetensors,manifest.json}     candidates for promotion (``candidates``)
    tensorboard/                  the same curves as TensorBoard event files
    trainer.log                   what a supervised trainer said on stderr
    lock                          held while a trainer works here
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from innerloop_server.domain import LearnerSpec, Simulator
from innerloop_server.errors import DataLoss, PreconditionFailed
from innerloop_server.store.codec import spec_from_json, spec_to_json
from innerloop_server.training.files import write_durably

FORMAT = "innerloop-training/1"
LOCK_SECONDS = 30.0
"""How long a trainer waits for the one before it to let go of the folder."""


@dataclass(frozen=True)
class Schedule:
    """How often a run writes things down. Part of the settings that a caller may give."""

    checkpoint_every: int = 10
    """Updates between checkpoints: what a killed training loses at most."""
    revision_every: int = 0
    """Updates between candidate revisions; 0: one at the end only."""


@dataclass(frozen=True)
class RunSettings:
    """All that decides what a run computes, and the command that computes it again."""

    spec: LearnerSpec
    """The learner; its settings name ``updates``."""
    seed: int
    simulator: Simulator
    generator: str = "uniform"
    """What proposes the tasks, as ``generators`` names it."""
    schedule: Schedule = field(default_factory=Schedule)
    device: str = "cpu"
    actors: int = 2
    """Environment-actor processes, where the simulator is ``actors``."""
    actor_slots: int = 256
    """Environments that one actor holds at most."""
    training: str = ""
    """Id of the training; empty for a run without a server."""
    continue_from: str = ""
    """Resource name of the revision, or path of the file, that ``initial.safetensors`` was copied from."""
    command: str = ""
    """What reproduces the run."""

    @property
    def updates(self) -> int:
        """Updates in all."""
        return int(self.spec.settings["updates"])

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"format": FORMAT, **asdict(self), "spec": spec_to_json(self.spec)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> RunSettings:
        """Undo :meth:`to_json`.

        Raises:
            DataLoss: of another format, or incomplete.
        """
        try:
            if value["format"] != FORMAT:
                raise DataLoss(f"run settings of format {value['format']!r}; this version reads {FORMAT}")
            rest = {name: part for name, part in value.items() if name not in ("format", "spec", "schedule")}
            return RunSettings(
                **{**rest, "simulator": Simulator(rest["simulator"])},
                spec=spec_from_json(value["spec"]),
                schedule=Schedule(**value["schedule"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataLoss(f"run settings are damaged: {error!r}") from error


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its things. Only paths; the files belong to the modules named above."""

    path: Path

    @property
    def settings_file(self) -> Path:
        """What the run is."""
        return self.path / "settings.json"

    @property
    def initial(self) -> Path:
        """The meta-parameters that the run starts from, if it continues a revision."""
        return self.path / "initial.safetensors"

    @property
    def metrics(self) -> Path:
        """The metric log."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def revisions(self) -> Path:
        """The folder of candidate revisions."""
        return self.path / "revisions"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard event files."""
        return self.path / "tensorboard"

    @property
    def log(self) -> Path:
        """A supervised trainer's stderr."""
        return self.path / "trainer.log"

    def create(self, settings: RunSettings, initial: bytes | None = None) -> None:
        """Lay the folder out. A folder that is laid out already is left as it is.

        Args:
            settings: of the run.
            initial: safetensors bytes of the meta-parameters to start from; ``None``: fresh ones.
        """
        if self.settings_file.exists():
            return
        self.path.mkdir(parents=True, exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)
        self.revisions.mkdir(exist_ok=True)
        if initial is not None:
            write_durably(self.initial, initial)
        # Last, because its presence says that the rest is there.
        write_durably(self.settings_file, (json.dumps(settings.to_json(), indent=2) + "\n").encode())

    def settings(self) -> RunSettings:
        """What the run is.

        Raises:
            DataLoss: there is no run in this folder, or its settings cannot be read.
        """
        try:
            value = json.loads(self.settings_file.read_bytes())
        except FileNotFoundError as error:
            raise DataLoss(f"{self.path} holds no training run (no settings.json)") from error
        except ValueError as error:
            raise DataLoss(f"{self.settings_file} is not JSON") from error
        return RunSettings.from_json(value)

    @contextmanager
    def locked(self, wait_seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """Hold the folder, so that two trainers never write to it at once.

        Raises:
            PreconditionFailed: ``RUN_IN_USE``, another process still holds it after ``wait_seconds``.
        """
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _take(descriptor, time.monotonic() + wait_seconds, self.path)
            yield
        finally:
            os.close(descriptor)


def _take(descriptor: int, until: float, path: Path) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= until:
                raise PreconditionFailed(f"another trainer works in {path}", reason="RUN_IN_USE") from error
        time.sleep(0.05)
