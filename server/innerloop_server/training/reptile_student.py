"""The student that Reptile makes: it adapts to each task, and its meta-parameters go after the adapted weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from innerloop_server.domain import Task
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.reptile import Reptile
from innerloop_server.training.collect import Collect
from innerloop_server.training.meta_student import adapt_to
from innerloop_server.training.optimiser import AdamState
from innerloop_server.training.student import Played, Student


@dataclass(frozen=True)
class ReptileStudent(Student[Tensors]):
    """Reptile in the outer loop. Adam is not used: what it remembers stays as it is."""

    learner: Reptile
    collect: Collect
    """Runs the episodes."""

    @property
    def tasks_per_update(self) -> int:
        """As the method's settings say."""
        return self.learner.tasks_per_update

    def initial_meta(self, seed: int) -> Tensors:
        """As the method's."""
        return self.learner.initial_meta(seed)

    def play(self, meta: Tensors, tasks: Sequence[Task], seeds: Sequence[int]) -> Played[Tensors]:
        """The states after K inner steps. Of a supervised family every step has examples of its own: on the same ones
        Reptile has no two gradients whose agreement it could raise.
        """
        played, state = adapt_to(self.learner, self.collect, meta, tasks, seeds, same_support=False)
        return Played(state, played.feedback, played.environment_steps, played.metrics)

    def learn(
        self,
        meta: Tensors,
        adam: AdamState,
        played: Played[Tensors],
        learn: Sequence[bool],
        update: int,
        seed: int,
    ) -> tuple[Tensors, AdamState, dict[str, float]]:
        """Part of the way to the mean of the adapted weights; nothing is drawn. The whole way there is what stands for
        a gradient (Nichol et al. 2018, https://arxiv.org/abs/1803.02999, section 3).
        """
        del seed
        if not any(learn):
            return meta, adam, {"gradient_norm": 0.0, "moved": 0.0}
        after = self.learner.outer_update(meta, played.episodes, learn, update)
        moved = math.sqrt(math.fsum(float(((after[name] - value) ** 2).sum()) for name, value in meta.items()))
        return after, adam, {"gradient_norm": moved / self.learner.outer_step(update), "moved": moved}
