"""A live line for people who watch a session on a terminal."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol

from innerloop._core.names import short
from innerloop.types import Adapted, Opened, Step


class Progress(Protocol):
    """What watches a session's events."""

    def show(self, event: Opened | Step | Adapted) -> None:
        """The next event."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


class Silent:
    """For programs."""

    def show(self, event: Opened | Step | Adapted) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Live(AbstractContextManager["Live"]):
    """For people: one progress bar a session, drawn by rich."""

    def __init__(self, steps: int | None, *, console: Any = None) -> None:
        """Args:
        steps: the budget of steps, for the bar's length; ``None``: unknown.
        console: rich console to draw on; standard output when left out.
        """
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._bar = self._bars.add_task("opening", total=steps)
        self._bars.start()

    def show(self, event: Opened | Step | Adapted) -> None:
        """Draw what has happened."""
        match event:
            case Opened():
                self._bars.update(self._bar, description=short(event.session), completed=event.step)
            case Step():
                self._bars.update(self._bar, description=str(event), completed=event.number)
            case Adapted():
                self._bars.update(self._bar, completed=event.step, total=event.step)

    def close(self) -> None:
        """Leave the last line as it is."""
        self._bars.stop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def progress_for(wanted: bool | None, steps: int | None) -> Progress:
    """A live line where it is wanted; by default where standard output is a terminal."""
    show = sys.stdout.isatty() if wanted is None else wanted
    return Live(steps) if show else Silent()
