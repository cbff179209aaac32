"""Robust prioritised level replay: come back to tasks that were solved once but are not mastered.

Jiang et al. 2021, "Prioritized Level Replay" (https://arxiv.org/abs/2010.03934) and "Replay-Guided Adversarial
Environment Design" (https://arxiv.org/abs/2110.02439, robust PLR). A task is scored by an estimate of its regret: the
best return ever seen on it minus what the learner gets now (*MaxMC* of the second paper, without its critic). New tasks
are only looked at; the learner learns from replayed ones alone, which is what makes the equilibrium a minimax-regret
one.

Differences: the choice between new and replayed is made task by task and not batch by batch, so that every update has
something to learn from; and a batch replays a task at most once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from innerloop.arrays import Array, Arrays
from innerloop_server.domain import Split
from innerloop_server.streams import Purpose, stream
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.generators.generator import Feedback, Proposal
from innerloop_server.tasks.sampling import sample_task

_EMPTY = -1


@dataclass(frozen=True)
class ReplayGenerator:
    """Tasks of the family's own (seed, split) stream, some of them again.

    State, C being the capacity: ``index`` of the next new task; ``proposals`` made; and of each remembered task
    ``levels`` [C] its index in the stream (-1: free), ``scores`` [C], ``best`` [C] return seen on it, ``stamps`` [C]
    the proposal that it was last part of.
    """

    family: Family
    seed: int
    split: Split = Split.TRAIN
    capacity: int = 256
    """Tasks remembered."""
    warm: int = 64
    """Tasks to remember before any is replayed."""
    replay_probability: float = 0.5
    temperature: float = 0.3
    """The probability of the task with the r-th highest score falls as ``r^(-1 / temperature)``."""
    staleness: float = 0.3
    """Share of the probability that goes by how long a task was not seen."""
    robust: bool = True
    """New tasks are not learned from."""

    def initial(self) -> Arrays:
        """Nothing remembered."""
        return {
            "index": np.asarray(0, np.int64),
            "proposals": np.asarray(0, np.int64),
            "levels": np.full(self.capacity, _EMPTY, np.int64),
            "scores": np.zeros(self.capacity),
            "best": np.zeros(self.capacity),
            "stamps": np.zeros(self.capacity, np.int64),
        }

    def propose(self, state: Arrays, n: int) -> tuple[Proposal, Arrays]:
        """Tasks, each either the next of the stream or a remembered one."""
        now = int(state["proposals"]) + 1
        rng = stream(self.seed, Purpose.GENERATOR, list(Split).index(self.split), now)
        slots = np.flatnonzero(state["levels"] != _EMPTY)
        again = rng.random(n) < (self.replay_probability if len(slots) >= self.warm else 0.0)
        again &= np.cumsum(again) <= len(slots)
        weights = replay_distribution(
            state["scores"][slots], now - state["stamps"][slots], self.temperature, self.staleness
        )
        chosen = rng.choice(slots, int(again.sum()), replace=False, p=weights) if again.any() else slots[:0]
        index = int(state["index"])
        indices = np.empty(n, np.int64)
        indices[again] = state["levels"][chosen]
        indices[~again] = index + np.arange(int((~again).sum()))
        stamps = state["stamps"].copy()
        stamps[chosen] = now
        tasks = tuple(sample_task(self.family, self.seed, self.split, int(i)) for i in indices)
        learn = tuple(bool(a) or not self.robust for a in again)
        after = {
            **state,
            "index": np.asarray(index + int((~again).sum()), np.int64),
            "proposals": np.asarray(now, np.int64),
            "stamps": stamps,
        }
        return Proposal(tasks, learn), after

    def report(self, state: Arrays, feedback: Sequence[Feedback]) -> Arrays:
        """Scores of remembered tasks brought up to date; a new task takes a free place, or that of the lowest score
        (of equal ones: not seen for longest) below its own.
        """
        levels, scores, best, stamps = (state[name].copy() for name in ("levels", "scores", "best", "stamps"))
        for heard in feedback:
            top = heard.best_returns[-1]
            known = np.flatnonzero(levels == heard.task.index)
            if len(known):
                slot = int(known[0])
                best[slot] = max(best[slot], top)
                scores[slot] = best[slot] - heard.returns[-1]
                continue
            score = top - heard.returns[-1]
            free = levels == _EMPTY
            slot = int(np.flatnonzero(free)[0]) if free.any() else int(np.lexsort((stamps, scores))[0])
            if free.any() or score > scores[slot]:
                levels[slot], scores[slot], best[slot] = heard.task.index, score, top
                stamps[slot] = state["proposals"]
        return {**state, "levels": levels, "scores": scores, "best": best, "stamps": stamps}


def replay_distribution(scores: Array, ages: Array, temperature: float, staleness: float) -> Array:
    """How likely each of M remembered tasks is replayed (Jiang et al. 2021a, equations 1 and 3). Of equal scores, which
    sparse rewards make many, that of the task not seen for longest ranks first.

    Args:
        scores: [M].
        ages: [M] proposals since each was last seen.
        temperature: see :class:`ReplayGenerator`.
        staleness: see :class:`ReplayGenerator`.

    Returns:
        [M] probabilities.
    """
    ranks = np.empty(len(scores))
    ranks[np.lexsort((-ages, -scores))] = np.arange(1, len(scores) + 1)
    by_score = ranks ** (-1 / temperature)
    by_age = ages.astype(np.float64)
    if not by_age.any():
        by_age = np.ones(len(ages))
    tiny = np.finfo(np.float64).tiny
    mixed: Array = (1 - staleness) * by_score / max(by_score.sum(), tiny) + staleness * by_age / max(by_age.sum(), tiny)
    return mixed
