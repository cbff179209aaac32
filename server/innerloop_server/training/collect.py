"""Where a meta-update's episodes come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from innerloop_server.adaptation.rollout import Rollout, draw, rollout
from innerloop_server.domain import Task
from innerloop_server.learners.learner import Learner, Tensors
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.sampling import stack_parameters


class Collect(Protocol):
    """Runs one inner step's episodes of B tasks, on any simulator."""

    def __call__(
        self, tasks: Sequence[Task], meta: Tensors, state: Tensors, seeds: Sequence[int], step: int
    ) -> Rollout:
        """Run ``learner.episodes_per_step`` episodes of each task.

        Args:
            tasks: the B tasks.
            meta: meta-parameters.
            state: [B, ...] the adaptation states to act with.
            seeds: one a task; with ``step`` they name every stream.
            step: k, inner steps behind the states.
        """
        ...


def batch_collector(family: Family, learner: Learner, device: torch.device) -> Collect:
    """Episodes from the family's tensor-native face.

    Raises:
        InvalidField: (when called) the family has none.
    """

    def collect(tasks: Sequence[Task], meta: Tensors, state: Tensors, seeds: Sequence[int], step: int) -> Rollout:
        batch = family.batch(stack_parameters(tasks), device)
        noise = draw(
            learner.spec,
            seeds,
            step,
            episodes=learner.episodes_per_step,
            reset_uniforms=batch.reset_uniforms,
            step_uniforms=batch.step_uniforms,
            query=step > 0,
        )
        return rollout(learner, meta, state, batch, noise)

    return collect
