"""The outer loop as a value: one meta-update takes a state and gives the next.

``update`` is a function of its arguments alone: every random number comes from a stream named by the seed
and the update's number. So a training that was killed and resumed from a checkpoint goes on bit for bit (on the CPU).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import safetensors
import safetensors.torch
import torch

from innerloop.arrays import Arrays
from innerloop_server.adaptation.rollout import bucket, trim
from innerloop_server.domain import Experience, Task
from innerloop_server.errors import DataLoss
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.trainable import Samples, TrainableLearner
from innerloop_server.streams import Purpose, derive
from innerloop_server.tasks.generators.generator import Feedback, TaskGenerator
from innerloop_server.training import optimiser
from innerloop_server.training.collect import Collect
from innerloop_server.training.optimiser import AdamState


@dataclass(frozen=True)
class TrainState:
    """All that a training carries from one meta-update to the next."""

    meta: Tensors
    """The meta-parameters."""
    adam: AdamState
    """What the optimiser remembers."""
    update: int
    """Meta-updates done."""
    environment_steps: int
    """Environment steps taken, all tasks and inner steps."""
    generator: Arrays
    """The task generator's own state."""


def start(
    learner: TrainableLearner, generator: TaskGenerator, seed: int, device: torch.device | None = None
) -> TrainState:
    """The state before the first update."""
    meta = {name: value.to(device or torch.device("cpu")) for name, value in learner.initial_meta(seed).items()}
    return TrainState(meta, optimiser.start(meta), 0, 0, generator.initial())


def update(
    learner: TrainableLearner, generator: TaskGenerator, collect: Collect, state: TrainState, seed: int
) -> tuple[TrainState, dict[str, float]]:
    """One meta-update: fresh tasks, K adaptations with fresh episodes each, some optimiser steps on all of it.

    Args:
        learner: the method.
        generator: proposes the tasks and is told how they went.
        collect: runs the episodes (``collect.batch_collector``, or environment actors).
        state: before.
        seed: of the whole training; with ``state.update`` it names every stream.

    Returns:
        (state, metrics): ``return_k`` is the mean undiscounted return after k inner steps, k = 0..K; ``kl_k`` the
        KL of inner step k; ``loss`` the meta-loss before the first optimiser step; ``gradient_norm`` that of its
        gradient before clipping; ``environment_steps`` of this update.
    """
    tasks, generated = generator.propose(state.generator, learner.tasks_per_update)
    seeds = [derive(seed, Purpose.TRAINING, state.update, i) for i in range(len(tasks))]
    episodes, returns, sampled = _adapt_and_collect(learner, state.meta, tasks, seeds, collect)
    feedback = [Feedback(task, tuple(row)) for task, row in zip(tasks, returns.tolist(), strict=True)]
    meta, adam, optimised = _optimise(learner, state, [learner.prepare(e) for e in episodes])
    steps = sum(int(e.lengths.sum()) for e in episodes)
    after = TrainState(
        meta=meta,
        adam=adam,
        update=state.update + 1,
        environment_steps=state.environment_steps + steps,
        generator=generator.report(generated, feedback),
    )
    return after, {**sampled, **optimised, "environment_steps": float(steps)}


def _adapt_and_collect(
    learner: TrainableLearner, meta: Tensors, tasks: Sequence[Task], seeds: Sequence[int], collect: Collect
) -> tuple[list[Experience[torch.Tensor]], torch.Tensor, dict[str, float]]:
    """Episodes of the states after k = 0..K inner steps, each trimmed to the longest of them; mean returns
    [B, K + 1]; and metrics.
    """
    state = learner.begin(meta, len(tasks))
    scale = torch.ones(len(tasks), device=next(iter(meta.values())).device)
    episodes: list[Experience[torch.Tensor]] = []
    returns: list[torch.Tensor] = []
    metrics: dict[str, float] = {}
    for k in range(learner.inner_steps + 1):
        one = collect(tasks, meta, state, seeds, k)
        capacity = bucket(int(one.experience.lengths.max()), learner.spec.horizon)
        episodes.append(trim(one.experience, capacity))
        returns.append(one.returns.mean(-1))
        metrics[f"return_{k}"] = float(one.returns.mean())
        if k < learner.inner_steps:
            state, inner = learner.adapt(meta, state, episodes[-1], scale)
            metrics[f"kl_{k}"] = float(inner["kl"].mean())
    return episodes, torch.stack(returns, -1), metrics


def _optimise(
    learner: TrainableLearner, state: TrainState, samples: Sequence[Samples]
) -> tuple[Tensors, AdamState, dict[str, float]]:
    """``learner.epochs`` optimiser steps down the meta-loss of the same samples."""
    meta, adam = state.meta, state.adam
    rates = {name: learner.learning_rate(name, state.update) for name in meta}
    metrics: dict[str, float] = {}
    for _ in range(learner.epochs):
        leaves = {name: value.detach().requires_grad_() for name, value in meta.items()}
        loss = learner.meta_loss(leaves, samples)
        gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        gradients, norm = optimiser.clip_norm(gradients, learner.gradient_clip)
        metrics = metrics or {"loss": float(loss.detach()), "gradient_norm": norm}
        meta, adam = optimiser.step(meta, gradients, adam, rates)
    return meta, adam, metrics


def to_bytes(state: TrainState) -> bytes:
    """A checkpoint: safetensors, each tensor under the part it belongs to (``meta/layers.0.bias``, ...)."""
    parts: dict[str, Tensors] = {
        "meta": state.meta,
        "first": state.adam.first,
        "second": state.adam.second,
        "generator": {name: torch.from_numpy(np.array(value)) for name, value in state.generator.items()},
        "counters": {"values": torch.tensor([state.update, state.environment_steps, state.adam.count])},
    }
    return safetensors.torch.save(
        {f"{part}/{name}": value.cpu() for part, tensors in parts.items() for name, value in tensors.items()}
    )


def from_bytes(data: bytes, device: torch.device | None = None) -> TrainState:
    """Read a checkpoint.

    Raises:
        DataLoss: the bytes are not a checkpoint.
    """
    parts: dict[str, Tensors] = {"meta": {}, "first": {}, "second": {}, "generator": {}, "counters": {}}
    try:
        for key, value in safetensors.torch.load(data).items():
            part, name = key.split("/", 1)
            parts[part][name] = value
        updates, steps, count = (int(n) for n in parts["counters"]["values"])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise DataLoss("these bytes are not a training checkpoint") from error
    meta, first, second = (
        {name: value.to(device or torch.device("cpu")) for name, value in parts[part].items()}
        for part in ("meta", "first", "second")
    )
    generator = {name: value.numpy() for name, value in parts["generator"].items()}
    return TrainState(meta, AdamState(first, second, count), updates, steps, generator)
