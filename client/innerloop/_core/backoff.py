"""How long to wait before coming back to a server that went away. Full jitter, so that a fleet does not return at
once.
"""

from __future__ import annotations

import random

from innerloop.errors import Unavailable


class Backoff:
    """Counts what has been slept since the last sign of life; no clock."""

    def __init__(self, patience: float, *, first: float = 0.1, most: float = 5.0, draw: random.Random | None = None):
        """Args:
        patience: seconds slept without a sign of life after which :meth:`pause` gives up.
        first: upper end of the first pause in seconds; each next one is twice as long.
        most: no pause is longer than this.
        draw: where jitter comes from.
        """
        self._patience = patience
        self._first = first
        self._most = most
        self._draw = draw or random.Random()
        self.alive()

    def alive(self) -> None:
        """The server has answered: start over."""
        self._slept = 0.0
        self._pauses = 0

    def pause(self, error: Unavailable) -> float:
        """Seconds to sleep before the next attempt.

        Raises:
            Unavailable: ``error`` itself, when patience is at its end.
        """
        if self._slept >= self._patience:
            raise error
        ceiling = min(self._most, self._first * 2.0**self._pauses)
        seconds = self._draw.uniform(ceiling / 2, ceiling)
        self._pauses += 1
        self._slept += seconds
        return seconds
