"""MAML (Finn et al. 2017, https://arxiv.org/abs/1703.03400) with per-step learned rates and a ProMP-like outer loss.

The adaptation state is the fast weights and how many inner steps made them. One inner step is one gradient of the
ratio-form surrogate on fresh on-policy episodes, for all tasks at once:

    theta_{k+1} = theta_k - rate_scale * exp(log_rate_{min(k, K-1)}) * grad J_in(theta_k; tau_k)

with a rate for each parameter and each inner step (Meta-SGD, Li et al. 2017, https://arxiv.org/abs/1707.09835, in
log space). The meta-loss is the clipped surrogate of the adapted policies on their own episodes, averaged over
k = 1..K, differentiated through the whole chain on stored episodes.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import torch

from innerloop.arrays import Arrays
from innerloop.policy import Header, weight_shapes
from innerloop_server.domain import Experience, LearnerSpec
from innerloop_server.learners import networks
from innerloop_server.learners.baselines import fit_values
from innerloop_server.learners.distributions import Categorical, Gaussian
from innerloop_server.learners.learner import Distribution, Input, Tensors
from innerloop_server.learners.maml_settings import MamlSettings
from innerloop_server.learners.objectives import clipped_surrogate, masked_mean, normalise, surrogate
from innerloop_server.learners.returns import gae, step_mask
from innerloop_server.learners.trainable import Samples, TrainableLearner
from innerloop_server.streams import Purpose, stream

RATE_PREFIX = "log_rates."
"""Meta-parameter of the learned rates of a weight: ``log_rates.<weight>``, [K, *shape]."""
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
        self._names = tuple(weight_shapes(self.header))

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
        if s.rates == "learned":
            meta |= {RATE_PREFIX + name: self._initial_log_rates(meta[name]) for name in self._names}
        return meta

    def begin(self, meta: Tensors, n: int) -> Tensors:
        """The initial weights ``n`` times, at depth 0."""
        with torch.no_grad():
            state = networks.stack({name: meta[name] for name in self._names}, n)
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
        samples = self.prepare(experience)
        before = {name: state[name].detach() for name in self._names}
        with torch.enable_grad():
            weights = {name: value.clone().requires_grad_() for name, value in before.items()}
            policy = self._policy(weights, samples)
            log_prob = policy.log_prob(samples.actions)
            loss = surrogate(log_prob, samples.log_probs, samples.inner_advantages, samples.mask)
            gradients = torch.autograd.grad(loss.sum(), list(weights.values()))
        with torch.no_grad():
            step = state[DEPTH].clamp(max=self.inner_steps - 1)
            after: Tensors = {}
            for (name, value), gradient in zip(before.items(), gradients, strict=True):
                rate = torch.exp(self._log_rates(meta, name, value[0])[step])
                after[name] = value - rate_scale.to(value.dtype).reshape(-1, *(1,) * (value.dim() - 1)) * (
                    rate * gradient
                )
            metrics = {
                "loss": loss.detach(),
                "kl": masked_mean(policy.kl(self._policy(after, samples)), samples.mask),
                "entropy": masked_mean(policy.entropy(), samples.mask),
            }
            after[DEPTH] = state[DEPTH] + 1
        return after, {name: value.detach().to(torch.float32) for name, value in metrics.items()}

    def prepare(self, experience: Experience[torch.Tensor]) -> Samples:
        """Fit each task's baseline on these episodes and normalise its advantages."""
        s = self.settings
        with torch.no_grad():
            observations = networks.flatten(self.header, experience.observations, torch.float64)
            final = networks.flatten(self.header, experience.final_observations, torch.float64)
            values = fit_values(self.spec.baseline, experience, observations, final, self.spec.horizon, s.discount)
            mask = step_mask(experience.lengths, experience.rewards.shape[-1])
            rewards = experience.rewards.to(torch.float64)

            def advantages(trace: float) -> torch.Tensor:
                raw = gae(rewards, values.v_t, values.v_final, experience.lengths, s.discount, trace)
                return normalise(raw, mask).to(experience.log_probs.dtype)

            inner = advantages(s.inner_lambda)
            outer = inner if s.outer_lambda == s.inner_lambda else advantages(s.outer_lambda)
        return Samples(experience.observations, experience.actions, experience.log_probs, mask, inner, outer)

    def meta_loss(self, meta: Tensors, steps: Sequence[Samples]) -> torch.Tensor:
        """The outer loss: clipped surrogate after each of k = 1..K inner steps, mean over steps and tasks."""
        weights = networks.stack({name: meta[name] for name in self._names}, steps[0].mask.shape[0])
        total = torch.zeros((), dtype=steps[0].log_probs.dtype, device=steps[0].mask.device)
        for k, (before, after) in enumerate(itertools.pairwise(steps)):
            log_prob = self._policy(weights, before).log_prob(before.actions)
            loss = surrogate(log_prob, before.log_probs, before.inner_advantages, before.mask)
            gradients = torch.autograd.grad(
                loss.sum(), list(weights.values()), create_graph=not self.settings.first_order
            )
            weights = {
                name: value
                - torch.exp(self._log_rates(meta, name, meta[name])[min(k, self.inner_steps - 1)]) * gradient
                for (name, value), gradient in zip(weights.items(), gradients, strict=True)
            }
            log_prob = self._policy(weights, after).log_prob(after.actions)
            adapted = clipped_surrogate(
                log_prob, after.log_probs, after.outer_advantages, after.mask, self.settings.clip
            )
            total = total + adapted.mean()
        return total / (len(steps) - 1)

    def export(self, meta: Tensors, state: Tensors) -> tuple[Header, list[Arrays]]:
        """Portable policies, one a task."""
        del meta
        host = {name: state[name].detach().to("cpu", torch.float32).numpy() for name in self._names}
        n = state[DEPTH].shape[0]
        return dataclasses.replace(self.header), [{name: value[b] for name, value in host.items()} for b in range(n)]

    def _policy(self, weights: Tensors, samples: Samples) -> Gaussian | Categorical:
        return networks.forward(self.header, weights, samples.observations)

    def _initial_log_rates(self, like: torch.Tensor) -> torch.Tensor:
        return like.new_full((self.inner_steps, *like.shape), math.log(self.settings.initial_rate))

    def _log_rates(self, meta: Tensors, name: str, like: torch.Tensor) -> torch.Tensor:
        """[K, *shape]. Fixed rates take the same path as learned ones, so that the two agree bit for bit."""
        learned = meta.get(RATE_PREFIX + name)
        return self._initial_log_rates(like) if learned is None else learned
