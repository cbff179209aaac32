"""MAML (Finn et al. 2017, https://arxiv.org/abs/1703.03400) with per-step learned rates and a ProMP-like outer loss.

The adaptation state is the fast weights and how many inner steps made them. One inner step is one gradient of the
ratio-form surrogate on fresh on-policy episodes, for all tasks at once:

    theta_{k+1} = theta_k - rate_scale * exp(log_rate_{min(k, K-1)}) * grad J_in(theta_k; tau_k)

with a rate for each parameter and each inner step (Meta-SGD, Li et al. 2017, https://arxiv.org/abs/1707.09835, in
log space). The meta-loss is the clipped surrogate of the adapted policies on their own episodes, averaged over
k = 1..K, differentiated through the whole chain on stored episodes.

On a supervised family both losses are that of the answers instead (``learners/supervised``), tau_k is the same support
for every k, and the meta-loss is taken on fresh queries: MAML for classification and regression, as the paper has it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import torch

from innerloop.arrays import Arrays
from innerloop.policy import LOG_STD_FLOOR, Header, weight_shapes
from innerloop_server.domain import Experience, LearnerSpec, Supervision
from innerloop_server.learners import networks
from innerloop_server.learners.distributions import Categorical, Gaussian
from innerloop_server.learners.learner import Distribution, Input, Tensors
from innerloop_server.learners.maml_objectives import objective_of
from innerloop_server.learners.maml_settings import MamlSettings
from innerloop_server.learners.objectives import masked_mean
from innerloop_server.learners.trainable import Prepared, TrainableLearner
from innerloop_server.streams import Purpose, stream

RATE_PREFIX = "log_rates."
"""Meta-parameter of the learned rates of a weight: ``log_rates.<weight>``, [K, *shape]."""
LOG_STD = "log_std"
"""Weight of a Gaussian policy: the log standard deviation of its raw actions."""
DEPTH = "depth"
"""State array [B] int64: inner steps behind the weights."""


class Maml(TrainableLearner):
    """MAML for Box and Discrete actions."""

    def __init__(self, spec: LearnerSpec) -> None:
        """Bind the method to a family.

        Raises:
            InvalidField: a setting that cannot be (see :class:`MamlSettings`).
        """
        self.spec = spec
        self.settings = MamlSettings.from_json(spec.settings)
        self.header = networks.header(spec, self.settings.hidden_sizes)
        self._objective = objective_of(spec, self.settings, self.header)
        self._aims = spec.supervision is Supervision.REGRESSION
        """A prediction is a point: its deviation stays at the floor, and neither entropy nor KL means anything."""
        self._names = tuple(weight_shapes(self.header))
        self._learned = tuple(name for name in self._names if not (self._aims and name == LOG_STD))

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

    @property
    def epochs(self) -> int:
        """Adam steps on the same episodes."""
        return self.settings.epochs

    @property
    def gradient_clip(self) -> float:
        """Largest norm of the meta-gradient; 0: unbounded."""
        return self.settings.gradient_clip

    def learning_rate(self, name: str, update: int) -> float:
        """Falls linearly from the setting at update 0 towards zero after the last."""
        s = self.settings
        start = s.rates_learning_rate if name.startswith(RATE_PREFIX) else s.learning_rate
        return start * max(0.0, 1 - update / s.updates)

    def initial_meta(self, seed: int) -> Tensors:
        """Fresh meta-parameters: the initial weights and, if they are learned, the log rates."""
        s = self.settings
        meta = networks.initial_weights(
            self.header,
            stream(seed, Purpose.INITIAL_META),
            last_layer_scale=s.last_layer_scale,
            initial_log_std=s.initial_log_std,
        )
        meta = {name: meta[name] for name in self._learned}
        if s.rates == "learned":
            meta |= {RATE_PREFIX + name: self._initial_log_rates(meta[name]) for name in self._learned}
        return meta

    def begin(self, meta: Tensors, n: int) -> Tensors:
        """The initial weights ``n`` times, at depth 0."""
        with torch.no_grad():
            state = self._start(meta, n)
        state[DEPTH] = torch.zeros(n, dtype=torch.int64, device=meta[self._names[0]].device)
        return state

    def act(self, meta: Tensors, state: Tensors, input: Input) -> tuple[Distribution, Tensors]:
        """Reads the observation alone; the state is unchanged."""
        del meta
        return networks.forward(self.header, state, input.observation), state

    def adapt(
        self, meta: Tensors, state: Tensors, experience: Experience[torch.Tensor], rate_scale: torch.Tensor
    ) -> tuple[Tensors, Mapping[str, torch.Tensor]]:
        """One inner step of B tasks, detached. A task without a real step keeps its weights."""
        prepared = self.prepare(experience)
        before = {name: state[name].detach() for name in self._names}
        with torch.enable_grad():
            leaves = {name: before[name].clone().requires_grad_() for name in self._learned}
            policy = self._policy({**before, **leaves}, prepared)
            loss = self._objective.inner(policy, prepared)
            gradients = torch.autograd.grad(loss.sum(), list(leaves.values()))
        with torch.no_grad():
            step = state[DEPTH].clamp(max=self.inner_steps - 1)
            after: Tensors = dict(before)
            for name, gradient in zip(self._learned, gradients, strict=True):
                value = before[name]
                rate = torch.exp(self._log_rates(meta, name, value[0])[step])
                after[name] = value - rate_scale.to(value.dtype).reshape(-1, *(1,) * (value.dim() - 1)) * (
                    rate * gradient
                )
            metrics = {"loss": loss.detach(), "kl": torch.zeros_like(loss), "entropy": torch.zeros_like(loss)}
            if not self._aims:
                metrics["kl"] = masked_mean(policy.kl(self._policy(after, prepared)), prepared.mask)
                metrics["entropy"] = masked_mean(policy.entropy(), prepared.mask)
            after[DEPTH] = state[DEPTH] + 1
        return after, {name: value.detach().to(torch.float32) for name, value in metrics.items()}

    def prepare(self, experience: Experience[torch.Tensor]) -> Prepared:
        """As the objective wants it: advantages of episodes, or examples and their answers."""
        prepared: Prepared = self._objective.prepare(experience)
        return prepared

    def meta_loss(self, meta: Tensors, steps: Sequence[Prepared]) -> torch.Tensor:
        """The outer loss after each of k = 1..K inner steps, mean over steps and tasks."""
        weights = self._start(meta, steps[0].mask.shape[0])
        total = torch.zeros((), dtype=weights[self._names[0]].dtype, device=steps[0].mask.device)
        for k, (fresh, after) in enumerate(itertools.pairwise(steps)):
            before = fresh if self.spec.supervision is None else steps[0]
            loss = self._objective.inner(self._policy(weights, before), before)
            gradients = torch.autograd.grad(
                loss.sum(), [weights[name] for name in self._learned], create_graph=not self.settings.first_order
            )
            weights = weights | {
                name: weights[name]
                - torch.exp(self._log_rates(meta, name, meta[name])[min(k, self.inner_steps - 1)]) * gradient
                for name, gradient in zip(self._learned, gradients, strict=True)
            }
            total = total + self._objective.outer(self._policy(weights, after), after).mean()
        return total / (len(steps) - 1)

    def export(self, meta: Tensors, state: Tensors) -> tuple[Header, list[Arrays]]:
        """Portable policies, one a task."""
        del meta
        host = {name: state[name].detach().to("cpu", torch.float32).numpy() for name in self._names}
        n = state[DEPTH].shape[0]
        return dataclasses.replace(self.header), [{name: value[b] for name, value in host.items()} for b in range(n)]

    def _start(self, meta: Tensors, n: int) -> Tensors:
        """The initial weights ``n`` times, differentiable where they are learned."""
        weights = networks.stack({name: meta[name] for name in self._learned}, n)
        if self._aims:
            like = meta[self._names[0]]
            weights[LOG_STD] = torch.full((n, self.header.action_size), LOG_STD_FLOOR).to(like)
        return weights

    def _policy(self, weights: Tensors, prepared: Prepared) -> Gaussian | Categorical:
        return networks.forward(self.header, weights, prepared.observations)

    def _initial_log_rates(self, like: torch.Tensor) -> torch.Tensor:
        return like.new_full((self.inner_steps, *like.shape), math.log(self.settings.initial_rate))

    def _log_rates(self, meta: Tensors, name: str, like: torch.Tensor) -> torch.Tensor:
        """[K, *shape]. Fixed rates take the same path as learned ones, so that the two agree bit for bit."""
        learned = meta.get(RATE_PREFIX + name)
        return self._initial_log_rates(like) if learned is None else learned
