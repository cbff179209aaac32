"""The protocol: adapt to held-out tasks, and at every k measure the policies on fresh episodes.

It adapts through the engine like any session does, at a lower priority, so a score says what a caller gets.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from innerloop.arrays import Array
from innerloop_server.adaptation.engine import Engine
from innerloop_server.adaptation.orders import Attach, Priority, RevisionRef, RolloutOrder, StepOrder
from innerloop_server.domain import Experience, Score, Task
from innerloop_server.errors import Exhausted, Unavailable
from innerloop_server.evaluation.plan import Plan, session_seed
from innerloop_server.evaluation.scores import score, trial_metrics

T = TypeVar("T")

CHUNK = 50
"""Tasks that are resident together: enough to fill a batch, few enough to leave room for live sessions."""
PAUSES_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 20.0)
"""How long to wait before a chunk is tried again, when the device was full or the engine restarted."""

Measures = Mapping[str, float]
"""What one task's episodes at one k say beside their return (``adaptation.measures``)."""
OnProgress = Callable[[int, int], Awaitable[None]]
"""Told (units done, units in all) after each chunk of tasks at each k. What it raises ends the evaluation."""


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation measured."""

    returns: Array
    """[M, K + 1] float64: mean undiscounted return of each task's fresh episodes after k steps."""
    scores: tuple[Score, ...]
    """One for each k."""
    trajectories: Mapping[tuple[int, int], Experience[Array]] = field(default_factory=dict)
    """(index of the task, k) -> its evaluation episodes, B = 1; for the tasks they were asked for."""


def units(plan: Plan, chunk: int = CHUNK) -> int:
    """Units of work in a plan: one for each chunk of tasks and each k."""
    return -(-plan.tasks // chunk) * (plan.steps + 1)


async def evaluate(
    engine: Engine,
    plan: Plan,
    tasks: Sequence[Task],
    revision: RevisionRef,
    on_progress: OnProgress | None = None,
    *,
    trial_episodes: int = 0,
    trajectories: int = 0,
    chunk: int = CHUNK,
    pauses: Sequence[float] = PAUSES_SECONDS,
) -> EvaluationResult:
    """Score a revision.

    On the CPU the scores depend on the arguments alone, to the bit. Cancelling frees every state and slot at once.

    Args:
        engine: adapts and runs the episodes.
        plan: how.
        tasks: the plan's M tasks (``plan.draw_tasks``).
        revision: what is scored.
        on_progress: told how far it is.
        trial_episodes: of a method that remembers, whose step is an episode: how many make a trial. Its return is then
            among the metrics of the k whose episodes are the trial's last, if there is that k; 0: it is not.
        trajectories: keep the evaluation episodes of the first so many tasks, for pictures.
        chunk: tasks that are resident together.
        pauses: seconds to wait before each new try of a chunk that met a full device or a restarting engine. A chunk
            is a function of its seeds, so trying again changes nothing.

    Raises:
        Exhausted: the device stayed full, or the device or the actors cannot serve this at all.
        Unavailable: the engine stayed away.
        InnerloopError: whatever else the engine said, such as ``ENVIRONMENT_FAILED``.
    """
    returns = np.full((len(tasks), plan.steps + 1), np.nan)
    measures: list[list[Measures]] = []
    kept: dict[tuple[int, int], Experience[Array]] = {}
    total = units(plan, chunk)
    for number, start in enumerate(range(0, len(tasks), chunk)):
        indices = range(start, min(start + chunk, len(tasks)))
        done = number * (plan.steps + 1)

        async def report(k: int, done: int = done) -> None:
            if on_progress is not None:
                await on_progress(done + k + 1, total)

        attempt = functools.partial(_chunk, engine, plan, tasks, indices, revision, report, trajectories)
        part, measured, episodes = await _patiently(attempt, pauses)
        returns[start : start + len(indices)] = part
        measures += measured
        kept |= episodes
    scores = tuple(
        score(returns[:, k], k, plan.evaluation_episodes, plan.seed, [of_task[k] for of_task in measures])
        for k in range(plan.steps + 1)
    )
    if 0 < trial_episodes <= plan.steps + 1:
        # Each task's next episode, averaged, after each k: their sum is what a whole trial brings.
        last = trial_episodes - 1
        metrics = {**scores[last].metrics, **trial_metrics(returns[:, :trial_episodes].sum(1), plan.seed)}
        scores = (*scores[:last], replace(scores[last], metrics=metrics), *scores[last + 1 :])
    return EvaluationResult(returns, scores, kept)


async def _patiently(attempt: Callable[[], Awaitable[T]], pauses: Sequence[float]) -> T:
    """What ``attempt`` gives, tried again after each pause while it meets what passes by itself."""
    for pause in pauses:
        try:
            return await attempt()
        except (Exhausted, Unavailable) as error:
            if isinstance(error, Exhausted) and error.retry_after_seconds is None:
                raise
            await asyncio.sleep(pause)
    return await attempt()


async def _chunk(
    engine: Engine,
    plan: Plan,
    tasks: Sequence[Task],
    indices: Sequence[int],
    revision: RevisionRef,
    report: Callable[[int], Awaitable[None]],
    trajectories: int,
) -> tuple[Array, list[list[Measures]], dict[tuple[int, int], Experience[Array]]]:
    """[m, K + 1] mean returns of the tasks at ``indices``, as many measures, and the episodes that were asked for."""
    keys = {index: engine.new_key() for index in indices}
    returns = np.empty((len(indices), plan.steps + 1))
    measures: list[list[Measures]] = [[] for _ in indices]
    kept: dict[tuple[int, int], Experience[Array]] = {}
    try:
        await asyncio.gather(
            *(engine.attach(_attachment(plan, tasks[index], revision, key, index)) for index, key in keys.items())
        )
        for k in range(plan.steps + 1):
            if k > 0:
                await asyncio.gather(
                    *(engine.step(StepOrder(key, k, snapshot=False, greedy=plan.greedy)) for key in keys.values())
                )
            rolled = await asyncio.gather(
                *(
                    engine.rollout(
                        RolloutOrder(
                            key, plan.evaluation_episodes, k, greedy=plan.greedy, trajectories=index < trajectories
                        )
                    )
                    for index, key in keys.items()
                )
            )
            returns[:, k] = [np.mean(np.asarray(one.returns, np.float64)) for one in rolled]
            for of_task, one in zip(measures, rolled, strict=True):
                of_task.append(one.measures)
            kept |= {
                (index, k): one.experience
                for index, one in zip(keys, rolled, strict=True)
                if one.experience is not None
            }
            await report(k)
    finally:
        for key in keys.values():
            engine.detach(key)
    return returns, measures, kept


def _attachment(plan: Plan, task: Task, revision: RevisionRef, key: int, index: int) -> Attach:
    return Attach(
        key=key,
        revision=revision,
        seed=session_seed(plan, index),
        episodes_per_step=plan.episodes_per_step,
        guard=plan.guard,
        task=task,
        simulator=plan.simulator,
        priority=Priority.BACKGROUND,
    )
