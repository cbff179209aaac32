"""The student with a memory: it plays whole trials and learns from their whole return."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from innerloop.arrays import Array
from innerloop_server.domain import Task
from innerloop_server.errors import InvalidField
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.trial_ppo import TrialLearner, TrialSamples
from innerloop_server.learners.trial_ppo_settings import TrialPpoSettings
from innerloop_server.learners.trial_record import TrialRecord
from innerloop_server.streams import Purpose, stream
from innerloop_server.tasks.generators.generator import Feedback
from innerloop_server.training import optimiser
from innerloop_server.training.optimiser import AdamState
from innerloop_server.training.student import Played, Student, feedback_of
from innerloop_server.training.trial_collect import CollectTrials

Tell = Callable[[Sequence[Task]], Array]
"""R tasks -> the numbers that tell each, [R, P] float32."""


@dataclass(frozen=True)
class TrialStudent(Student[TrialRecord]):
    """PPO on whole trials, one of each task an update. "After k adaptation steps" is: in episode k of the trial."""

    learner: TrialLearner
    collect: CollectTrials
    """Runs the trials."""
    tell: Tell | None = None
    """What tells tasks: for methods that have a ``task_size``."""

    @property
    def tasks_per_update(self) -> int:
        """As the method's settings say."""
        return self.learner.tasks_per_update

    def initial_meta(self, seed: int) -> Tensors:
        """As the method's."""
        return self.learner.initial_meta(seed)

    def play(self, meta: Tensors, tasks: Sequence[Task], seeds: Sequence[int]) -> Played[TrialRecord]:
        """One trial of each task; the first seed names them all."""
        trials = self.collect(meta, tasks, seeds[0])
        if self.learner.task_size:
            trials = dataclasses.replace(trials, task=self._told(tasks).to(trials.real.device).unsqueeze(0))
        return Played(trials, *outcome_of(trials, tasks, self.learner.settings.episodes_per_trial))

    def _told(self, tasks: Sequence[Task]) -> torch.Tensor:
        """[R, P].

        Raises:
            InvalidField: the setting says another P than the tasks have.
        """
        if self.tell is None:
            raise ValueError("the method is told its tasks in training, and there is nothing that tells them")
        told, wanted = torch.from_numpy(self.tell(tasks)), self.learner.task_size
        if told.shape[1] != wanted:
            raise InvalidField(
                "settings.task_size", f"is {wanted}; a task of this family takes {told.shape[1]} numbers to tell"
            )
        return told

    def learn(
        self,
        meta: Tensors,
        adam: AdamState,
        played: Played[TrialRecord],
        learn: Sequence[bool],
        update: int,
        seed: int,
    ) -> tuple[Tensors, AdamState, dict[str, float]]:
        """``epochs`` passes over the trials of the tasks to learn from, each a fresh permutation of them in
        ``minibatches`` parts.
        """
        metrics = {"loss": 0.0, "gradient_norm": 0.0}
        if not any(learn):
            return meta, adam, metrics
        kept = torch.tensor(learn, device=played.episodes.real.device)
        samples = self.learner.prepare(meta, played.episodes if all(learn) else played.episodes.of(kept))
        at = rates(self.learner.settings, self.learner.progress(update))
        return improve(self.learner, meta, adam, samples, at, stream(seed, Purpose.TRAINING, update))


@dataclass(frozen=True)
class Rates:
    """Of one update."""

    learning: float
    """Adam's."""
    entropy: float
    """Weight of the entropy bonus."""


def rates(settings: TrialPpoSettings, done: float) -> Rates:
    """The rates when a share ``done`` of the updates is over."""
    entropy = settings.entropy * max(0.0, 1 - done / settings.entropy_until)
    return Rates(settings.learning_rate * (1 - done), entropy)


def improve(
    learner: TrialLearner,
    weights: Tensors,
    adam: AdamState,
    samples: TrialSamples,
    at: Rates,
    rng: np.random.Generator,
) -> tuple[Tensors, AdamState, dict[str, float]]:
    """``epochs`` passes over an update's trials, each a fresh permutation of them in ``minibatches`` parts.

    Args:
        learner: the method.
        weights: those that ``TrialLearner.loss`` reads.
        adam: of them.
        samples: of :meth:`TrialLearner.prepare`.
        at: rates of the update.
        rng: draws the permutations.

    Returns:
        (weights, adam, metrics): ``loss`` and ``gradient_norm`` of the first part.
    """
    s = learner.settings
    metrics: dict[str, float] = {}
    for _ in range(s.epochs):
        order = torch.from_numpy(rng.permutation(len(samples))).to(samples.real.device)
        for rows in order.tensor_split(s.minibatches):
            if not len(rows):
                continue
            leaves = optimiser.leaves(weights)
            loss = learner.loss(leaves, samples.of(rows), at.entropy)
            weights, adam, norm = optimiser.descend(loss, leaves, adam, at.learning, s.gradient_clip)
            metrics = metrics or {"loss": float(loss.detach()), "gradient_norm": norm}
    return weights, adam, metrics


def outcome_of(
    trials: TrialRecord, tasks: Sequence[Task], episodes: int
) -> tuple[tuple[Feedback, ...], int, dict[str, float]]:
    """What came of a trial of each task: feedback, environment steps, and the metrics ``return_0`` (of the first
    episode), ``return_<episodes - 1>`` (of the last) and ``return_trial`` (of all).

    Args:
        trials: one of each task.
        tasks: [R].
        episodes: of a trial.
    """
    returns = by_episode(trials.rewards, trials.episode, episodes)
    successes = by_episode((trials.success & trials.real).float(), trials.episode, episodes) > 0
    metrics = {
        "return_0": float(returns[:, 0].mean()),
        f"return_{episodes - 1}": float(returns[:, -1].mean()),
        "return_trial": float(returns.sum(-1).mean()),
    }
    feedback = feedback_of(tasks, returns.unsqueeze(1).unbind(-1), successes.unsqueeze(1).unbind(-1))
    return feedback, int(trials.real.sum()), metrics


def by_episode(x: torch.Tensor, episode: torch.Tensor, episodes: int) -> torch.Tensor:
    """Sums over the steps of each episode.

    Args:
        x: [T, R], zero at steps that are not real.
        episode: [T, R] int64; ``episodes`` and more: past the trial's end.
        episodes: E.

    Returns:
        [R, E].
    """
    sums = x.new_zeros((x.shape[1], episodes + 1))
    sums.scatter_add_(1, episode.clamp(max=episodes).T, x.T)
    return sums[:, :episodes]
