"""The newest trials that a student played, for methods that learn from a trial more than once.

A buffer is a value, a flat dict of tensors, so that it is part of a checkpoint and a training resumes bit for bit: what
every :class:`TrialRecord` has, [T, S, ...] for S slots and T steps of capacity, and ``written`` [1] int64, how many
trials there ever were.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F

from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.trial_record import TrialRecord

WRITTEN = "written"
_FIELDS = [field.name for field in dataclasses.fields(TrialRecord) if field.default is dataclasses.MISSING]


def empty(slots: int, steps: int, like: TrialRecord) -> Tensors:
    """Room for ``slots`` trials of at most ``steps`` steps, shaped as ``like``."""
    arrays = {name: getattr(like, name) for name in _FIELDS}
    buffer = {name: value.new_zeros((steps, slots, *value.shape[2:])) for name, value in arrays.items()}
    return {**buffer, WRITTEN: torch.zeros(1, dtype=torch.int64, device=like.real.device)}


def remember(buffer: Tensors, fresh: TrialRecord) -> Tensors:
    """The buffer with R more trials, in place of the oldest where it is full.

    Args:
        buffer: from :func:`empty`, with at least R slots.
        fresh: R whole trials.
    """
    steps, slots = buffer["real"].shape
    length, rows = fresh.real.shape
    at = (torch.arange(rows, device=fresh.real.device) + buffer[WRITTEN]) % slots
    after = {WRITTEN: buffer[WRITTEN] + rows}
    for name in _FIELDS:
        value = getattr(fresh, name)
        padded = F.pad(value, (0, 0) * (value.dim() - 1) + (0, steps - length))
        after[name] = buffer[name].index_copy(1, at, padded)
    return after


def draw(buffer: Tensors, n: int, rng: np.random.Generator) -> TrialRecord:
    """``n`` of the trials, with replacement, no longer than the longest of them."""
    filled = min(int(buffer[WRITTEN]), buffer["real"].shape[1])
    rows = torch.from_numpy(rng.integers(0, filled, n)).to(buffer["real"].device)
    length = int(buffer["real"][:, rows].sum(0).max())
    return TrialRecord(**{name: buffer[name][:length, rows] for name in _FIELDS})
