"""The student of a method that is not trained: it only shows how its inner loop goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from innerloop_server.domain import Task
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.scratch import Scratch
from innerloop_server.training.collect import Collect
from innerloop_server.training.meta_student import adapt_to
from innerloop_server.training.optimiser import AdamState
from innerloop_server.training.student import Played, Student


@dataclass(frozen=True)
class ScratchStudent(Student[None]):
    """Learning from scratch in the outer loop, where nothing is learned."""

    learner: Scratch
    collect: Collect
    """Runs the episodes."""

    @property
    def tasks_per_update(self) -> int:
        """As the method's settings say."""
        return self.learner.tasks_per_update

    def initial_meta(self, seed: int) -> Tensors:
        """As the method's."""
        return self.learner.initial_meta(seed)

    def play(self, meta: Tensors, tasks: Sequence[Task], seeds: Sequence[int]) -> Played[None]:
        """How K steps from nothing go."""
        same_support = self.learner.spec.supervision is not None
        played, _ = adapt_to(self.learner, self.collect, meta, tasks, seeds, same_support=same_support)
        return Played(None, played.feedback, played.environment_steps, played.metrics)

    def learn(
        self, meta: Tensors, adam: AdamState, played: Played[None], learn: Sequence[bool], update: int, seed: int
    ) -> tuple[Tensors, AdamState, dict[str, float]]:
        """Nothing."""
        del played, learn, update, seed
        return meta, adam, {}
