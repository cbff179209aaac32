"""The seam every learning method stands behind.

A learner is a bundle of pure functions over values: meta-parameters and adaptation states are flat dicts of
tensors, every state array has a leading task dimension B, and nothing mutates a shared module. So one session and
a thousand run the same kernels, states stack and split, and a state serialises as it is.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from innerloop.arrays import Arrays
from innerloop.policy import Header
from innerloop_server.domain import Adaptation, Experience, LearnerSpec

Tensors = dict[str, torch.Tensor]
"""A flat dict of tensors: meta-parameters (no leading dimension) or an adaptation state (leading dimension B)."""


@dataclass(frozen=True)
class Input:
    """What a policy may look at (memory methods need all of it). The torch twin of ``innerloop.policy.Input``."""

    observation: torch.Tensor
    """[B, N, *O]."""
    previous_action: torch.Tensor | None = None
    reward: torch.Tensor | None = None
    terminated: torch.Tensor | None = None
    truncated: torch.Tensor | None = None
    trial_end: torch.Tensor | None = None
    """[B, N, ...] each, of the step before, the action raw; ``None`` all together: every row is at its trial's first
    step."""


class Distribution(Protocol):
    """What a policy answers with, over raw actions; leading dimensions [B, N]."""

    def sample(self, noise: torch.Tensor | None) -> torch.Tensor:
        """Raw actions from noise as ``innerloop.policy.draw_noise`` gives it; ``None``: the mode.
        [..., A] float32, or [...] int64.
        """
        ...

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """[...], summed over action dimensions."""
        ...

    def entropy(self) -> torch.Tensor:
        """[...], in nats."""
        ...

    def kl(self, other: Distribution) -> torch.Tensor:
        """KL(self || other), [...]."""
        ...


class Learner(abc.ABC):
    """A learning method bound to a family (``spec``). Holds settings only; every array is passed in."""

    spec: LearnerSpec
    adaptation: Adaptation = Adaptation.UPDATE
    """MEMORY: every state array has leading dimensions [B, R] (tasks, rows), ``act`` changes the state and ``adapt`` is
    never called. A ``trial_end`` in an input resets that row's state before it looks, and what else the input says of
    the step before is then not read."""

    @property
    @abc.abstractmethod
    def inner_steps(self) -> int:
        """Inner steps that training unrolls (sessions may go on past them)."""

    @property
    @abc.abstractmethod
    def episodes_per_step(self) -> int:
        """Episodes a task and step in training: the default of a session."""

    @abc.abstractmethod
    def initial_meta(self, seed: int) -> Tensors:
        """Fresh meta-parameters, float32 on the CPU."""

    @abc.abstractmethod
    def begin(self, meta: Tensors, n: int, rows: int = 1) -> Tensors:
        """The unadapted state of n tasks; ``rows``, their parallel trials, matter to memories alone."""

    @abc.abstractmethod
    def act(self, meta: Tensors, state: Tensors, input: Input) -> tuple[Distribution, Tensors]:
        """What each row would do, and the state after having looked (unchanged for memoryless methods)."""

    @abc.abstractmethod
    def adapt(
        self, meta: Tensors, state: Tensors, experience: Experience[torch.Tensor], rate_scale: torch.Tensor
    ) -> tuple[Tensors, Mapping[str, torch.Tensor]]:
        """One adaptation step of B tasks, for serving: detached, same shapes out as in.

        Args:
            meta: meta-parameters.
            state: [B, ...] each.
            experience: on-policy episodes of that state; of a supervised family, labelled examples.
            rate_scale: [B] float32; multiplies the inner rates (the guard halves it).

        Returns:
            (state, metrics): metrics are [B] float32 and hold at least ``loss`` (the inner loss before the step: a
            surrogate, or the cross-entropy or mean squared error of the answers), ``kl`` (KL of the old from the new
            policy on these observations, per step) and ``entropy``, both zero in regression.
        """

    def uncertainty(self, meta: Tensors, state: Tensors) -> torch.Tensor | None:
        """Entropy in nats of what the method believes about the task, [B] or of each row [B, R]: what there is left to
        find out. ``None`` of a method without a belief that has one. A session's steps report it (``uncertainty``).
        """
        del meta, state
        return None

    @abc.abstractmethod
    def export(self, meta: Tensors, state: Tensors) -> tuple[Header, list[Arrays]]:
        """Portable policies, one set of weights a task (``header.steps`` etc. are the caller's to fill in)."""
