"""The student that teaches VariBAD: play whole trials, keep them, learn to act by PPO and to believe by the bound."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from innerloop_server.domain import Task
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.trial_record import TrialRecord
from innerloop_server.learners.varibad import Draws, Varibad, of_belief, of_policy
from innerloop_server.learners.varibad_networks import check_states
from innerloop_server.streams import Purpose, stream
from innerloop_server.training import optimiser, trial_buffer
from innerloop_server.training.optimiser import AdamState
from innerloop_server.training.student import Played, Student
from innerloop_server.training.trial_collect import CollectTrials
from innerloop_server.training.trial_student import Tell, TrialStudent, improve, rates

BELIEF_COUNT = "belief steps"
"""Among Adam's first moments: how many steps those of the belief have behind them, [1] int64. ``count`` is the
policy's."""
_METRICS = ("loss", "gradient_norm", "unexplained", "belief_kl", "belief_entropy", "belief_gradient_norm")


@dataclass(frozen=True)
class Record:
    """An update's trials, and all that are kept."""

    fresh: TrialRecord
    kept: Tensors
    """A buffer; empty before :meth:`VaribadStudent.remember` saw ``fresh``."""


class VaribadStudent(Student[Record]):
    """VariBAD in the outer loop. Policy and belief have no parameter in common and an optimiser each."""

    def __init__(self, learner: Varibad, collect: CollectTrials, tell: Tell | None = None) -> None:
        """Args:
        learner: the method.
        collect: runs the trials.
        tell: what tells tasks, where the value is told.
        """
        self.learner = learner
        self._trials = TrialStudent(learner, collect, tell)

    @property
    def tasks_per_update(self) -> int:
        """As the method's settings say."""
        return self.learner.tasks_per_update

    def initial_meta(self, seed: int) -> Tensors:
        """As the method's."""
        return self.learner.initial_meta(seed)

    def play(self, meta: Tensors, tasks: Sequence[Task], seeds: Sequence[int]) -> Played[Record]:
        """One trial of each task, as :class:`TrialStudent`."""
        played = self._trials.play(meta, tasks, seeds)
        return Played(Record(played.episodes, {}), played.feedback, played.environment_steps, played.metrics)

    def remember(
        self, memory: Tensors, played: Played[Record], learn: Sequence[bool], update: int, seed: int
    ) -> tuple[Tensors, Played[Record]]:
        """The buffer with the trials to learn from.

        Raises:
            InvalidField: the decoder explains states, and observations are none; names ``settings.decoder``.
        """
        del update, seed
        fresh, s = played.episodes.fresh, self.learner.settings
        if s.decoder != "transitions":
            check_states(self.learner.header, fresh.outcomes)
        longest = self.learner.spec.horizon * s.episodes_per_trial
        after = memory or trial_buffer.empty(s.buffer_trials, longest, fresh)
        if any(learn):
            after = trial_buffer.remember(after, _to_learn_from(fresh, learn))
        return after, dataclasses.replace(played, episodes=Record(fresh, after))

    def learn(
        self,
        meta: Tensors,
        adam: AdamState,
        played: Played[Record],
        learn: Sequence[bool],
        update: int,
        seed: int,
    ) -> tuple[Tensors, AdamState, dict[str, float]]:
        """PPO on the update's trials, with the beliefs that they were played with; then ``belief_steps`` steps of the
        bound, each on fresh draws from the buffer; then the running statistics. Rates fall to zero over the updates.
        """
        if not any(learn):
            return meta, adam, dict.fromkeys(_METRICS, 0.0)
        left = 1 - self.learner.progress(update)
        trials = _to_learn_from(played.episodes.fresh, learn)
        policy, policy_adam, acting = self._improve(meta, adam, trials, left, stream(seed, Purpose.TRAINING, update))
        rng = stream(seed, Purpose.TRAINING, update, 0, 0)
        belief, belief_adam, believing = self._explain(meta, adam, played.episodes.kept, left, rng)
        after = {**meta, **policy, **belief}
        if left:
            after = self.learner.with_statistics(after, trials, self.learner.settings.statistics_rate)
        return after, _joined(adam, policy_adam, belief_adam), {**acting, **believing}

    def _improve(
        self, meta: Tensors, adam: AdamState, trials: TrialRecord, left: float, rng: np.random.Generator
    ) -> tuple[Tensors, AdamState, dict[str, float]]:
        """Policy and value after ``epochs`` passes over the trials."""
        s = self.learner.settings
        samples = self.learner.prepare(meta, trials)
        weights = of_policy(meta)
        state = _part_of(adam, weights, adam.count)
        return improve(self.learner, weights, state, samples, rates(s, 1 - left), rng)

    def _explain(
        self, meta: Tensors, adam: AdamState, kept: Tensors, left: float, rng: np.random.Generator
    ) -> tuple[Tensors, AdamState, dict[str, float]]:
        """Encoder and decoder after ``belief_steps`` steps."""
        s = self.learner.settings
        weights = of_belief(meta)
        count = adam.first.get(BELIEF_COUNT)
        state = _part_of(adam, weights, 0 if count is None else int(count))
        totals = {"unexplained": 0.0, "belief_kl": 0.0, "belief_entropy": 0.0, "belief_gradient_norm": 0.0}
        for _ in range(s.belief_steps):
            trials = trial_buffer.draw(kept, s.belief_batch, rng)
            leaves = optimiser.leaves(weights)
            loss, parts = self.learner.bound_loss({**meta, **leaves}, trials, self._draws(trials, rng))
            rate, clip = s.belief_learning_rate * left, s.belief_gradient_clip
            weights, state, norm = optimiser.descend(loss, leaves, state, rate, clip)
            measured = {name: float(value) for name, value in parts.items()}
            for name, value in {**measured, "belief_gradient_norm": norm}.items():
                totals[name] += value / s.belief_steps
        return weights, state, totals

    def _draws(self, trials: TrialRecord, rng: np.random.Generator) -> Draws:
        s, (length, rows) = self.learner.settings, trials.real.shape
        terms, steps = min(s.belief_terms, length), min(s.decoded_steps, length)
        drawn = (
            rng.random((terms, rows)),
            rng.standard_normal((terms, rows, s.latent), np.float32),
            rng.random((steps, rows)),
        )
        return Draws(*(torch.from_numpy(one).to(trials.real.device) for one in drawn))


def _to_learn_from(trials: TrialRecord, learn: Sequence[bool]) -> TrialRecord:
    return trials if all(learn) else trials.of(torch.tensor(learn, device=trials.real.device))


def _part_of(adam: AdamState, weights: Tensors, count: int) -> AdamState:
    """What Adam remembers of some of the weights."""
    first, second = ({name: moments[name] for name in weights} for moments in (adam.first, adam.second))
    return AdamState(first, second, count)


def _joined(adam: AdamState, policy: AdamState, belief: AdamState) -> AdamState:
    """Both optimisers in one state, and what neither of them moves as it was."""
    count = torch.tensor([belief.count], dtype=torch.int64)
    first = {**adam.first, **policy.first, **belief.first, BELIEF_COUNT: count}
    return AdamState(first, {**adam.second, **policy.second, **belief.second}, policy.count)
