"""PPO on whole trials: how a policy learns to use what it remembers.

The return of a trial is what counts: advantages and gradients run through the ends of episodes, so that what was found
out in the first is worth what it brings in the last (Duan et al. 2016, https://arxiv.org/abs/1611.02779).
"""

from __future__ import annotations

import abc
import dataclasses
from dataclasses import dataclass

import torch

from innerloop_server.domain import Adaptation
from innerloop_server.learners.learner import Distribution, Tensors
from innerloop_server.learners.objectives import clipped_surrogate, masked_mean, normalise
from innerloop_server.learners.returns import gae, step_mask
from innerloop_server.learners.trainable import TrainableLearner
from innerloop_server.learners.trial_ppo_settings import TrialPpoSettings
from innerloop_server.learners.trial_record import TrialRecord


@dataclass(frozen=True)
class TrialSamples:
    """Whole trials with all that does not change while the network does. Arrays are [T, R, ...]."""

    x: torch.Tensor
    """[T, R, I]: what the network reads."""
    actions: torch.Tensor
    log_probs: torch.Tensor
    advantages: torch.Tensor
    """[T, R] with mean 0 and standard deviation 1 over all real steps."""
    value_targets: torch.Tensor
    """[T, R] in ``value_unit``."""
    real: torch.Tensor
    """[T, R] bool: what there is to learn from."""

    def __len__(self) -> int:
        return self.real.shape[1]

    def of(self, rows: torch.Tensor) -> TrialSamples:
        """The trials at ``rows`` [R] int64."""
        return TrialSamples(**{field.name: getattr(self, field.name)[:, rows] for field in dataclasses.fields(self)})


class TrialLearner(TrainableLearner):
    """A policy with a memory that learns by PPO on whole trials. What it is made of is for its subclass to say."""

    adaptation = Adaptation.MEMORY

    @property
    @abc.abstractmethod
    def settings(self) -> TrialPpoSettings:
        """How it is trained."""

    @property
    def updates(self) -> int:
        """Updates of a whole training."""
        return self.settings.updates

    @property
    def tasks_per_update(self) -> int:
        """Fresh tasks an update."""
        return self.settings.tasks_per_update

    @property
    def inner_steps(self) -> int:
        """Episodes before the last of a trial."""
        return self.settings.episodes_per_trial - 1

    @property
    def episodes_per_step(self) -> int:
        """One: what a row remembers is its own."""
        return 1

    @property
    def task_size(self) -> int:
        """Numbers of ``TrialRecord.task`` that the value is told in training; 0: it is not to know the task."""
        return self.settings.task_size if self.settings.told else 0

    def attempt(self, update: int) -> range:
        """The updates of the attempt that ``update`` is part of. All have as many, or one more or less."""
        s = self.settings
        number = ((update + 1) * s.attempts - 1) // s.updates
        return range(number * s.updates // s.attempts, (number + 1) * s.updates // s.attempts)

    def progress(self, update: int) -> float:
        """The share of its attempt's updates that lies behind ``update``; 1 after the last of all."""
        if update >= self.updates:
            return 1.0
        attempt = self.attempt(update)
        return (update - attempt.start) / len(attempt)

    @abc.abstractmethod
    def inputs(self, meta: Tensors, trials: TrialRecord) -> torch.Tensor:
        """What the network reads at each step, [T, R, I]; no gradient goes through it."""

    @abc.abstractmethod
    def read(self, meta: Tensors, x: torch.Tensor) -> tuple[Distribution, torch.Tensor]:
        """Policy and value at each step of whole trials.

        Args:
            meta: the network.
            x: [T, R, I] of :meth:`inputs`.

        Returns:
            (distribution, values in ``value_unit``), of leading dimensions [1, T * R].
        """

    @torch.no_grad()
    def prepare(self, meta: Tensors, trials: TrialRecord) -> TrialSamples:
        """Advantages and value targets.

        They run through the ends of episodes: what comes after one is worth as much as what comes before. At the end
        of the trial nothing is left, whether its last episode terminated or its time was up: the trial's length is
        part of the problem. Without ``limit_ends`` a trial whose time was up is valued as if it went on: its last step
        teaches nothing, it only says what followed the one before.

        Args:
            meta: the network that sampled.
            trials: R trials.
        """
        s = self.settings
        x = self.inputs(meta, trials)
        v_t = self.read(meta, x)[1].reshape(trials.real.shape).T[None]
        lengths = trials.real.sum(0)[None]
        v_final = torch.zeros_like(v_t[..., 0])
        if not s.limit_ends:
            cut = (trials.trial_end & ~trials.terminated & trials.real).any(0)[None] & (lengths > 1)
            lengths = lengths - cut.long()
            v_final = torch.where(cut, v_t.gather(-1, lengths.clamp(max=v_t.shape[-1] - 1).unsqueeze(-1))[..., 0], 0.0)
        estimates = gae((trials.rewards / s.value_unit).T[None], v_t, v_final, lengths, s.discount, s.trace)
        real = step_mask(lengths, v_t.shape[-1])
        return TrialSamples(
            x=x,
            actions=trials.actions,
            log_probs=trials.log_probs,
            advantages=normalise(estimates, real)[0].T.contiguous(),
            value_targets=(estimates + v_t)[0].T,
            real=real[0].T,
        )

    def loss(self, meta: Tensors, samples: TrialSamples, entropy_weight: float) -> torch.Tensor:
        """Clipped surrogate, squared value error and entropy bonus, a scalar to minimise (Schulman et al. 2017,
        https://arxiv.org/abs/1707.06347, equation 9), through the whole of every trial.

        Args:
            meta: the network.
            samples: some trials.
            entropy_weight: of the bonus.
        """
        s = self.settings
        policy, value = self.read(meta, samples.x)
        actions, old, advantages, targets, real = (
            part.flatten(0, 1)[None]
            for part in (samples.actions, samples.log_probs, samples.advantages, samples.value_targets, samples.real)
        )
        error = value - targets
        loss = (
            clipped_surrogate(policy.log_prob(actions), old, advantages, real, s.clip)
            + s.value_weight * masked_mean(error * error, real)
            - entropy_weight * masked_mean(policy.entropy(), real)
        )
        return loss[0]
