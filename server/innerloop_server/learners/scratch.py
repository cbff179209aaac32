"""Learning each task from nothing: what a meta-learner has to beat.

A session starts from random weights and improves them by PPO (Schulman et al. 2017, https://arxiv.org/abs/1707.06347,
equation 7) on the episodes of each step; of a supervised family, by the loss of the answers. The meta-parameters are
those random weights, and no training changes them: it only shows how far so many episodes lead.

The adaptation state is the weights, ``depth``, and what Adam remembers: ``first.<weight>`` and ``second.<weight>``,
[B, *shape] each, so a session that is resumed goes on to the bit. Advantages come from the family's value baseline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from innerloop_server.domain import Experience, LearnerSpec
from innerloop_server.learners.fast_weights import DEPTH, FastWeightLearner, PolicySettings
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.maml_objectives import Weighing, objective_of
from innerloop_server.learners.scratch_settings import ScratchSettings

FIRST_PREFIX, SECOND_PREFIX = "first.", "second."
"""State arrays of a weight's mean gradient and mean squared gradient."""
BETA_1, BETA_2 = 0.9, 0.999
EPSILON = 1e-8


class Scratch(FastWeightLearner):
    """PPO of one task at a time, for Box and Discrete actions."""

    def __init__(self, spec: LearnerSpec) -> None:
        """Bind the method to a family.

        Raises:
            InvalidField: a setting that cannot be (see :class:`ScratchSettings`).
        """
        s = self.settings = ScratchSettings.from_json(spec.settings)
        super().__init__(spec, PolicySettings(s.hidden_sizes, s.last_layer_scale, s.initial_log_std))
        self._objective = objective_of(spec, self.header, Weighing(s.discount, s.trace, s.trace, s.clip))

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
        """Batches of tasks that a training looks at."""
        return self.settings.updates

    @property
    def tasks_per_update(self) -> int:
        """Fresh tasks of each."""
        return self.settings.tasks_per_update

    def initial_meta(self, seed: int) -> Tensors:
        """Random weights."""
        return self._initial_weights(seed)

    def begin(self, meta: Tensors, n: int, rows: int = 1) -> Tensors:
        """The random weights ``n`` times, and an optimiser that remembers nothing."""
        state = super().begin(meta, n, rows)
        zeros = {name: torch.zeros_like(state[name]) for name in self._learned}
        first = {FIRST_PREFIX + name: value for name, value in zeros.items()}
        return state | first | {SECOND_PREFIX + name: value.clone() for name, value in zeros.items()}

    def adapt(
        self, meta: Tensors, state: Tensors, experience: Experience[torch.Tensor], rate_scale: torch.Tensor
    ) -> tuple[Tensors, Mapping[str, torch.Tensor]]:
        """``epochs`` steps of Adam on the episodes of B tasks, detached. A task without a real step stays as it is."""
        del meta
        prepared = self._objective.prepare(experience)
        with torch.no_grad():
            sampled = self._policy(state, prepared)
            before = self._objective.outer(sampled, prepared)
        after: Tensors = {name: value.detach() for name, value in state.items()}
        for epoch in range(self.settings.epochs):
            with torch.enable_grad():
                leaves = {name: after[name].clone().requires_grad_() for name in self._learned}
                loss = self._objective.outer(self._policy({**after, **leaves}, prepared), prepared)
                gradients = torch.autograd.grad(loss.sum(), list(leaves.values()))
            count = state[DEPTH] * self.settings.epochs + epoch + 1
            after = self._stepped(after, dict(zip(leaves, gradients, strict=True)), count, rate_scale)
        after[DEPTH] = state[DEPTH] + 1
        seen = prepared.mask.flatten(1).any(1)
        after = {name: torch.where(_lead(seen, value), value, state[name]) for name, value in after.items()}
        with torch.no_grad():
            return after, self._step_metrics(before, sampled, after, prepared)

    def _stepped(self, state: Tensors, gradients: Tensors, count: torch.Tensor, rate_scale: torch.Tensor) -> Tensors:
        """The state after one step of Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1).

        Args:
            state: before.
            gradients: [B, *shape] of each learned weight.
            count: [B] int64, Adam steps behind the new state: tasks are of any age.
            rate_scale: [B].
        """
        corrections = [-torch.expm1(count.to(torch.float64) * math.log(beta)) for beta in (BETA_1, BETA_2)]
        after = dict(state)
        for name, gradient in gradients.items():
            first = BETA_1 * state[FIRST_PREFIX + name] + (1 - BETA_1) * gradient
            second = BETA_2 * state[SECOND_PREFIX + name] + (1 - BETA_2) * gradient * gradient
            seen_1, seen_2 = (_lead(one.to(first.dtype), first) for one in corrections)
            move = (first / seen_1) / (torch.sqrt(second / seen_2) + EPSILON)
            rate = _lead(rate_scale.to(first.dtype), first) * self.settings.learning_rate
            after |= {name: state[name] - rate * move, FIRST_PREFIX + name: first, SECOND_PREFIX + name: second}
        return after


def _lead(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """[B] values as [B, 1, ...], to go with ``like`` [B, ...]."""
    return values.reshape(-1, *(1,) * (like.dim() - 1))
