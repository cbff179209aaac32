"""What the outer loop asks of a learner, beyond what a session does."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from innerloop_server.domain import Experience
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


class TrainableLearner(Learner):
    """A learner whose meta-parameters follow the gradient of a loss over adapted trajectories."""

    @property
    @abc.abstractmethod
    def updates(self) -> int:
        """Meta-updates of a whole training."""

    @property
    @abc.abstractmethod
    def tasks_per_update(self) -> int:
        """Fresh tasks a meta-update."""

    @property
    @abc.abstractmethod
    def epochs(self) -> int:
        """Optimiser steps on the same episodes."""

    @property
    @abc.abstractmethod
    def gradient_clip(self) -> float:
        """Largest norm of the meta-gradient; 0: unbounded."""

    @abc.abstractmethod
    def learning_rate(self, name: str, update: int) -> float:
        """Of the meta-parameter ``name`` in the meta-update numbered ``update`` (from 0)."""

    @abc.abstractmethod
    def prepare(self, experience: Experience[torch.Tensor]) -> Prepared:
        """What the loss needs of a step's episodes (baselines, advantages), once an update."""

    @abc.abstractmethod
    def meta_loss(self, meta: Tensors, steps: Sequence[Prepared]) -> torch.Tensor:
        """The scalar that training minimises, differentiable in ``meta``.

        Args:
            meta: meta-parameters.
            steps: K + 1 of them: that of the unadapted state first, then those after each inner step. Of a supervised
                family the first holds the support of every inner step, the others fresh queries.
        """
