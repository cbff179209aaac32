"""The student that teaches meta-DQN: play fresh tasks, a little at random, and learn from all that is remembered."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from innerloop_server.domain import Task
from innerloop_server.learners import networks, q_targets, recurrent
from innerloop_server.learners.distributions import Categorical
from innerloop_server.learners.learner import Distribution, Input, Tensors
from innerloop_server.learners.meta_dqn import MEMORY, TARGET, MetaDqn
from innerloop_server.learners.trial_record import TrialRecord
from innerloop_server.streams import Purpose, stream
from innerloop_server.training import optimiser, trial_replay
from innerloop_server.training.optimiser import AdamState
from innerloop_server.training.student import Played, Student
from innerloop_server.training.trial_collect import CollectTrials
from innerloop_server.training.trial_student import outcome_of

_METRICS = ("loss", "action_value", "gradient_norm")


@dataclass(frozen=True)
class Record:
    """An update's trials, and all that is remembered."""

    trials: TrialRecord
    """R of them."""
    x: torch.Tensor
    """[T, R, I] what the network read."""
    memories: torch.Tensor
    """[T, R, M] what it remembered after each step."""
    remembered: Tensors
    """A replay; empty before :meth:`MetaDqnStudent.remember` saw the trials."""


class Exploring(MetaDqn):
    """The method as it plays in training: greedy, but for a random action now and then, in each row as often as the
    ladder says.
    """

    def act(self, meta: Tensors, state: Tensors, input: Input) -> tuple[Distribution, Tensors]:
        """Greedy in the action values, and sometimes random."""
        s = self.settings
        greedy, state = super().act(meta, state, input)
        assert isinstance(greedy, Categorical)
        rates = q_targets.ladder(state[MEMORY].shape[1], s.exploration, s.exploration_spread)
        epsilon = networks.constant(rates, greedy.logits.dtype, greedy.logits.device)
        return Categorical(torch.log(q_targets.epsilon_greedy(greedy.logits, epsilon))), state


class MetaDqnStudent(Student[Record]):
    """Meta-DQN in the outer loop, one trial of each task an update. "After k adaptation steps" is: in episode k."""

    def __init__(self, learner: MetaDqn, collect: CollectTrials) -> None:
        """Args:
        learner: the method.
        collect: runs the trials, of :class:`Exploring`.
        """
        self.learner = learner
        self._collect = collect

    @property
    def tasks_per_update(self) -> int:
        """As the method's settings say."""
        return self.learner.tasks_per_update

    def initial_meta(self, seed: int) -> Tensors:
        """As the method's."""
        return self.learner.initial_meta(seed)

    @torch.no_grad()
    def play(self, meta: Tensors, tasks: Sequence[Task], seeds: Sequence[int]) -> Played[Record]:
        """One trial of each task, exploring; the first seed names them all."""
        trials = self._collect(meta, tasks, seeds[0])
        x = recurrent.trial_features(self.learner.header, trials, meta["gru.hidden.weight"].dtype)
        record = Record(trials, x, self.learner.memories(meta, x), {})
        return Played(record, *outcome_of(trials, tasks, self.learner.settings.episodes_per_trial))

    def remember(
        self, memory: Tensors, played: Played[Record], learn: Sequence[bool], update: int, seed: int
    ) -> tuple[Tensors, Played[Record]]:
        """The replay with the trials of the tasks to learn from; it is what :meth:`learn` learns from."""
        del update, seed
        record, s = played.episodes, self.learner.settings
        kept = torch.tensor(learn, device=record.x.device)
        fresh = trial_replay.cut_up(
            record.trials.of(kept),
            record.x[:, kept],
            record.memories[:, kept],
            window=s.window,
            burn_in=s.burn_in,
            longest=self.learner.spec.horizon * s.episodes_per_trial,
            limit_ends=s.limit_ends,
        )
        after = trial_replay.remember(memory or trial_replay.empty(s.replay, fresh), fresh)
        return after, dataclasses.replace(played, episodes=dataclasses.replace(record, remembered=after))

    def learn(
        self,
        meta: Tensors,
        adam: AdamState,
        played: Played[Record],
        learn: Sequence[bool],
        update: int,
        seed: int,
    ) -> tuple[Tensors, AdamState, dict[str, float]]:
        """``gradient_steps`` optimiser steps, each on fresh draws from the replay; none while it warms up."""
        s = self.learner.settings
        if not any(learn) or update < s.warmup_updates:
            return meta, adam, dict.fromkeys(_METRICS, 0.0)
        rng = stream(seed, Purpose.TRAINING, update)
        progress = update / max(1, s.updates - 1)
        rate = s.learning_rate + progress * (s.final_learning_rate - s.learning_rate)
        totals = dict.fromkeys(_METRICS, 0.0)
        for _ in range(s.gradient_steps):
            stretches = trial_replay.draw(played.episodes.remembered, s.batch, rng)
            leaves = optimiser.leaves({name: w for name, w in meta.items() if not name.startswith(TARGET)})
            loss, watched = self.learner.loss({**meta, **leaves}, stretches)
            learned, adam, norm = optimiser.descend(loss, leaves, adam, rate, s.gradient_clip)
            followed = {TARGET + name: meta[TARGET + name].lerp(w, s.target_rate) for name, w in learned.items()}
            meta = {**learned, **followed}
            measured = {name: float(value) for name, value in watched.items()}
            for name, value in {**measured, "loss": float(loss.detach()), "gradient_norm": norm}.items():
                totals[name] += value / s.gradient_steps
        return meta, adam, totals
