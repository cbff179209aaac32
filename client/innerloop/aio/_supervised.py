"""The async twin of ``innerloop._supervised``."""

from __future__ import annotations

from typing import Any

from innerloop._core import lessons
from innerloop._core.lessons import Idle, Predicted
from innerloop.aio._handles import Adaptation
from innerloop.arrays import Array
from innerloop.types import Step


class SupervisedSession(Adaptation):
    """A session that learns from your labelled examples, for as long as you have some.

    ``policy()``, ``result()`` and iterating end it; leaving an ``async with`` block leaves it alive.
    """

    async def adapt(self, examples: Any, answers: Any, *, steps: int = 1) -> list[Step]:
        """As :meth:`innerloop.SupervisedSession.adapt`."""
        self._following.require_open()
        seen = len(self.steps)
        await self._until(Idle, lessons.teach(self.opened, examples, answers, steps))
        if len(self.steps) == seen:  # a budget of examples or seconds had ended it: that is found out by trying
            self._following.require_open()
        return list(self.steps[seen:])

    async def predict(self, examples: Any) -> Array:
        """As :meth:`innerloop.SupervisedSession.predict`."""
        self._following.require_open()
        predicted: Predicted = await self._until(Predicted, lessons.ask(self.opened, examples))
        await self._until(Idle)
        return predicted.predictions

    async def _begin(self) -> None:
        await super()._begin()
        await self._until(Idle)
