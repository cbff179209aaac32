"""Several trainings in one, of which the best is kept.

Where a policy settles early and for good (on which way round it searches, say), luck decides how well: more updates of
the same policy change little, another start may. So the updates of a training are divided among attempts from fresh
weights, each with the whole schedule of learning rate and entropy. They are compared on the same training tasks; no
validation task is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from innerloop_server.domain import Split, Task
from innerloop_server.learners.learner import Tensors
from innerloop_server.streams import Purpose, derive
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training import optimiser
from innerloop_server.training.optimiser import AdamState
from innerloop_server.training.student import Played, Student
from innerloop_server.training.trial_collect import CollectTrials
from innerloop_server.training.trial_student import TrialStudent
from innerloop_server.training.varibad_student import VaribadStudent

JUDGED_TASKS, JUDGED_ON_ACTORS = 2_048, 256
"""Training tasks that attempts are compared on, a trial each; fewer where every step is an actor's."""
_BEST, _SCORE, _OWN = "best.", "score", "student."
_JUDGED, _FRESH = 1, 2  # what a stream of the training is for, beside updates


@dataclass(frozen=True)
class AttemptsStudent(Student[Any]):
    """A student of whole trials that starts over. Its memory is the best attempt that is over, its return, and what the
    present one remembers.
    """

    student: TrialStudent | VaribadStudent
    judge: CollectTrials
    """Runs the trials that attempts are compared by; greedy ones, where they can be had."""
    family: Family
    """Where their tasks are drawn."""
    judged: int = JUDGED_TASKS
    """How many tasks they are compared on."""

    @property
    def tasks_per_update(self) -> int:
        """As the student's."""
        return self.student.tasks_per_update

    def initial_meta(self, seed: int) -> Tensors:
        """The student's; of the first attempt."""
        return self.student.initial_meta(seed)

    def play(self, meta: Tensors, tasks: Sequence[Task], seeds: Sequence[int]) -> Played[Any]:
        """As the student."""
        return self.student.play(meta, tasks, seeds)

    def remember(
        self, memory: Tensors, played: Played[Any], learn: Sequence[bool], update: int, seed: int
    ) -> tuple[Tensors, Played[Any]]:
        """As the student, in the present attempt."""
        own = {name.removeprefix(_OWN): value for name, value in memory.items() if name.startswith(_OWN)}
        own, played = self.student.remember(own, played, learn, update, seed)
        return {**_of_best(memory), **{_OWN + name: value for name, value in own.items()}}, played

    def learn(
        self,
        meta: Tensors,
        adam: AdamState,
        played: Played[Any],
        learn: Sequence[bool],
        update: int,
        seed: int,
    ) -> tuple[Tensors, AdamState, dict[str, float]]:
        """As the student, in the attempt that ``update`` is part of."""
        return self.student.learn(meta, adam, played, learn, update, seed)

    def conclude(
        self, memory: Tensors, meta: Tensors, adam: AdamState, update: int, seed: int
    ) -> tuple[Tensors, Tensors, AdamState, int]:
        """Where an attempt is over, keep it if it is the best so far, and go on from fresh weights; after the last,
        with the best.
        """
        learner = self.student.learner
        done, last = update + 1, update + 1 == learner.updates
        if done < learner.attempt(update).stop:
            return memory, meta, adam, 0
        memory = _of_best(memory)  # the attempt is over, and with it what it remembers
        trials = self.judge(meta, self._judged(seed), derive(seed, Purpose.TRAINING, 0, _JUDGED))
        score = trials.rewards.sum(0).double().mean()
        if not memory or score > memory[_SCORE]:
            memory = {_SCORE: score, **{_BEST + name: value for name, value in meta.items()}}
        if last:
            meta = {name.removeprefix(_BEST): value for name, value in memory.items() if name.startswith(_BEST)}
            memory = {_SCORE: memory[_SCORE]}  # the weights are the training's now
        else:
            device = next(iter(meta.values())).device
            drawn = self.initial_meta(derive(seed, Purpose.TRAINING, done, _FRESH))
            meta = {name: value.to(device) for name, value in drawn.items()}
        return memory, meta, optimiser.start(meta), int(trials.real.sum())

    def _judged(self, seed: int) -> list[Task]:
        drawn = derive(seed, Purpose.TRAINING, 0, _JUDGED)
        return [sample_task(self.family, drawn, Split.TRAIN, i) for i in range(self.judged)]


def _of_best(memory: Tensors) -> Tensors:
    """What is kept of the best attempt that is over."""
    return {name: value for name, value in memory.items() if not name.startswith(_OWN)}
