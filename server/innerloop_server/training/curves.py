"""The metric log as TensorBoard curves, and pictures beside them."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from innerloop.arrays import Array
from innerloop_server.training.metrics import WALL_CLOCK, UpdateMetrics


class Curves:
    """One event file in ``directory``, for the updates of one trainer process.

    After a resume TensorBoard drops what earlier files say about later updates (``purge_step``).
    """

    def __init__(self, directory: Path, update: int) -> None:
        """Args:
        directory: of the run's event files.
        update: updates behind the run as this process begins.
        """
        from torch.utils.tensorboard import SummaryWriter  # brings protobuf, which no other process here wants

        self._writer = SummaryWriter(str(directory), purge_step=update + 1)

    def add(self, metrics: UpdateMetrics) -> None:
        """One point a curve: ``return/0``, ``return/1``, ..., ``kl/0``, ..., ``training/loss``, ``time/...``."""
        for name, value in metrics.values.items():
            self._writer.add_scalar(_tag(name), value, metrics.update)

    def add_picture(self, image: Array, update: int) -> None:
        """One picture [H, W, 3] uint8 of how the learner behaves, under ``behaviour``."""
        self._writer.add_image("behaviour", image, update, dataformats="HWC")

    def flush(self) -> None:
        """Hand everything to the disk."""
        self._writer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


def _tag(name: str) -> str:
    if name in WALL_CLOCK:
        return f"time/{name}"
    group, separator, number = name.rpartition("_")
    return f"{group}/{number}" if separator and number.isdigit() else f"training/{name}"
