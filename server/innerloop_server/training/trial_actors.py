"""Whole trials from environment actors: for families without a batch face, or where it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from innerloop import policy
from innerloop.arrays import Array
from innerloop_server.actors.orders import EpisodesOrder, EpisodesResult
from innerloop_server.actors.pool import ActorPool
from innerloop_server.domain import Task
from innerloop_server.learners.learner import Learner, Tensors
from innerloop_server.learners.trial_record import TrialRecord
from innerloop_server.streams import Purpose, derive
from innerloop_server.training.actor_collect import play
from innerloop_server.training.trial_collect import CollectTrials


def actor_collector(learner: Learner, pool: ActorPool, device: torch.device) -> CollectTrials:
    """Trials from a pool's environments: episode after episode, each task's row going on from what it remembered.

    A task's trial depends on the seed and its place among the tasks alone, so a training that runs on actors resumes to
    the bit, however many actors there are and whichever of them die.

    Raises:
        Unavailable: (when called) actors died again and again.
        InnerloopError: (when called) an environment failed in a way that would come again.
    """

    def collect(meta: Tensors, tasks: Sequence[Task], seed: int) -> TrialRecord:
        header, (weights,) = learner.export(meta, learner.begin(meta, 1))
        memories = [policy.begin(header, 1)] * len(tasks)
        episodes: list[list[EpisodesResult]] = []
        for episode in range(learner.inner_steps + 1):
            orders = [
                EpisodesOrder(
                    key=key,
                    family=task.family,
                    parameters=task.parameters,
                    header=header,
                    weights=weights,
                    episodes=1,
                    horizon=learner.spec.horizon,
                    seed=derive(seed, Purpose.TRAINING, key),
                    step=episode,
                    phase=0,
                    memory={name: array[0] for name, array in memory.items()},
                )
                for key, (task, memory) in enumerate(zip(tasks, memories, strict=True))
            ]
            episodes.append(play(pool, orders))
            memories = [dict(result.memory) for result in episodes[-1]]
        length = learner.spec.horizon * len(episodes)
        rows = [_trial([of[row] for of in episodes], length) for row in range(len(tasks))]
        return TrialRecord(
            **{name: torch.from_numpy(np.stack([row[name] for row in rows], 1)).to(device) for name in rows[0]}
        )

    return collect


def _trial(episodes: Sequence[EpisodesResult], length: int) -> dict[str, Array]:
    """Fields of ``TrialRecord`` of one row, [T, ...]; zero, and not real, from where the trial ended."""
    lengths = [result.env_steps for result in episodes]
    last = np.cumsum(lengths) - 1  # of each episode, its last step
    played = [result.experience for result in episodes]
    parts = {
        name: [getattr(one, name)[0, 0, :n] for one, n in zip(played, lengths, strict=True)]
        for name in ("observations", "actions", "log_probs", "rewards")
    }
    parts["outcomes"] = [
        np.concatenate((seen[1:], one.final_observations[0]))
        for seen, one in zip(parts["observations"], played, strict=True)
    ]
    steps = {name: _padded(of, length) for name, of in parts.items()}
    flags = {name: np.zeros(length, np.bool_) for name in ("terminated", "truncated", "trial_end", "success")}
    flags["terminated"][last] = [result.memory[policy.LAST_TERMINATED][0] for result in episodes]
    flags["truncated"][last] = [result.memory[policy.LAST_TRUNCATED][0] for result in episodes]
    flags["success"][last] = [result.experience.success[0, 0] for result in episodes]
    flags["trial_end"][last[-1]] = True
    numbers = np.repeat(np.arange(len(episodes)), lengths)
    episode = np.full(length, len(episodes), np.int64)
    episode[: len(numbers)] = numbers
    return steps | flags | {"episode": episode, "real": np.arange(length) <= last[-1]}


def _padded(parts: Sequence[Array], length: int) -> Array:
    whole = np.concatenate(parts)
    out = np.zeros((length, *whole.shape[1:]), whole.dtype)
    out[: len(whole)] = whole
    return out
