"""The metric log: one JSON line an update, written by the trainer, read by anybody at any time.

Everything but the columns in :data:`WALL_CLOCK` is a function of the run's settings, to the bit. When a trainer
resumes, lines past its checkpoint go (the updates behind them are computed again); a reader that has seen them goes on
with the update after.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from innerloop_server.errors import DataLoss
from innerloop_server.training.files import write_durably

WALL_CLOCK = ("wall_seconds", "cpu_seconds")
"""Columns that differ from run to run: seconds so far, of the clock and of the trainer's computing."""


@dataclass(frozen=True)
class UpdateMetrics:
    """One line."""

    update: int
    """From 1."""
    values: Mapping[str, float]
    """Name -> value: what ``outer_loop.update`` says, and the columns in :data:`WALL_CLOCK`."""

    @property
    def reproducible(self) -> dict[str, float]:
        """The values without the wall-clock columns."""
        return {name: value for name, value in self.values.items() if name not in WALL_CLOCK}

    def to_line(self) -> bytes:
        """As it stands in the log, newline included. Floats are written so that they read back the same bits."""
        return (json.dumps({"update": self.update, **self.values}, allow_nan=False) + "\n").encode()

    @staticmethod
    def from_line(line: bytes) -> UpdateMetrics:
        """Undo :meth:`to_line`.

        Raises:
            DataLoss: not such a line.
        """
        try:
            value = json.loads(line)
            return UpdateMetrics(int(value.pop("update")), {name: float(part) for name, part in value.items()})
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise DataLoss(f"a line of the metric log is damaged: {line[:80]!r}") from error


class MetricsLog:
    """The trainer's end: append, and be durable when asked."""

    def __init__(self, path: Path, update: int) -> None:
        """Open the log for the update after ``update``; later lines are cut off.

        Raises:
            DataLoss: the log lacks an update up to that one.
        """
        self.last: UpdateMetrics | None = None
        whole = path.read_bytes() if path.exists() else b""
        kept = b"".join(line for line in whole.splitlines(keepends=True)[:update] if line.endswith(b"\n"))
        lines = [UpdateMetrics.from_line(line) for line in kept.splitlines()]
        if [line.update for line in lines] != list(range(1, update + 1)):
            raise DataLoss(f"{path} does not hold updates 1 to {update}, which the checkpoint is behind")
        if lines:
            self.last = lines[-1]
        if kept != whole or not path.exists():
            write_durably(path, kept)
        self._file = path.open("ab")

    def append(self, metrics: UpdateMetrics) -> None:
        """Write a line: readers see it at once, and it survives the end of this process."""
        self._file.write(metrics.to_line())
        self._file.flush()
        self.last = metrics

    def sync(self) -> None:
        """Make all lines survive a power cut. A checkpoint comes after this, never before."""
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class MetricsReader:
    """A reader that goes on where it stopped, gives every update once, and never waits."""

    def __init__(self, path: Path, after_update: int = 0) -> None:
        """Args:
        path: of the log, which need not exist yet.
        after_update: the last update that is not wanted.
        """
        self._path = path
        self._seen = after_update
        self._offset = 0
        self._last = b""

    def read(self) -> Iterator[UpdateMetrics]:
        """Complete lines that have come since the last call."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            self._find_place(file)
            for line in file:
                if not line.endswith(b"\n"):  # being written
                    return
                self._offset += len(line)
                self._last = line
                metrics = UpdateMetrics.from_line(line)
                if metrics.update > self._seen:
                    self._seen = metrics.update
                    yield metrics

    def _find_place(self, file: BinaryIO) -> None:
        """Go to where we stopped; to the beginning if a resuming trainer has cut and rewritten what we know."""
        file.seek(self._offset - len(self._last))
        if file.read(len(self._last)) != self._last:
            self._offset, self._last = 0, b""
            file.seek(0)
