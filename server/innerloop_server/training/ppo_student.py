"""A student without an inner loop: PPO on whole episodes of the tasks that are proposed.

With the task's parameters in view (``visible``) it learns to do what it is told; that is what teachers are compared on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from innerloop_server.domain import Experience, Task
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.ppo import LOG_STD, Ppo, Steps
from innerloop_server.streams import Purpose, stream
from innerloop_server.training import optimiser
from innerloop_server.training.episodes import Collect
from innerloop_server.training.optimiser import AdamState
from innerloop_server.training.student import Played, Student, feedback_of


@dataclass(frozen=True)
class PpoStudent(Student[Experience[torch.Tensor]]):
    """PPO, an update a batch of tasks."""

    learner: Ppo
    """Bound to the family as it is seen."""
    collect: Collect
    """Runs the episodes."""
    episodes_per_task: int = 4
    """More than one, since a teacher goes by the share that succeeds."""
    anneal: bool = False
    """Let the rate fall linearly to zero over the settings' updates; else it stays: how long it learns is for others to
    say."""

    @property
    def tasks_per_update(self) -> int:
        """As the learner's settings say."""
        return self.learner.settings.tasks_per_update

    def initial_meta(self, seed: int) -> Tensors:
        """As the learner's."""
        return self.learner.initial_meta(seed)

    def play(self, meta: Tensors, tasks: Sequence[Task], seeds: Sequence[int]) -> Played[Experience[torch.Tensor]]:
        """``episodes_per_task`` episodes of each task, task by task; the first seed names them all."""
        experience = self.collect(self.learner, meta, tasks, self.episodes_per_task, seeds[0], False)
        returns = experience.rewards.sum(-1).reshape(len(tasks), -1)
        success = experience.success.reshape(len(tasks), -1)
        metrics = {"return_0": float(returns.mean()), "success_0": float(success.double().mean())}
        return Played(experience, feedback_of(tasks, [returns], [success]), int(experience.lengths.sum()), metrics)

    def learn(
        self,
        meta: Tensors,
        adam: AdamState,
        played: Played[Experience[torch.Tensor]],
        learn: Sequence[bool],
        update: int,
        seed: int,
    ) -> tuple[Tensors, AdamState, dict[str, float]]:
        """``epochs`` passes in ``minibatches`` parts over the steps of the tasks to learn from."""
        if not any(learn):
            return meta, adam, {"loss": 0.0, "gradient_norm": 0.0, "learned_steps": 0.0}
        kept = torch.tensor(learn).repeat_interleave(self.episodes_per_task)
        fields = vars(played.episodes)
        steps = self.learner.prepare(meta, Experience(**{name: value[:, kept] for name, value in fields.items()}))
        rng = stream(seed, Purpose.TRAINING, update)
        s = self.learner.settings
        rate = s.learning_rate * (max(0.0, 1 - update / s.updates) if self.anneal else 1.0)
        meta, adam, metrics = improve(self.learner, meta, adam, steps, rng, rate)
        return meta, adam, {**metrics, "learned_steps": float(len(steps))}


def improve(
    learner: Ppo, meta: Tensors, adam: AdamState, steps: Steps, rng: np.random.Generator, rate: float
) -> tuple[Tensors, AdamState, dict[str, float]]:
    """The optimiser steps of one PPO update: every epoch is a fresh permutation of the steps in so many parts.

    Returns:
        (weights, adam, metrics): ``loss`` and ``gradient_norm`` of the first part.
    """
    s = learner.settings
    metrics: dict[str, float] = {}
    for _ in range(s.epochs):
        for rows in torch.from_numpy(rng.permutation(len(steps))).tensor_split(s.minibatches):
            if not len(rows):
                continue
            leaves = optimiser.leaves(meta)
            loss = learner.loss(leaves, steps.take(rows))
            meta, adam, norm = optimiser.descend(loss, leaves, adam, rate, s.gradient_clip)
            metrics = metrics or {"loss": float(loss.detach()), "gradient_norm": norm}
            if LOG_STD in meta:
                meta = {**meta, LOG_STD: meta[LOG_STD].clamp(min=s.lowest_log_std)}
    return meta, adam, metrics
