"""The student of the outer loop: a learning method, which adapts to each task and learns from how well it did that."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from innerloop_server.adaptation.rollout import bucket, trim
from innerloop_server.domain import Experience, Task
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.trainable import GradientLearner, TrainableLearner
from innerloop_server.training import optimiser, outer_trpo
from innerloop_server.training.collect import Collect
from innerloop_server.training.optimiser import AdamState
from innerloop_server.training.student import Played, Student, feedback_of


class MetaStudent(Student[list[Experience[torch.Tensor]]]):
    """A learning method in the outer loop."""

    def __init__(self, learner: GradientLearner, collect: Collect) -> None:
        """Args:
        learner: the method.
        collect: runs the episodes (``collect.batch_collector``, or environment actors).
        """
        self.learner = learner
        self._collect = collect

    @property
    def tasks_per_update(self) -> int:
        """As the method's settings say."""
        return self.learner.tasks_per_update

    def initial_meta(self, seed: int) -> Tensors:
        """As the method's."""
        return self.learner.initial_meta(seed)

    def play(
        self, meta: Tensors, tasks: Sequence[Task], seeds: Sequence[int]
    ) -> Played[list[Experience[torch.Tensor]]]:
        """Episodes of the states after k = 0..K inner steps, each trimmed to the longest of them."""
        same_support = self.learner.spec.supervision is not None
        played, _ = adapt_to(self.learner, self._collect, meta, tasks, seeds, same_support=same_support)
        return played

    def learn(
        self,
        meta: Tensors,
        adam: AdamState,
        played: Played[list[Experience[torch.Tensor]]],
        learn: Sequence[bool],
        update: int,
        seed: int,
    ) -> tuple[Tensors, AdamState, dict[str, float]]:
        """``learner.epochs`` steps of Adam down the meta-loss of the same samples, or one natural-gradient step within
        ``learner.kl_limit``; nothing is drawn.
        """
        del seed
        learner, limit = self.learner, self.learner.kl_limit
        metrics = {"loss": 0.0, "gradient_norm": 0.0}
        if not any(learn):
            return meta, adam, metrics if limit is None else {**metrics, "outer_kl": 0.0, "step_size": 0.0}
        samples = [learner.prepare(_of_tasks(episodes, learn)) for episodes in played.episodes]
        if limit is not None:
            meta, metrics = outer_trpo.step(learner, meta, samples, limit)
            return meta, adam, metrics
        sampled = learner.sampled(meta, samples)
        rates = {name: learner.learning_rate(name, update) for name in meta}
        for epoch in range(learner.epochs):
            leaves = optimiser.leaves(meta)
            loss = learner.meta_loss(leaves, samples, sampled)
            meta, adam, norm = optimiser.descend(loss, leaves, adam, rates, learner.gradient_clip)
            if epoch == 0:
                metrics = {"loss": float(loss.detach()), "gradient_norm": norm}
        return meta, adam, metrics


def adapt_to(
    learner: TrainableLearner,
    collect: Collect,
    meta: Tensors,
    tasks: Sequence[Task],
    seeds: Sequence[int],
    *,
    same_support: bool,
) -> tuple[Played[list[Experience[torch.Tensor]]], Tensors]:
    """K inner steps on each of B tasks.

    Args:
        learner: the method.
        collect: runs the episodes.
        meta: meta-parameters to begin with.
        tasks: B of them.
        seeds: one a task; they name everything that is drawn.
        same_support: every step learns from the episodes at k = 0, and not each from its own.

    Returns:
        (what was played after k = 0..K steps, the states [B, ...] after the last).
    """
    state = learner.begin(meta, len(tasks))
    scale = torch.ones(len(tasks), device=next(iter(meta.values())).device)
    played: list[Experience[torch.Tensor]] = []
    returns: list[torch.Tensor] = []
    metrics: dict[str, float] = {}
    for k in range(learner.inner_steps + 1):
        one = collect(tasks, meta, state, seeds, k)
        capacity = bucket(int(one.experience.lengths.max()), learner.spec.horizon)
        played.append(trim(one.experience, capacity))
        returns.append(one.returns)
        metrics[f"return_{k}"] = float(one.returns.mean())
        if k < learner.inner_steps:
            state, inner = learner.adapt(meta, state, played[0 if same_support else k], scale)
            metrics[f"kl_{k}"] = float(inner["kl"].mean())
    steps = sum(int(e.lengths.sum()) for e in played)
    return Played(played, feedback_of(tasks, returns, [e.success for e in played]), steps, metrics), state


def _of_tasks(episodes: Experience[torch.Tensor], keep: Sequence[bool]) -> Experience[torch.Tensor]:
    """The episodes of the tasks to keep."""
    if all(keep):
        return episodes
    rows = torch.tensor([i for i, kept in enumerate(keep) if kept], device=episodes.lengths.device)
    return Experience(**{field.name: getattr(episodes, field.name)[rows] for field in dataclasses.fields(Experience)})
