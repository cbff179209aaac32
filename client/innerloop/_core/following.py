"""What an adaptation has told so far, the same for both drivers: events in, steps out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from innerloop._core.protocol import SessionProtocol
from innerloop._progress import Progress
from innerloop.errors import SessionEnded
from innerloop.types import Adapted, Opened, Step

OnStep = Callable[[Step], Any]


class Following:
    """Takes a session's events one by one and remembers what the caller may ask for later."""

    def __init__(self, protocol: SessionProtocol, progress: Progress, on_step: OnStep | None) -> None:
        self.protocol = protocol
        self.steps: list[Step] = []
        self.left = ""
        self._progress = progress
        self._on_step = on_step

    def take(self, event: Opened | Step | Adapted) -> Step | None:
        """An event; answers the step where it is one."""
        self._progress.show(event)
        if not isinstance(event, Step):
            return None
        self.steps.append(event)
        if self._on_step is not None:
            self._on_step(event)
        return event

    def leave(self, why: str) -> None:
        """The stream is left; ``why`` is told to those who ask for a policy."""
        self.left = self.left or why
        self._progress.close()

    def __str__(self) -> str:
        """Which session, how far, and whether it goes on."""
        ended = self.protocol.adapted.end_reason if self.protocol.adapted is not None else self.left
        return f"{self.protocol.session or 'opening'}, step {self.protocol.last_step}, {ended or 'under way'}"

    def opened(self) -> Opened:
        """What the server said when the stream began.

        Raises:
            SessionEnded: it never did.
        """
        if self.protocol.opened is None:
            raise SessionEnded("the session was never opened")
        return self.protocol.opened

    def require_open(self) -> None:
        """Refuse to go on with a session that cannot.

        Raises:
            SessionEnded: it has ended, or was left.
        """
        if self.protocol.ended or self.left:
            raise SessionEnded(f"{self} and takes nothing more", end_reason=self.left)

    def adapted(self) -> Adapted:
        """How the session ended.

        Raises:
            SessionEnded: it did not end with a policy here.
        """
        if self.protocol.adapted is None:
            name = self.protocol.session or "the session"
            raise SessionEnded(f"{name} gave no policy: {self.left or 'it has not ended'}", end_reason=self.left)
        return self.protocol.adapted
