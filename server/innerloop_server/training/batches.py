"""A batch face of many tasks as that of one."""

from __future__ import annotations

import torch

from innerloop_server.tasks.batch import TaskBatch

Step = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class MergedBatch(TaskBatch):
    """B tasks with N episodes each as one task with B * N episodes, task by task: one policy then acts for all in one
    matrix product instead of B.
    """

    def __init__(self, batch: TaskBatch, tasks: int) -> None:
        """Args:
        batch: B tasks.
        tasks: B.
        """
        self._batch = batch
        self._tasks = tasks
        self.reset_uniforms = batch.reset_uniforms
        self.step_uniforms = batch.step_uniforms
        self.knows_success = batch.knows_success

    def reset(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``uniforms`` is [1, B * N, U]."""
        state, observation = self._batch.reset(self._split(uniforms))
        return _merge(state), _merge(observation)

    def step(self, state: torch.Tensor, action: torch.Tensor, uniforms: torch.Tensor | None = None) -> Step:
        """``state`` is [1, B * N, S], ``action`` [1, B * N, ...], ``uniforms`` [1, B * N, U]."""
        drawn = None if uniforms is None else self._split(uniforms)
        state, observation, reward, terminated = self._batch.step(self._split(state), self._split(action), drawn)
        return _merge(state), _merge(observation), _merge(reward), _merge(terminated)

    def feedback(self, state: torch.Tensor) -> torch.Tensor:
        """As ``batch``."""
        return _merge(self._batch.feedback(self._split(state)))

    def success(self, state: torch.Tensor) -> torch.Tensor:
        """As ``batch``."""
        return _merge(self._batch.success(self._split(state)))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(self._tasks, x.shape[1] // self._tasks, *x.shape[2:])


def _merge(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(1, x.shape[0] * x.shape[1], *x.shape[2:])
