"""What a student remembers of the tasks it played: a ring of tasks, each with a bounded set of its transitions.

A replay is a value, a flat dict of tensors, so that it is part of a checkpoint and a training resumes bit for bit.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F

from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.transitions import Transitions

LENGTH, WRITTEN = "length", "written"
"""[S] int64 transitions of each slot; [1] int64 tasks ever written. The rest is ``Transitions`` [S, C, ...]."""


def empty(tasks: int, steps: int, like: Transitions) -> Tensors:
    """A replay of ``tasks`` slots with room for ``steps`` transitions each, shaped as ``like``."""
    replay = {
        field.name: getattr(like, field.name).new_zeros((tasks, steps, *getattr(like, field.name).shape[2:]))
        for field in dataclasses.fields(Transitions)
    }
    device = like.rewards.device
    replay[LENGTH] = torch.zeros(tasks, dtype=torch.int64, device=device)
    replay[WRITTEN] = torch.zeros(1, dtype=torch.int64, device=device)
    return replay


def remember(replay: Tensors, fresh: Transitions, rng: np.random.Generator) -> Tensors:
    """The replay with B more tasks, in place of the oldest where it is full.

    Args:
        replay: from :func:`empty`, with at least B slots.
        fresh: of B tasks; of one with more transitions than there is room for, so many are drawn at random.
        rng: draws them.
    """
    slots, room = replay["real"].shape
    b, m = fresh.real.shape
    # Real ones first, in random order.
    keys = torch.from_numpy(rng.random((b, m))).to(fresh.real.device) + (~fresh.real).double()
    kept = fresh.take(keys.argsort(-1)[:, :room])
    written = int(replay[WRITTEN])
    at = torch.arange(written, written + b, device=keys.device) % slots
    after: Tensors = {}
    for field in dataclasses.fields(Transitions):
        value = getattr(kept, field.name)
        padding = (0, 0) * (value.dim() - 2) + (0, room - value.shape[1])
        after[field.name] = replay[field.name].index_copy(0, at, F.pad(value, padding))
    after[LENGTH] = replay[LENGTH].index_copy(0, at, kept.real.sum(-1))
    after[WRITTEN] = replay[WRITTEN] + b
    return after


def draw_tasks(replay: Tensors, n: int, rng: np.random.Generator) -> torch.Tensor:
    """Slots of ``n`` remembered tasks, [n] int64, with replacement."""
    filled = min(int(replay[WRITTEN]), len(replay[LENGTH]))
    return torch.from_numpy(rng.integers(0, filled, n)).to(replay[LENGTH].device)


def draw(replay: Tensors, tasks: torch.Tensor, n: int, rng: np.random.Generator) -> Transitions:
    """``n`` transitions of each of B remembered tasks, [B, n], with replacement."""
    uniforms = torch.from_numpy(rng.random((len(tasks), n))).to(tasks.device)
    rows = (uniforms * replay[LENGTH][tasks, None]).long()
    at = tasks[:, None].expand_as(rows)
    return Transitions(**{field.name: replay[field.name][at, rows] for field in dataclasses.fields(Transitions)})
