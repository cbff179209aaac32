"""What a student remembers of whole trials: a ring of stretches of them, each with the memory that it was played with.

A stretch begins every ``window`` steps and is ``burn_in + window`` steps long, and one more that only says what
followed. Its first ``burn_in`` steps bring the memory, which is an earlier network's, up to date (Kapturowski et al.
2019, https://openreview.net/forum?id=r1lyTjAqYX), and those after them teach. Where a trial begins the memory is empty
whoever plays, so there the first ones teach too, and every step does so once.

A replay is a value, a flat dict of tensors, and part of a checkpoint: a training resumes bit for bit.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F

from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.meta_dqn import Stretches
from innerloop_server.learners.trial_record import TrialRecord

WRITTEN = "written"
"""[1] int64 stretches ever written. The rest is ``Stretches`` with the slots in front: [C, L, ...]."""


def cut_up(
    trials: TrialRecord,
    x: torch.Tensor,
    memories: torch.Tensor,
    *,
    window: int,
    burn_in: int,
    longest: int,
    limit_ends: bool,
) -> Stretches:
    """Trials as stretches of ``burn_in + window + 1`` steps, those that teach something.

    Args:
        trials: R of them.
        x: [T, R, I] what the network read.
        memories: [T, R, M] what it remembered after each step.
        window: steps from one stretch to the next.
        burn_in: steps of all but a trial's first stretch that do not teach.
        longest: steps that a trial may have; stretches have no more.
        limit_ends: whether nothing follows a trial's last step where its time was up, too. Else such a step teaches
            nothing: what follows is not known.
    """
    length, rows = trials.real.shape
    starts = range(0, max(1, length - burn_in), window)
    steps = min(burn_in + window + 1, longest)
    padding = max(0, starts[-1] + steps - length)

    def stretched(values: torch.Tensor) -> torch.Tensor:
        padded = F.pad(values.transpose(0, 1), (0, 0) * (values.dim() - 2) + (0, padding))
        return torch.cat([padded[:, start : start + steps] for start in starts])

    at = torch.arange(steps, device=x.device)
    taught = [(at < burn_in + window) & ((at >= burn_in) | (start == 0)) for start in starts]
    cut = trials.trial_end if limit_ends else trials.trial_end & trials.terminated
    known = trials.real & (cut | ~trials.trial_end)
    teaches = stretched(known) & torch.stack(taught).repeat_interleave(rows, 0)
    before = torch.cat([torch.zeros_like(memories[:1]), memories])
    kept = teaches.any(-1)
    return Stretches(
        x=stretched(x)[kept],
        actions=stretched(trials.actions)[kept],
        rewards=stretched(trials.rewards)[kept],
        cut=stretched(cut)[kept],
        teaches=teaches[kept],
        memory=torch.cat([before[start] for start in starts])[kept],
    )


def empty(capacity: int, like: Stretches) -> Tensors:
    """A replay with room for so many stretches, shaped as ``like``."""
    replay = {name: value.new_zeros((capacity, *value.shape[1:])) for name, value in _arrays(like).items()}
    replay[WRITTEN] = torch.zeros(1, dtype=torch.int64, device=like.memory.device)
    return replay


def remember(replay: Tensors, fresh: Stretches) -> Tensors:
    """The replay with more stretches, in place of the oldest where it is full; of more than fit the last are kept.

    Args:
        replay: from :func:`empty`.
        fresh: S of them.
    """
    capacity = len(replay["memory"])
    rows = {name: value[-capacity:] for name, value in _arrays(fresh).items()}
    written, many = int(replay[WRITTEN]), len(rows["memory"])
    at = torch.arange(written, written + many, device=fresh.memory.device) % capacity
    after = {name: replay[name].index_copy(0, at, value) for name, value in rows.items()}
    after[WRITTEN] = replay[WRITTEN] + many
    return after


def draw(replay: Tensors, n: int, rng: np.random.Generator) -> Stretches:
    """``n`` remembered stretches, with replacement."""
    filled = min(int(replay[WRITTEN]), len(replay["memory"]))
    at = torch.from_numpy(rng.integers(0, filled, n)).to(replay["memory"].device)
    return Stretches(**{field.name: replay[field.name][at] for field in dataclasses.fields(Stretches)})


def _arrays(stretches: Stretches) -> Tensors:
    return {field.name: getattr(stretches, field.name) for field in dataclasses.fields(Stretches)}
