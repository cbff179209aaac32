"""What methods whose state is the weights of a policy have in common: MAML, Reptile.

The adaptation state is the fast weights, [B, ...] each, and ``depth``, the inner steps that made them; a method may add
arrays of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from innerloop.arrays import Arrays
from innerloop.policy import LOG_STD_FLOOR, Header, weight_shapes
from innerloop_server.domain import LearnerSpec, Supervision
from innerloop_server.learners import networks
from innerloop_server.learners.distributions import Categorical, Gaussian
from innerloop_server.learners.learner import Distribution, Input, Tensors
from innerloop_server.learners.objectives import masked_mean
from innerloop_server.learners.trainable import Prepared, TrainableLearner
from innerloop_server.streams import Purpose, stream

LOG_STD = "log_std"
"""Weight of a Gaussian policy: the log standard deviation of its raw actions."""
DEPTH = "depth"
"""State array [B] int64: inner steps behind the weights."""


@dataclass(frozen=True)
class PolicySettings:
    """The policy that is adapted, and how it starts out."""

    hidden_sizes: tuple[int, ...]
    last_layer_scale: float
    initial_log_std: float


class FastWeightLearner(TrainableLearner):
    """A policy network whose weights are the adaptation state, for Box and Discrete actions."""

    def __init__(self, spec: LearnerSpec, policy: PolicySettings) -> None:
        self.spec = spec
        self.header = networks.header(spec, policy.hidden_sizes)
        self._start_out = policy
        self._aims = spec.supervision is Supervision.REGRESSION
        """A prediction is a point: its deviation stays at the floor, and neither entropy nor KL means anything."""
        self._names = tuple(weight_shapes(self.header))
        self._learned = tuple(name for name in self._names if not (self._aims and name == LOG_STD))

    def begin(self, meta: Tensors, n: int, rows: int = 1) -> Tensors:
        """The initial weights ``n`` times, at depth 0."""
        del rows
        with torch.no_grad():
            state = self._start(meta, n)
        state[DEPTH] = torch.zeros(n, dtype=torch.int64, device=meta[self._names[0]].device)
        return state

    def act(self, meta: Tensors, state: Tensors, input: Input) -> tuple[Distribution, Tensors]:
        """Reads the observation alone; the state is unchanged."""
        del meta
        return networks.forward(self.header, state, input.observation), state

    def export(self, meta: Tensors, state: Tensors) -> tuple[Header, list[Arrays]]:
        """Portable policies, one a task."""
        del meta
        host = {name: state[name].detach().to("cpu", torch.float32).numpy() for name in self._names}
        n = state[DEPTH].shape[0]
        return self.header, [{name: value[b] for name, value in host.items()} for b in range(n)]

    def _initial_weights(self, seed: int) -> Tensors:
        """Fresh weights, those that are learned."""
        weights = networks.initial_weights(
            self.header,
            stream(seed, Purpose.INITIAL_META),
            last_layer_scale=self._start_out.last_layer_scale,
            initial_log_std=self._start_out.initial_log_std,
        )
        return {name: weights[name] for name in self._learned}

    def _start(self, meta: Tensors, n: int) -> Tensors:
        """The initial weights ``n`` times, differentiable where they are learned."""
        weights = networks.stack({name: meta[name] for name in self._learned}, n)
        if self._aims:
            like = meta[self._names[0]]
            weights[LOG_STD] = torch.full((n, self.header.action_size), LOG_STD_FLOOR).to(like)
        return weights

    def _policy(self, weights: Tensors, prepared: Prepared) -> Gaussian | Categorical:
        return networks.forward(self.header, weights, prepared.observations)

    def _step_metrics(
        self, loss: torch.Tensor, policy: Gaussian | Categorical, after: Tensors, prepared: Prepared
    ) -> Mapping[str, torch.Tensor]:
        """What a session hears of an inner step from ``policy`` to the weights ``after``, [B] float32 each."""
        metrics = {"loss": loss.detach(), "kl": torch.zeros_like(loss), "entropy": torch.zeros_like(loss)}
        if not self._aims:
            metrics["kl"] = masked_mean(policy.kl(self._policy(after, prepared)), prepared.mask)
            metrics["entropy"] = masked_mean(policy.entropy(), prepared.mask)
        return {name: value.detach().to(torch.float32) for name, value in metrics.items()}
