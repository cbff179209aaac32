"""A meta-update's episodes from environment actors: for families without a batch face, or where it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.connection import wait

import numpy as np
import torch

from innerloop_server.actors.orders import Answer, EpisodesFailure, EpisodesOrder, EpisodesResult
from innerloop_server.actors.pool import ActorPool
from innerloop_server.adaptation.rollout import Rollout
from innerloop_server.domain import Experience, Task
from innerloop_server.errors import InnerloopError, Unavailable
from innerloop_server.learners.learner import Learner, Tensors
from innerloop_server.training.collect import Collect

AT_ONCE = 512
"""Orders that a pool has at most: it takes no more than its backlog."""
POLL_SECONDS = 1.0
"""An actor that is stuck makes no sound, so the pool is looked at this often anyway."""


def actor_collector(learner: Learner, pool: ActorPool, device: torch.device) -> Collect:
    """Episodes from a pool's environments, acted in by the portable policies of the states.

    Each task's episodes depend on its order alone (see ``EpisodesOrder``), so a training that runs on actors resumes
    to the bit as well, however many actors there are and whichever of them die.

    Raises:
        Unavailable: (when called) actors died again and again.
        InnerloopError: (when called) an environment failed in a way that would come again.
    """

    def collect(tasks: Sequence[Task], meta: Tensors, state: Tensors, seeds: Sequence[int], step: int) -> Rollout:
        header, weights = learner.export(meta, state)
        orders = [
            EpisodesOrder(
                key=key,
                family=task.family,
                parameters=task.parameters,
                header=header,
                weights=weights[key],
                episodes=learner.episodes_per_step,
                horizon=learner.spec.horizon,
                seed=seeds[key],
                step=step,
                phase=0,
                supervision=learner.spec.supervision,
                query=step > 0,
            )
            for key, task in enumerate(tasks)
        ]
        return _stack(play(pool, orders), device)

    return collect


def play(pool: ActorPool, orders: Sequence[EpisodesOrder]) -> list[EpisodesResult]:
    """Have a pool that is idle run orders of the keys 0, 1, ..., and give what came of them in order.

    Raises:
        Unavailable: actors died again and again.
        InnerloopError: an environment failed in a way that would come again.
    """
    results: dict[int, EpisodesResult] = {}
    submitted = 0
    while len(results) < len(orders):
        for order in orders[submitted : len(results) + AT_ONCE]:
            pool.submit(order)
            submitted += 1
        wait(pool.waitables, POLL_SECONDS)
        for answer in pool.poll():
            results[answer.key] = _result(answer)
    return [results[order.key] for order in orders]


def _result(answer: Answer) -> EpisodesResult:
    if isinstance(answer, EpisodesFailure):
        raise (Unavailable if answer.retryable else InnerloopError)(answer.message)
    return answer


def _stack(results: Sequence[EpisodesResult], device: torch.device) -> Rollout:
    fields = [vars(result.experience) for result in results]
    experience: Experience[torch.Tensor] = Experience(
        **{name: torch.from_numpy(np.concatenate([f[name] for f in fields])).to(device) for name in fields[0]}
    )
    returns = np.stack([result.returns for result in results]).astype(np.float32)
    return Rollout(experience, torch.from_numpy(returns).to(device))
