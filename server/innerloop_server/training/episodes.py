"""Whole episodes of one policy on many tasks, from either simulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from innerloop_server.actors.orders import EpisodesOrder
from innerloop_server.actors.pool import ActorPool
from innerloop_server.adaptation.rollout import draw, rollout
from innerloop_server.domain import Experience, Task
from innerloop_server.learners.learner import Learner, Tensors
from innerloop_server.streams import Purpose, derive
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.sampling import stack_parameters
from innerloop_server.training.actor_collect import play
from innerloop_server.training.batches import MergedBatch

CPU = torch.device("cpu")

Collect = Callable[[Learner, Tensors, Sequence[Task], int, int, bool], Experience[torch.Tensor]]
"""(learner, meta, M tasks, E episodes of each, seed, greedy) -> [1, M * E, T] episodes, task by task. The learner's
state is one fixed policy for all tasks; the seed names every start and action."""


def batch_collector(family: Family, device: torch.device = CPU) -> Collect:
    """Episodes from the family's batch face."""

    def collect(
        learner: Learner, meta: Tensors, tasks: Sequence[Task], episodes: int, seed: int, greedy: bool
    ) -> Experience[torch.Tensor]:
        batch = MergedBatch(family.batch(stack_parameters(tasks), device), len(tasks))
        noise = draw(
            learner.spec,
            [seed],
            episodes=len(tasks) * episodes,
            reset_uniforms=batch.reset_uniforms,
            step_uniforms=batch.step_uniforms,
        )
        return rollout(learner, meta, learner.begin(meta, 1), batch, noise, greedy=greedy).experience

    return collect


def actor_collector(pool: ActorPool, device: torch.device = CPU) -> Collect:
    """Episodes from environment actors; the pool's family source decides what is seen. It must be idle.

    The collector raises what :func:`play` raises.
    """

    def collect(
        learner: Learner, meta: Tensors, tasks: Sequence[Task], episodes: int, seed: int, greedy: bool
    ) -> Experience[torch.Tensor]:
        header, weights = learner.export(meta, learner.begin(meta, 1))
        orders = [
            EpisodesOrder(
                key=index,
                family=task.family,
                parameters=task.parameters,
                header=header,
                weights=weights[0],
                episodes=episodes,
                horizon=learner.spec.horizon,
                seed=derive(seed, Purpose.TRAINING, index),
                step=0,
                phase=0,
                greedy=greedy,
            )
            for index, task in enumerate(tasks)
        ]
        return _concatenate([result.experience for result in play(pool, orders)], device)

    return collect


def _concatenate(parts: Sequence[Experience[np.ndarray]], device: torch.device) -> Experience[torch.Tensor]:
    fields = [vars(part) for part in parts]
    joined = {name: torch.from_numpy(np.concatenate([f[name] for f in fields], 1)) for name in fields[0]}
    return Experience(**{name: value.to(device) for name, value in joined.items()})
