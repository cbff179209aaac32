"""The uniform generator: tasks 0, 1, 2, ... of a (seed, split) stream of the family, whatever happens to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from innerloop.arrays import Arrays
from innerloop_server.domain import Split
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.generators.generator import Feedback, Proposal
from innerloop_server.tasks.sampling import sample_task


@dataclass(frozen=True)
class UniformGenerator:
    """Independent draws from the family's own distribution. State: ``index``, int64: the next task's index.

    Workers that share a stream start at different indices, or take different seeds; there is nothing else to share.
    """

    family: Family
    seed: int
    split: Split = Split.TRAIN
    start: int = 0
    """Index of the first task."""

    def initial(self) -> Arrays:
        """At ``start``."""
        return {"index": np.asarray(self.start, np.int64)}

    def propose(self, state: Arrays, n: int) -> tuple[Proposal, Arrays]:
        """The next n tasks of the stream."""
        first = int(state["index"])
        tasks = [sample_task(self.family, self.seed, self.split, first + i) for i in range(n)]
        return Proposal.to_learn(tasks), {"index": np.asarray(first + n, np.int64)}

    def report(self, state: Arrays, feedback: Sequence[Feedback]) -> Arrays:  # noqa: ARG002 - uniform listens to nobody
        """Unchanged."""
        return state
