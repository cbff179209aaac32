"""A session on the device: how it gets there, what its next step is, and what goes back to disk and to people."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from innerloop.arrays import Array
from innerloop.policy import Policy
from innerloop_server.adaptation import memory, states
from innerloop_server.adaptation.guard import Guard
from innerloop_server.adaptation.inner_loop import (
    LoadedRevision,
    Resident,
    Step,
    is_held,
    memory_step,
    most_remembered,
    simulated_step,
    supervised_step,
)
from innerloop_server.adaptation.measures import UNCERTAINTY
from innerloop_server.adaptation.orders import Attach, Attached, StepOrder


def resident_of(order: Attach, revision: LoadedRevision, device: torch.device) -> Resident:
    """The state that an attachment asks for: unadapted, or that of its snapshot.

    Raises:
        DataLoss: the snapshot is none.
    """
    learner = revision.learner
    remembers = memory.remembers(learner)
    if order.snapshot:
        state, best, guard, phase = states.unpack_snapshot(order.snapshot, device)
    else:
        state = best = memory.begin(learner, revision.meta) if remembers else learner.begin(revision.meta, 1)
        guard, phase = Guard(enabled=order.guard), 0
    return Resident(
        revision=revision,
        seed=order.seed,
        episodes_per_step=order.episodes_per_step,
        task=order.task,
        simulator=order.simulator,
        state=state,
        best=best,
        guard=guard,
        number=order.number,
        phase=phase,
    )


def attached(key: int, resident: Resident) -> Attached:
    """What is said of a resident when it has come."""
    revision, kept = resident.revision, None
    if resident.task is None and memory.remembers(revision.learner):
        empty = memory.begin(revision.learner, revision.meta)
        kept = memory.kept_rows(resident.state, empty, most_remembered(resident))
    return Attached(key, policy_file(resident), kept)


def step_of(resident: Resident, order: StepOrder) -> Step:
    """A step of a simulated session, as its method takes one."""
    learner = resident.revision.learner
    if memory.remembers(learner):
        return memory_step(resident, greedy=order.greedy)
    return supervised_step(resident) if learner.spec.supervision else simulated_step(resident)


def snapshot(resident: Resident) -> bytes:
    """All that the session needs to go on from here."""
    return states.pack_snapshot(resident.state, resident.best, resident.guard, resident.phase)


@torch.no_grad()
def uncertainty(resident: Resident) -> dict[str, float]:
    """What the method believes about the task, as a metric; nothing where it does not say."""
    revision, state = resident.revision, resident.state
    remembers = memory.remembers(revision.learner)
    found = revision.learner.uncertainty(revision.meta, memory.own(state) if remembers else state)
    return {} if found is None else {UNCERTAINTY: float(found.detach().cpu().numpy().astype(np.float64).mean())}


def policy_file(resident: Resident) -> bytes:
    """The present state as a portable policy file. One that remembers starts where the session is, and is frozen there
    where the guard holds what it remembers.
    """
    revision, state = resident.revision, resident.state
    remembers = memory.remembers(revision.learner)
    header, weights = revision.learner.export(revision.meta, memory.own(state) if remembers else state)
    spec = revision.ref.spec
    header = replace(header, family=spec.family, learner=spec.name, revision=revision.ref.name, steps=resident.number)
    start: dict[str, Array] = {}
    if remembers:
        start = memory.weights_of(state)
        header = replace(header, adapts=not is_held(resident, memory.remembered(state, resident.number)))
    return Policy(header, {**weights[0], **start}).to_bytes()
