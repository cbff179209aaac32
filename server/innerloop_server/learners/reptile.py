"""Reptile (Nichol et al. 2018, https://arxiv.org/abs/1803.02999): after the adapted weights, without a meta-gradient.

One inner step is one step of an optimiser on the surrogate of fresh on-policy episodes (of a supervised family, on the
loss of the answers). The outer loop goes part of the way from the initial weights to the mean of the adapted ones:

    theta <- theta + eps (mean over tasks of theta_K - theta),    eps from ``outer_step`` linearly to 0

In expectation that is a step of joint training plus, from the second inner step on, one that makes the gradients of a
task's different samples agree. It never asks what episodes before adaptation are good for, so where exploration has to
be learned it does not learn it.

The inner optimiser starts anew with every task. With ``adam`` its memory, the running mean of squared gradients, is
part of the adaptation state: ``second.<weight>``, [B, *shape]. There is no momentum (beta_1 = 0), as in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from innerloop_server.domain import Experience, LearnerSpec
from innerloop_server.learners.fast_weights import DEPTH, FastWeightLearner, PolicySettings
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.maml_objectives import Weighing, objective_of
from innerloop_server.learners.reptile_settings import ReptileSettings

SECOND_PREFIX = "second."
"""State array of a weight's mean squared gradient, with ``optimiser = adam``."""
BETA_2 = 0.999
EPSILON = 1e-8


class Reptile(FastWeightLearner):
    """Reptile for Box and Discrete actions."""

    def __init__(self, spec: LearnerSpec) -> None:
        """Bind the method to a family.

        Raises:
            InvalidField: a setting that cannot be (see :class:`ReptileSettings`).
        """
        s = self.settings = ReptileSettings.from_json(spec.settings)
        super().__init__(spec, PolicySettings(s.hidden_sizes, s.last_layer_scale, s.initial_log_std))
        self._objective = objective_of(spec, self.header, Weighing(s.discount, s.inner_lambda, s.inner_lambda, None))

    @property
    def inner_steps(self) -> int:
        """K."""
        return self.settings.inner_steps

    @property
    def episodes_per_step(self) -> int:
        """Episodes a task and step in training: the default of a session."""
        return self.settings.episodes_per_step

    @property
    def updates(self) -> int:
        """Meta-updates of a whole training."""
        return self.settings.updates

    @property
    def tasks_per_update(self) -> int:
        """Fresh tasks a meta-update."""
        return self.settings.tasks_per_update

    def outer_step(self, update: int) -> float:
        """The eps of the meta-update numbered ``update`` (from 0)."""
        return self.settings.outer_step * max(0.0, 1 - update / self.settings.updates)

    def initial_meta(self, seed: int) -> Tensors:
        """Fresh initial weights."""
        return self._initial_weights(seed)

    def begin(self, meta: Tensors, n: int, rows: int = 1) -> Tensors:
        """The initial weights ``n`` times, and an optimiser that remembers nothing."""
        state = super().begin(meta, n, rows)
        if self.settings.optimiser == "adam":
            state |= {SECOND_PREFIX + name: torch.zeros_like(state[name]) for name in self._learned}
        return state

    def adapt(
        self, meta: Tensors, state: Tensors, experience: Experience[torch.Tensor], rate_scale: torch.Tensor
    ) -> tuple[Tensors, Mapping[str, torch.Tensor]]:
        """One inner step of B tasks, detached. A task without a real step keeps its weights."""
        del meta
        prepared = self._objective.prepare(experience)
        before = {name: state[name].detach() for name in self._names}
        with torch.enable_grad():
            leaves = {name: before[name].clone().requires_grad_() for name in self._learned}
            policy = self._policy({**before, **leaves}, prepared)
            loss = self._objective.inner(policy, prepared)
            gradients = torch.autograd.grad(loss.sum(), list(leaves.values()))
        with torch.no_grad():
            after: Tensors = dict(before)
            depth = state[DEPTH] + 1
            for name, gradient in zip(self._learned, gradients, strict=True):
                lead = (-1, *(1,) * (gradient.dim() - 1))
                move = gradient
                if self.settings.optimiser == "adam":
                    second = BETA_2 * state[SECOND_PREFIX + name] + (1 - BETA_2) * gradient * gradient
                    seen = -torch.expm1(depth.to(torch.float64) * math.log(BETA_2)).to(second.dtype).reshape(lead)
                    move = gradient / (torch.sqrt(second / seen) + EPSILON)
                    after[SECOND_PREFIX + name] = second
                after[name] = before[name] - rate_scale.to(move.dtype).reshape(lead) * (self.settings.rate * move)
            metrics = self._step_metrics(loss, policy, after, prepared)
            after[DEPTH] = depth
        return after, metrics

    def outer_update(self, meta: Tensors, adapted: Tensors, learn: Sequence[bool], update: int) -> Tensors:
        """The initial weights after a meta-update.

        Args:
            meta: before.
            adapted: [B, ...] states after K inner steps from ``meta``.
            learn: of each task, whether it counts; at least one does.
            update: number of the meta-update, from 0.
        """
        rows = torch.tensor([i for i, counts in enumerate(learn) if counts], device=adapted[DEPTH].device)
        eps = self.outer_step(update)
        return {name: value + eps * (adapted[name][rows].mean(0) - value) for name, value in meta.items()}
