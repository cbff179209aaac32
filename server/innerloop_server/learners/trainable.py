"""What the outer loop asks of a learner, beyond what a session does."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from innerloop_server.domain import Experience
from innerloop_server.learners.distributions import Categorical, Gaussian
from innerloop_server.learners.learner import Learner, Tensors


@dataclass(frozen=True)
class Prepared:
    """One step's episodes of B tasks, with all that does not change while the meta-parameters do."""

    observations: torch.Tensor
    """[B, N, T, *O]."""
    mask: torch.Tensor
    """[B, N, T] bool: the real steps."""


@dataclass(frozen=True)
class Samples(Prepared):
    """Episodes that were played for their return."""

    actions: torch.Tensor
    """[B, N, T, ...] raw."""
    log_probs: torch.Tensor
    """[B, N, T] under the policy that sampled."""
    inner_advantages: torch.Tensor
    """[B, N, T] normalised per task, for the inner surrogate."""
    outer_advantages: torch.Tensor
    """[B, N, T] normalised per task, for the outer surrogate."""


@dataclass(frozen=True)
class Examples(Prepared):
    """Labelled examples of a supervised family, one an episode."""

    feedback: torch.Tensor
    """[B, N, T, F] the right answers."""


@dataclass(frozen=True)
class Unrolled:
    """An inner step on stored episodes."""

    before: Gaussian | Categorical
    """The policies of B tasks that the step starts from, on ``support``."""
    support: Prepared
    """What the step learns from."""
    after: Gaussian | Categorical
    """The policies that the step makes, on ``judged``."""
    judged: Prepared
    """What they are judged by: their own episodes, or queries."""


class TrainableLearner(Learner):
    """A learner that an outer loop can teach; how is for its student to know (``training/students``)."""

    @property
    @abc.abstractmethod
    def updates(self) -> int:
        """Meta-updates of a whole training."""

    @property
    @abc.abstractmethod
    def tasks_per_update(self) -> int:
        """Fresh tasks a meta-update."""


class GradientLearner(TrainableLearner):
    """A learner whose meta-parameters follow the gradient of a loss over adapted trajectories."""

    @property
    @abc.abstractmethod
    def epochs(self) -> int:
        """Optimiser steps on the same episodes."""

    @property
    @abc.abstractmethod
    def gradient_clip(self) -> float:
        """Largest norm of the meta-gradient; 0: unbounded."""

    @property
    @abc.abstractmethod
    def kl_limit(self) -> float | None:
        """Largest mean KL of an update's natural-gradient step; ``None``: Adam takes ``epochs`` steps instead."""

    @abc.abstractmethod
    def learning_rate(self, name: str, update: int) -> float:
        """Of the meta-parameter ``name`` in the meta-update numbered ``update`` (from 0)."""

    @abc.abstractmethod
    def prepare(self, experience: Experience[torch.Tensor]) -> Prepared:
        """What the loss needs of a step's episodes (baselines, advantages), once an update."""

    @abc.abstractmethod
    def unroll(self, meta: Tensors, steps: Sequence[Prepared], *, second_order: bool = True) -> Iterator[Unrolled]:
        """The inner steps k = 1..K on stored episodes.

        Args:
            meta: meta-parameters that require gradients.
            steps: as :meth:`meta_loss`.
            second_order: False: the policies need not depend on ``meta`` through the inner gradients.
        """

    @abc.abstractmethod
    def outer_loss(self, unrolled: Iterable[Unrolled]) -> torch.Tensor:
        """What the adapted policies lose on their own episodes, a scalar."""

    @abc.abstractmethod
    def sampled(self, meta: Tensors, steps: Sequence[Prepared]) -> Sequence[Gaussian | Categorical]:
        """Constants of the meta-parameters that sampled, for :meth:`meta_loss`."""

    @abc.abstractmethod
    def meta_loss(
        self, meta: Tensors, steps: Sequence[Prepared], sampled: Sequence[Gaussian | Categorical] = ()
    ) -> torch.Tensor:
        """The scalar that Adam minimises, differentiable in ``meta``.

        Args:
            meta: meta-parameters.
            steps: K + 1 of them: that of the unadapted state first, then those after each inner step. Of a supervised
                family the first holds the support of every inner step, the others fresh queries.
            sampled: of :meth:`sampled`, which says whether there is any; none: nothing is lost by leaving them.
        """
