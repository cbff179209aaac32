"""The trained references: how good a policy gets without adapting, and how good when it is told the parameters.

Run by ``scripts/train-references``. Both are PPO on tasks of the TRAIN stream, with the settings of the methods
``multitask`` and ``oracle``; the oracle sees the parameters (``tasks/visible``). Each is scored on the tasks of the
family's fixed test protocol, greedy and sampled, and the better of the two counts. Of several seeds the best counts,
and all are reported: a higher memoryless bound makes the gap that adaptation is said to close smaller. So does an
oracle that is told the same task whichever it is (:func:`told_one`), which counts as memoryless where it is better.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from innerloop.arrays import Array, Arrays
from innerloop.policy import Policy
from innerloop_server.domain import LearnerSpec, Split, Task
from innerloop_server.errors import NotFound
from innerloop_server.evaluation.scores import MEMORYLESS, ORACLE
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.ppo import POLICY, Ppo
from innerloop_server.streams import Purpose, derive, stream
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.sampling import sample_task, stack_parameters
from innerloop_server.tasks.visible import VisibleFamily, normalise
from innerloop_server.training import optimiser
from innerloop_server.training.episodes import Collect
from innerloop_server.training.ppo_student import improve
from innerloop_server.training.specs import CONFIGS

KINDS = (MEMORYLESS, ORACLE)
CANDIDATES, JUDGED = 16, 20
METHODS = {MEMORYLESS: "multitask", ORACLE: "oracle"}
"""Kind -> the method whose settings for the family it is trained with."""


@dataclass(frozen=True)
class Trained:
    """A finished training."""

    meta: Tensors
    environment_steps: int
    wall_seconds: float
    cpu_seconds: float
    curve: tuple[float, ...]
    """Mean undiscounted return of each update's episodes."""


def settings(family: str, kind: str) -> Mapping[str, Any]:
    """The settings that a reference is trained with.

    Raises:
        NotFound: there is no file for the family.
    """
    file = CONFIGS / METHODS[kind] / f"{family}.toml"
    if not file.is_file():
        raise NotFound(f"configs/{METHODS[kind]}/{family}.toml", "write one to train references of this family")
    values: Mapping[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    return values


def bind(family: Family, kind: str, values: Mapping[str, Any]) -> tuple[Family, Ppo]:
    """The family as the reference sees it, and the learner for it."""
    seen = VisibleFamily(family) if kind == ORACLE else family
    return seen, Ppo(_spec(seen, f"{family.name}-{kind}", values))


def train(
    family: Family,
    learner: Ppo,
    collect: Collect,
    seed: int,
    on_update: Callable[[int, float], None] | None = None,
) -> Trained:
    """Train one reference.

    Args:
        family: as the reference sees it; tasks are drawn from its TRAIN stream under ``seed``.
        learner: PPO bound to it.
        collect: runs the episodes.
        seed: of everything that is drawn.
        on_update: told (update, mean return of its episodes) after each.
    """
    s = learner.settings
    wall, cpu = time.perf_counter(), time.process_time()
    meta = learner.initial_meta(seed)
    adam = optimiser.start(meta)
    environment_steps = 0
    curve: list[float] = []
    for update in range(s.updates):
        first = update * s.tasks_per_update
        tasks = [sample_task(family, seed, Split.TRAIN, first + i) for i in range(s.tasks_per_update)]
        experience = collect(learner, meta, tasks, 1, derive(seed, Purpose.TRAINING, update), False)
        environment_steps += int(experience.lengths.sum())
        curve.append(float(experience.rewards.sum(-1).mean()))
        steps = learner.prepare(meta, experience)
        rng = stream(seed, Purpose.TRAINING, update, 1)
        rate = s.learning_rate * (1 - update / s.updates)
        meta, adam, _ = improve(learner, meta, adam, steps, rng, rate)
        if on_update is not None:
            on_update(update + 1, curve[-1])
    return Trained(meta, environment_steps, time.perf_counter() - wall, time.process_time() - cpu, tuple(curve))


def told_one(family: Family, learner: Ppo, oracle: Policy, collect: Collect) -> tuple[Tensors, float]:
    """An oracle that is told the same task whichever it is: a policy without adaptation, often a good one.

    Of ``CANDIDATES`` training tasks the one that is best to be told on ``JUDGED`` validation tasks.

    Args:
        family: as it is, parameters hidden.
        learner: PPO bound to it, of the oracle's hidden layers.
        oracle: sees the parameters.
        collect: runs episodes of ``family``.

    Returns:
        (meta-parameters of ``learner``, mean return on the validation tasks).
    """
    candidates = [sample_task(family, 0, Split.TRAIN, i) for i in range(CANDIDATES)]
    shown = normalise(family.parameter_space, stack_parameters(candidates))
    judged = [sample_task(family, 0, Split.VALIDATION, i) for i in range(JUDGED)]
    found = []
    for told in shown:
        meta = learner.initial_meta(0) | {POLICY + name: value for name, value in folded(oracle.weights, told).items()}
        found.append((float(returns(learner, meta, collect, judged, 1, 0, greedy=True).mean()), meta))
    best, meta = max(found, key=lambda one: one[0])
    return meta, best


def folded(weights: Arrays, told: Array) -> Tensors:
    """Weights of a policy that reads [observation, told] with ``told`` [P] held fixed: what it adds to the first layer
    becomes part of the bias.
    """
    first, bias = weights["layers.0.weight"], weights["layers.0.bias"]
    seen = len(first) - len(told)
    fixed = {"layers.0.weight": first[:seen], "layers.0.bias": bias + told @ first[seen:]}
    return {name: torch.from_numpy(np.array(value)) for name, value in {**weights, **fixed}.items()}


def returns(
    learner: Ppo, meta: Tensors, collect: Collect, tasks: Sequence[Task], episodes: int, seed: int, *, greedy: bool
) -> Array:
    """[M] float64 mean undiscounted return of each task's episodes."""
    experience = collect(learner, meta, tasks, episodes, seed, greedy)
    sums = experience.rewards.to(torch.float64).sum(-1).reshape(len(tasks), episodes)
    per_task: Array = sums.mean(-1).numpy()
    return per_task


def _spec(family: Family, name: str, values: Mapping[str, Any]) -> LearnerSpec:
    return LearnerSpec(
        name=name,
        method="ppo",
        family=family.name,
        observation_space=family.observation_space,
        action_space=family.action_space,
        observation_shift=family.observation_shift,
        observation_scale=family.observation_scale,
        action_shift=family.action_shift,
        action_scale=family.action_scale,
        horizon=family.horizon,
        baseline=family.baseline,
        settings={"discount": family.discount, **values},
    )
