"""Waking followers: they look at what is stored, and sleep until somebody says that it has changed."""

from __future__ import annotations

import asyncio


class Bells:
    """A bell for each name. To miss no ring, take :meth:`at` first, then look, then wait."""

    def __init__(self) -> None:
        self._bells: dict[str, asyncio.Event] = {}

    def at(self, name: str) -> asyncio.Event:
        """An event that the next ring sets."""
        return self._bells.setdefault(name, asyncio.Event())

    def ring(self, name: str) -> None:
        """Something changed about ``name``."""
        bell = self._bells.pop(name, None)
        if bell is not None:
            bell.set()

    def ring_all(self) -> None:
        """Something changed that may concern anybody."""
        for name in list(self._bells):
            self.ring(name)
