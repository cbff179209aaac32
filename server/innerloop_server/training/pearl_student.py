"""The student that teaches PEARL: play fresh tasks, remember them, learn off-policy from what is remembered."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from innerloop_server.adaptation.rollout import bucket, trim
from innerloop_server.domain import Task
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.pearl import CRITIC, TARGET, Lesson, Pearl
from innerloop_server.learners.transitions import Transitions, transitions_of
from innerloop_server.streams import Purpose, stream
from innerloop_server.training import optimiser, replay
from innerloop_server.training.collect import Collect
from innerloop_server.training.layout import Layout
from innerloop_server.training.optimiser import AdamState
from innerloop_server.training.student import Played, Student, feedback_of

_ALL = "all"
"""All that is learned, as one vector."""
_METRICS = ("loss", "critic_loss", "actor_loss", "model_loss", "belief_kl", "policy_entropy", "gradient_norm")


@dataclass(frozen=True)
class Record:
    """Transitions of an update's tasks, and of all that are remembered."""

    fresh: Transitions
    """[B, M]."""
    remembered: Tensors
    """A replay; empty before :meth:`PearlStudent.remember` saw ``fresh``."""


class PearlStudent(Student[Record]):
    """PEARL in the outer loop."""

    def __init__(self, learner: Pearl, collect: Collect) -> None:
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

    def play(self, meta: Tensors, tasks: Sequence[Task], seeds: Sequence[int]) -> Played[Record]:
        """Episodes of each task, first on a z from the prior, then on one from the belief after each step."""
        learner = self.learner
        device = next(iter(meta.values())).device
        state = learner.begin(meta, len(tasks))
        scale = torch.ones(len(tasks), device=device)
        parts: list[Transitions] = []
        returns: list[torch.Tensor] = []
        successes: list[torch.Tensor] = []
        metrics: dict[str, float] = {}
        steps = 0
        for k in range(learner.inner_steps + 1):
            draws = [stream(seed, Purpose.TRAINING, k).standard_normal(learner.settings.latent) for seed in seeds]
            acting = learner.redrawn(state, torch.from_numpy(np.stack(draws)).to(device, torch.float32))
            one = self._collect(tasks, meta, acting, seeds, k)
            capacity = bucket(int(one.experience.lengths.max()), learner.spec.horizon)
            experience = trim(one.experience, capacity)
            parts.append(transitions_of(experience, learner.spec.horizon))
            returns.append(one.returns)
            successes.append(one.experience.success)
            steps += int(experience.lengths.sum())
            metrics[f"return_{k}"] = float(one.returns.mean())
            if k < learner.inner_steps:
                state, _ = learner.adapt(meta, state, experience, scale)
        fields = [field.name for field in dataclasses.fields(Transitions)]
        fresh = Transitions(**{name: torch.cat([getattr(part, name) for part in parts], 1) for name in fields})
        return Played(Record(fresh, {}), feedback_of(tasks, returns, successes), steps, metrics)

    def remember(
        self, memory: Tensors, played: Played[Record], learn: Sequence[bool], update: int, seed: int
    ) -> tuple[Tensors, Played[Record]]:
        """The replay with the tasks to learn from; it is what :meth:`learn` learns from."""
        s, fresh = self.learner.settings, played.episodes.fresh
        after = memory or replay.empty(s.replay_tasks, s.replay_steps, fresh)
        if any(learn):
            kept = torch.tensor(learn, device=fresh.rewards.device)
            parts = {field.name: getattr(fresh, field.name)[kept] for field in dataclasses.fields(Transitions)}
            after = replay.remember(after, Transitions(**parts), stream(seed, Purpose.TRAINING, update, 0, 0))
        return after, dataclasses.replace(played, episodes=Record(fresh, after))

    def learn(
        self,
        meta: Tensors,
        adam: AdamState,
        played: Played[Record],
        learn: Sequence[bool],
        update: int,
        seed: int,
    ) -> tuple[Tensors, AdamState, dict[str, float]]:
        """``gradient_steps`` optimiser steps, each on fresh draws from the replay; none while it warms up."""
        s = self.learner.settings
        if not any(learn) or update < s.warmup_updates:
            return meta, adam, dict.fromkeys(_METRICS, 0.0)
        rng = stream(seed, Purpose.TRAINING, update)
        progress = update / max(1, s.updates - 1)
        rate = s.learning_rate + progress * (s.final_learning_rate - s.learning_rate)
        temperature = s.temperature * (s.final_temperature / s.temperature) ** progress
        totals = dict.fromkeys(_METRICS, 0.0)
        learned = Layout.of(meta, (name for name in meta if not name.startswith(TARGET)))
        critics, slow = (Layout.of(meta, (n for n in meta if n.startswith(part))) for part in (CRITIC, TARGET))
        weights, targets = {_ALL: learned.join(meta)}, slow.join(meta)
        joined = AdamState({_ALL: learned.join(adam.first)}, {_ALL: learned.join(adam.second)}, adam.count)
        for _ in range(s.gradient_steps):
            lesson = self._lesson(played.episodes.remembered, rng)
            leaves = optimiser.leaves(weights)
            loss, parts = self.learner.loss({**learned.split(leaves[_ALL]), **slow.split(targets)}, lesson, temperature)
            weights, joined, norm = optimiser.descend(loss, leaves, joined, rate, s.gradient_clip)
            targets = targets.lerp(critics.join(learned.split(weights[_ALL])), s.target_rate)
            measured = {name: float(value) for name, value in parts.items()}
            for name, value in {**measured, "loss": float(loss.detach()), "gradient_norm": norm}.items():
                totals[name] += value / s.gradient_steps
        after = {**learned.split(weights[_ALL]), **slow.split(targets)}
        first, second = (learned.split(part[_ALL]) for part in (joined.first, joined.second))
        return _apart(after), AdamState(_apart(first), _apart(second), joined.count), totals

    def _lesson(self, remembered: Tensors, rng: np.random.Generator) -> Lesson:
        """Tasks, their context and their steps, drawn apart; the context is of a random size."""
        s = self.learner.settings
        tasks = replay.draw_tasks(remembered, s.meta_batch, rng)
        context = replay.draw(remembered, tasks, s.context, rng)
        sizes = torch.from_numpy(rng.integers(1, s.context + 1, (s.meta_batch, 1))).to(tasks.device)
        counted = torch.arange(s.context, device=tasks.device) < sizes
        width = self.learner.header.action_size
        shapes = ((s.meta_batch, s.latent), *((s.meta_batch, s.batch, width),) * 2)
        noise = [torch.from_numpy(rng.standard_normal(shape, np.float32)).to(tasks.device) for shape in shapes]
        return Lesson(
            dataclasses.replace(context, real=context.real & counted),
            replay.draw(remembered, tasks, s.batch, rng),
            *noise,
        )


def _apart(views: Tensors) -> Tensors:
    """Tensors with memory of their own, as a checkpoint wants them."""
    return {name: value.clone() for name, value in views.items()}
