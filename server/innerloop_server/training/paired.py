"""PAIRED: two students play the tasks that an adversary writes, and the adversary lives on how they differ.

Dennis et al. 2020, "Emergent Complexity and Zero-shot Transfer via Unsupervised Environment Design"
(https://arxiv.org/abs/2012.02096). The regret of a task is estimated by the best return of the antagonist on it minus
the protagonist's mean return; the adversary raises it, the protagonist lowers it, the antagonist raises its own return.
Were the adversary paid for the protagonist's failures alone, it would write impossible tasks; but where the antagonist
fails as well there is no regret.

Difference: the original's protagonist and antagonist are paid the regret; here each learns from its own return, as in
the authors' later "flexible" form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from innerloop.arrays import Arrays
from innerloop_server.learners.learner import Tensors
from innerloop_server.streams import Purpose, derive
from innerloop_server.tasks.generators.generator import Feedback, Proposal
from innerloop_server.training import optimiser, packed
from innerloop_server.training.adversary_generator import AdversaryGenerator
from innerloop_server.training.network_steps import arrays, pack, tensors, unpack
from innerloop_server.training.outer_loop import TrainState
from innerloop_server.training.student import EpisodesT, Student

ANTAGONIST = "antagonist"
_MEMORY = f"{ANTAGONIST}/memory"
_FRESH, _PLAYS = 0, 1
"""Counters of the antagonist's streams."""


class Learns(Protocol):
    """Whoever has meta-parameters to begin with: a learner, or a student."""

    def initial_meta(self, seed: int) -> Tensors:
        """Fresh meta-parameters."""
        ...


@dataclass(frozen=True)
class Paired:
    """The adversary and the antagonist, of whom the antagonist always starts out fresh.

    State: the adversary's, and the antagonist's meta-parameters and optimiser (``packed``) under ``antagonist/``.
    """

    adversary: AdversaryGenerator
    learner: Learns

    def initial(self) -> Arrays:
        """Both before the first update.

        Raises:
            InvalidField: tasks of the family cannot be made up.
        """
        meta = self.learner.initial_meta(derive(self.adversary.seed, Purpose.GENERATOR, _FRESH))
        return {**self.adversary.initial(), **pack(ANTAGONIST, meta, optimiser.start(meta))}

    def propose(self, state: Arrays, n: int) -> tuple[Proposal, Arrays]:
        """As the adversary."""
        return self.adversary.propose(state, n)


def update(
    student: Student[EpisodesT], paired: Paired, state: TrainState, seed: int
) -> tuple[TrainState, dict[str, float]]:
    """One update of the protagonist (the student's ``state.meta``), the antagonist and the adversary.

    Args:
        student: how both play and learn.
        paired: what else there is.
        state: before; its generator state is ``paired``'s.
        seed: of the whole training; with ``state.update`` it names every stream.

    Returns:
        (state, metrics): the protagonist's, and the mean ``regret``; ``environment_steps`` counts both students'.
    """
    proposal, proposed = paired.propose(state.generator, student.tasks_per_update)
    n = len(proposal.tasks)
    seeds = [derive(seed, Purpose.TRAINING, state.update, i) for i in range(n)]
    others = [derive(seed, Purpose.TRAINING, state.update, i, _PLAYS) for i in range(n)]
    device = next(iter(state.meta.values())).device
    rival, rival_adam = unpack(ANTAGONIST, proposed, device)
    own, its = student.play(state.meta, proposal.tasks, seeds), student.play(rival, proposal.tasks, others)
    learn, number, rival_seed = proposal.learn, state.update, derive(seed, Purpose.GENERATOR, _PLAYS)
    memory, lessons = student.remember(state.memory, own, learn, number, seed)
    meta, adam, metrics = student.learn(state.meta, state.adam, lessons, learn, number, seed)
    remembered = tensors(packed.part(proposed, _MEMORY), device)
    remembered, lessons = student.remember(remembered, its, learn, number, rival_seed)
    rival, rival_adam, _ = student.learn(rival, rival_adam, lessons, learn, number, rival_seed)
    regrets = np.array([regret(a, b) for a, b in zip(own.feedback, its.feedback, strict=True)])
    told = paired.adversary.learn(proposed, regrets)
    steps = own.environment_steps + its.environment_steps
    after = TrainState(
        meta=meta,
        adam=adam,
        update=state.update + 1,
        environment_steps=state.environment_steps + steps,
        generator={
            **told,
            **pack(ANTAGONIST, rival, rival_adam),
            **{f"{_MEMORY}/{name}": value for name, value in arrays(remembered).items()},
        },
        memory=memory,
    )
    return after, {**own.metrics, **metrics, "regret": float(regrets.mean()), "environment_steps": float(steps)}


def regret(protagonist: Feedback, antagonist: Feedback) -> float:
    """Of a task that both played: after the last adaptation step, the antagonist's best return minus the protagonist's
    mean.
    """
    return antagonist.best_returns[-1] - protagonist.returns[-1]
