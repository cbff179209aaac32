"""Whole episodes, acted locally with the portable policy: what ``experience`` carries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from innerloop._core.environments import Report, Rows
from innerloop.arrays import Array
from innerloop.policy import Input, Policy


@dataclass(frozen=True)
class Episode:
    """One episode of T steps."""

    observations: Array
    """[T, *O] before each action."""
    raw_actions: Array
    """[T, A] or [T]."""
    rewards: Array
    log_probs: Array
    """[T]."""
    terminated: bool
    final_observation: Array
    """[*O] after the last step."""

    @property
    def bytes(self) -> int:
        """What its arrays weigh."""
        return self.observations.nbytes + self.raw_actions.nbytes + self.rewards.nbytes + self.log_probs.nbytes


def collect(rows: Rows, policy: Policy, count: int, rng: np.random.Generator) -> list[Episode]:
    """Run episodes from a fresh start until ``count`` are complete. Rows whose episode is open then are dropped, and
    an episode counts in the order in which it *began*: counting those that finish first would favour short ones.

    A policy that remembers goes on from where its session is, in one row (:func:`check_local`).
    """
    report = rows.start()
    width = len(report.rows)
    began = {int(row): i for i, row in enumerate(report.rows)}
    trails: dict[int, list[tuple[Array, Array, float, float]]] = {row: [] for row in began}
    done: dict[int, Episode] = {}
    next_index = width
    memory = policy.begin(width)
    while not all(i in done for i in range(count)):
        decision = policy.decide(_seen(report), memory=memory or None, rng=rng)
        memory = dict(decision.memory)
        before, acted_rows = report.observations, report.rows
        report = rows.step(acted_rows, decision.environment)
        for i, row in enumerate(acted_rows.tolist()):
            trails[row].append((before[i], decision.raw[i], 0.0, float(decision.log_prob[i])))
        for i, row in enumerate(report.rows.tolist()):
            trail = trails[row]
            observation, raw, _, log_prob = trail[-1]
            trail[-1] = (observation, raw, float(report.rewards[i]), log_prob)
            if report.done[i]:
                done[began[row]] = _episode(trail, report, i)
                trails[row], began[row] = [], next_index
                next_index += 1
    return [done[i] for i in range(count)]


def check_local(env: Any) -> None:
    """Refuse to act locally with a memory in several rows: a session's policy remembers for one.

    Raises:
        ValueError: ``env`` is a vector of environments.
    """
    if int(getattr(env, "num_envs", 1)) > 1:
        raise ValueError(
            "this learner remembers, and acting locally it remembers for one environment; "
            "leave `local` out for a vector of them"
        )


def _seen(report: Report) -> Input:
    if not report.acted:
        return Input(report.observations)
    return Input(report.observations, reward=report.rewards, terminated=report.terminated, truncated=report.truncated)


def chunks(episodes: Sequence[Episode], most_bytes: int) -> Iterator[list[Episode]]:
    """Split episodes so that the padded arrays of a message stay under ``most_bytes``; an episode that is heavier by
    itself goes alone (and is refused by the message cap, whose error says so).
    """
    chunk: list[Episode] = []
    heaviest = 0
    for episode in episodes:
        heaviest = max(heaviest, episode.bytes)
        if chunk and heaviest * (len(chunk) + 1) > most_bytes:
            yield chunk
            chunk, heaviest = [], episode.bytes
        chunk.append(episode)
    if chunk:
        yield chunk


def _episode(trail: list[tuple[Array, Array, float, float]], report: Report, i: int) -> Episode:
    observations, raw, rewards, log_probs = zip(*trail, strict=True)
    return Episode(
        observations=np.stack(observations),
        raw_actions=np.stack(raw),
        rewards=np.array(rewards, np.float32),
        log_probs=np.array(log_probs, np.float32),
        terminated=bool(report.terminated[i]),
        final_observation=report.final_observations[i],
    )
