"""The blocking client's handle on a session of a supervised learner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from innerloop._blocking import Execution
from innerloop._core import lessons
from innerloop._core.following import Following
from innerloop._core.lessons import Idle, Predicted
from innerloop._handles import Adaptation
from innerloop.arrays import Array
from innerloop.types import Adapted, Step

if TYPE_CHECKING:
    from innerloop.client import Client


class SupervisedSession(Adaptation):
    """A session that learns from your labelled examples, for as long as you have some.

    ``policy()``, ``result()`` and iterating end it; leaving a ``with`` block leaves it alive until its lease ends.
    """

    def __init__(self, client: Client, execution: Execution[Adapted], following: Following) -> None:
        """Made by ``client.supervised``."""
        super().__init__(client, execution, following)
        self._until(Idle)

    def adapt(self, examples: Any, answers: Any, *, steps: int = 1) -> list[Step]:
        """Take adaptation steps, each on all of these examples.

        Args:
            examples: [N, *O].
            answers: [N] labels, or [N, *A] targets.
            steps: how many.

        Returns:
            The steps, fewer where a budget ended the session.

        Raises:
            ValueError: shapes that do not fit, labels that are none, numbers that are not finite, or no step.
            SessionEnded: it has ended, or was left.
        """
        self._following.require_open()
        seen = len(self.steps)
        self._until(Idle, lessons.teach(self.opened, examples, answers, steps))
        if len(self.steps) == seen:  # a budget of examples or seconds had ended it: that is found out by trying
            self._following.require_open()
        return list(self.steps[seen:])

    def predict(self, examples: Any) -> Array:
        """What the session, as it is now, makes of examples.

        Args:
            examples: [N, *O].

        Returns:
            [N] labels, or [N, *A] predictions.

        Raises:
            ValueError: a shape that does not fit, or numbers that are not finite.
            SessionEnded: it has ended, or was left.
        """
        self._following.require_open()
        predicted: Predicted = self._until(Predicted, lessons.ask(self.opened, examples))
        self._until(Idle)
        return predicted.predictions
