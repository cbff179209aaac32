"""Counter-based random streams: (seed, purpose, counters) names a stream, wherever and whenever it is drawn.

No stream derives from a name, a clock, a process or the order of calls (ray#46986 and envpool#144 show what
happens otherwise), so a resumed session or training draws the very numbers it would have drawn.
"""

from __future__ import annotations

import enum

import numpy as np


class Purpose(enum.IntEnum):
    """What a stream is for. Values are part of every seed's meaning: never renumber, only append."""

    TASK_TRAIN = 1
    TASK_VALIDATION = 2
    TASK_TEST = 3
    INITIAL_META = 4
    RESET = 5
    """Where the episodes of an adaptation step start."""
    ACTION = 6
    """What the policy draws in them."""
    EVALUATION_RESET = 7
    EVALUATION_ACTION = 8
    OBSERVE = 9
    """Actions of a client-owned environment."""
    BOOTSTRAP = 10
    """Resampling for intervals."""
    TRAINING = 11
    """Everything else the outer loop draws."""
    EVALUATION_SESSION = 12
    """Seeds of the sessions of an evaluation."""
    DYNAMICS = 13
    """What the environments draw in the steps of an adaptation step's episodes."""
    EVALUATION_DYNAMICS = 14
    GENERATOR = 15
    """What a task generator draws."""
    REFERENCE = 16
    """What simulating a reference strategy draws: its tasks, their noise and its own choices."""


def stream(seed: int, purpose: Purpose, *counters: int) -> np.random.Generator:
    """The generator for ``purpose`` under ``seed`` at ``counters`` (each a non-negative integer).

    Two calls with the same arguments give the same numbers; any difference gives an independent stream
    (Philox keyed through SeedSequence, whose mixing is collision resistant).
    """
    key = np.random.SeedSequence((seed, int(purpose), len(counters), *counters))
    return np.random.Generator(np.random.Philox(key))


def derive(seed: int, purpose: Purpose, *counters: int) -> int:
    """A 63-bit seed for a child (a session of an evaluation, say) under ``seed``."""
    return int(stream(seed, purpose, *counters).integers(0, 2**63 - 1))
