"""The outer loop as a value: one meta-update takes a state and gives the next.

``update`` is a function of its arguments alone: every random number comes from a stream named by the seed
and the update's number. So a training that was killed and resumed from a checkpoint goes on bit for bit (on the CPU).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import safetensors
import safetensors.torch
import torch

from innerloop.arrays import Arrays
from innerloop_server.errors import DataLoss
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.trainable import TrainableLearner
from innerloop_server.streams import Purpose, derive
from innerloop_server.tasks.generators.generator import Proposer, TaskGenerator
from innerloop_server.training import optimiser
from innerloop_server.training.collect import Collect
from innerloop_server.training.optimiser import AdamState
from innerloop_server.training.student import EpisodesT, Student
from innerloop_server.training.students import student_of


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
    memory: Tensors = field(default_factory=dict)
    """What the student keeps (``Student.remember``)."""


def start(
    learner: TrainableLearner | Student[EpisodesT], generator: Proposer, seed: int, device: torch.device | None = None
) -> TrainState:
    """The state before the first update."""
    meta = {name: value.to(device or torch.device("cpu")) for name, value in learner.initial_meta(seed).items()}
    return TrainState(meta, optimiser.start(meta), 0, 0, generator.initial())


def update(
    learner: TrainableLearner, generator: TaskGenerator, collect: Collect, state: TrainState, seed: int
) -> tuple[TrainState, dict[str, float]]:
    """One meta-update: fresh tasks, K adaptations with fresh episodes each, some optimiser steps on all of it.

    In a supervised family the episodes at k = 0 are the support, which every adaptation of the task learns from; those
    after are fresh queries.

    Args:
        learner: the method.
        generator: proposes the tasks and is told how they went.
        collect: runs the episodes (``collect.batch_collector``, or environment actors).
        state: before.
        seed: of the whole training; with ``state.update`` it names every stream.

    Returns:
        (state, metrics): ``return_k`` is the mean undiscounted return after k inner steps, k = 0..K; ``kl_k`` the
        KL of inner step k; what the student says of its learning (of MAML ``loss``, the meta-loss before the first
        optimiser step, and ``gradient_norm``, that of its gradient before clipping), 0 in an update whose tasks were
        all proposed to be looked at only; ``environment_steps`` of this update.
    """
    return teach(student_of(learner, collect), generator, state, seed)


def teach(
    student: Student[EpisodesT], generator: TaskGenerator, state: TrainState, seed: int
) -> tuple[TrainState, dict[str, float]]:
    """One update of any student on the tasks that a generator proposes. As :func:`update`; the metrics are the
    student's, and ``environment_steps``.
    """
    proposal, proposed = generator.propose(state.generator, student.tasks_per_update)
    seeds = [derive(seed, Purpose.TRAINING, state.update, i) for i in range(len(proposal.tasks))]
    played = student.play(state.meta, proposal.tasks, seeds)
    memory, lessons = student.remember(state.memory, played, proposal.learn, state.update, seed)
    meta, adam, learned = student.learn(state.meta, state.adam, lessons, proposal.learn, state.update, seed)
    memory, meta, adam, more = student.conclude(memory, meta, adam, state.update, seed)
    steps = played.environment_steps + more
    after = TrainState(
        meta=meta,
        adam=adam,
        update=state.update + 1,
        environment_steps=state.environment_steps + steps,
        generator=generator.report(proposed, played.feedback),
        memory=memory,
    )
    return after, {**played.metrics, **learned, "environment_steps": float(steps)}


def to_bytes(state: TrainState) -> bytes:
    """A checkpoint: safetensors, each tensor under the part it belongs to (``meta/layers.0.bias``, ...)."""
    parts: dict[str, Tensors] = {
        "meta": state.meta,
        "first": state.adam.first,
        "second": state.adam.second,
        "memory": state.memory,
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
    parts: dict[str, Tensors] = {"meta": {}, "first": {}, "second": {}, "memory": {}, "generator": {}, "counters": {}}
    try:
        for key, value in safetensors.torch.load(data).items():
            part, name = key.split("/", 1)
            parts[part][name] = value
        updates, steps, count = (int(n) for n in parts["counters"]["values"])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise DataLoss("these bytes are not a training checkpoint") from error
    meta, first, second, memory = (
        {name: value.to(device or torch.device("cpu")) for name, value in parts[part].items()}
        for part in ("meta", "first", "second", "memory")
    )
    generator = {name: value.numpy() for name, value in parts["generator"].items()}
    return TrainState(meta, AdamState(first, second, count), updates, steps, generator, memory)
