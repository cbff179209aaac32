"""Meta-DQN: recurrent Q-learning on whole trials, with a memory that is what adapts.

Action values of all that was seen in the trial (Hausknecht and Stone 2015, https://arxiv.org/abs/1507.06527), learned
off-policy from remembered trials: with double, n-step targets and a dueling head (Hessel et al. 2018,
https://arxiv.org/abs/1710.02298), on stretches with stored memory and burn-in where trials are long (Kapturowski et al.
2019, https://openreview.net/forum?id=r1lyTjAqYX). Targets run through the ends of episodes: what was found out in one
is worth what it brings in the next. The trial's end alone cuts them, whether its last episode terminated or its time
was up: a trial's length is part of the problem, and when it is over there is nothing to be had any more. (Where it is
not, as in control with a time limit that nobody sees coming, ``limit_ends`` is False.)

The network is that of ``rl2``, and so is the portable policy: its logits are the advantages over ``temperature``. The
value is for training alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from innerloop.arrays import Arrays
from innerloop.policy import Header
from innerloop_server.domain import Adaptation, Experience, LearnerSpec
from innerloop_server.learners import networks, q_targets, recurrent
from innerloop_server.learners.distributions import Categorical
from innerloop_server.learners.learner import Distribution, Input, Tensors
from innerloop_server.learners.meta_dqn_settings import MetaDqnSettings, check_fits
from innerloop_server.learners.objectives import masked_mean
from innerloop_server.learners.trainable import TrainableLearner
from innerloop_server.streams import Purpose, stream

MEMORY = "memory"
"""State array [B, N, M]: what each row remembers."""
TARGET = "target."
"""Meta-parameters of the target network: those without it, some time ago."""
VALUE_PREFIX = "value."
"""Meta-parameters that only training reads, as the target's."""
LAST_LAYER_SCALE = 0.1
"""Shrinks the advantages at the start, so that no action is preferred for nothing."""


@dataclass(frozen=True)
class Stretches:
    """S stretches of trials, L steps each."""

    x: torch.Tensor
    """[S, L, I]: what the network reads."""
    actions: torch.Tensor
    """[S, L] int64."""
    rewards: torch.Tensor
    """[S, L]."""
    cut: torch.Tensor
    """[S, L] bool: nothing follows the step."""
    teaches: torch.Tensor
    """[S, L] bool: the action's value is learned. Such a step is cut, or another follows it here."""
    memory: torch.Tensor
    """[S, M]: of whoever played, before the first step."""


class MetaDqn(TrainableLearner):
    """Recurrent Q-learning with a GRU, for Discrete actions."""

    adaptation = Adaptation.MEMORY

    def __init__(self, spec: LearnerSpec) -> None:
        """Bind the method to a family.

        Raises:
            InvalidField: a setting that cannot be (see :class:`MetaDqnSettings`), a supervised family, or one whose
                actions are not Discrete.
        """
        check_fits(spec)
        self.spec = spec
        self.settings = MetaDqnSettings.from_json(spec.settings)
        s = self.settings
        self.header = dataclasses.replace(
            networks.header(spec, s.hidden_sizes),
            architecture="gru",
            adapts=True,
            encoder_sizes=s.encoder_sizes,
            memory_size=s.memory_size,
        )

    @property
    def inner_steps(self) -> int:
        """Episodes before the last of a trial."""
        return self.settings.inner_steps

    @property
    def episodes_per_step(self) -> int:
        """One: what a row remembers is its own."""
        return self.settings.episodes_per_step

    @property
    def updates(self) -> int:
        """Updates of a whole training."""
        return self.settings.updates

    @property
    def tasks_per_update(self) -> int:
        """Fresh tasks an update."""
        return self.settings.tasks_per_update

    def initial_meta(self, seed: int) -> Tensors:
        """Fresh weights; the target network has the same."""
        rng = stream(seed, Purpose.INITIAL_META)
        weights = recurrent.initial_weights(self.header, rng, last_layer_scale=LAST_LAYER_SCALE, initial_log_std=0.0)
        return weights | {TARGET + name: value.clone() for name, value in weights.items()}

    def begin(self, meta: Tensors, n: int, rows: int = 1) -> Tensors:
        """Empty memories."""
        kernel = meta["gru.hidden.weight"]
        return {MEMORY: kernel.new_zeros((n, rows, self.header.memory_size))}

    def act(self, meta: Tensors, state: Tensors, input: Input) -> tuple[Distribution, Tensors]:
        """Look, remember, and say what every action is worth."""
        memory = state[MEMORY]
        weights = recurrent.share(policy_part(meta), memory.shape[0])
        x, first = recurrent.features(self.header, input, memory.dtype)
        y, memory = recurrent.look(weights, memory, x, first)
        return Categorical(self._advantages(weights, y) / self.settings.temperature), {MEMORY: memory}

    def adapt(
        self, meta: Tensors, state: Tensors, experience: Experience[torch.Tensor], rate_scale: torch.Tensor
    ) -> tuple[Tensors, Mapping[str, torch.Tensor]]:
        """Nothing: the memory moved when the episodes were played."""
        del meta, experience
        zero = torch.zeros_like(rate_scale)
        return state, {"loss": zero, "kl": zero, "entropy": zero}

    def export(self, meta: Tensors, state: Tensors) -> tuple[Header, list[Arrays]]:
        """The policy's weights, the same for every task, ``temperature`` in the last layer."""
        last = f"policy.layers.{len(self.header.hidden_sizes)}."
        scaled = {
            name: value / self.settings.temperature if name.startswith(last) else value
            for name, value in policy_part(meta).items()
        }
        host = {name: value.detach().cpu().numpy() for name, value in scaled.items()}
        return self.header, [dict(host) for _ in range(state[MEMORY].shape[0])]

    def memories(self, meta: Tensors, x: torch.Tensor) -> torch.Tensor:
        """What is remembered after each step of whole trials, [T, R, M], of what is read at each, [T, R, I]."""
        read = recurrent.unroll(recurrent.share(policy_part(meta), 1), x[None])[0]
        return read[..., : self.header.memory_size]

    def action_values(self, weights: Tensors, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """In ``value_unit``, at each step, of each action.

        Args:
            weights: of the network, or of the target (:func:`target_part`).
            x: [S, L, I] what is read.
            memory: [S, M] before the first step.

        Returns:
            [S, L, A].
        """
        shared = recurrent.share(weights, 1)
        y = recurrent.unroll(shared, x.transpose(0, 1)[None], memory[None]).flatten(1, 2)
        q = q_targets.dueling(recurrent.value(shared, y), self._advantages(shared, y))
        return q.reshape(x.shape[1], x.shape[0], -1).transpose(0, 1)

    def loss(self, meta: Tensors, stretches: Stretches) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Huber loss of the action values, a scalar differentiable in all but the target network, and what to watch.

        Args:
            meta: meta-parameters; their dtype is the dtype of the computation.
            stretches: to learn from.
        """
        s = self.settings
        q_t = self.action_values(policy_part(meta) | value_part(meta), stretches.x, stretches.memory)
        with torch.no_grad():
            best_t = q_t.argmax(-1)
            theirs = self.action_values(target_part(meta), stretches.x, stretches.memory)
            targets = q_targets.n_step(
                stretches.rewards.to(q_t.dtype) / s.value_unit,
                stretches.cut,
                q_targets.double_values(theirs, best_t),
                # Beyond what teaches nothing is known to follow.
                (stretches.actions == best_t) & stretches.teaches,
                s.discount,
                s.lookahead,
            )
        taken_t = q_targets.double_values(q_t, stretches.actions)
        counted = stretches.teaches[None]
        loss = masked_mean(q_targets.huber(taken_t - targets)[None], counted)[0]
        return loss, {"action_value": masked_mean(taken_t.detach()[None], counted)[0] * s.value_unit}

    def _advantages(self, weights: Tensors, y: torch.Tensor) -> torch.Tensor:
        head = recurrent.policy(self.header, weights, y)
        assert isinstance(head, Categorical)  # as the settings were checked
        return head.logits


def policy_part(meta: Tensors) -> Tensors:
    """What acts."""
    return {name: value for name, value in meta.items() if not name.startswith((VALUE_PREFIX, TARGET))}


def value_part(meta: Tensors) -> Tensors:
    """The value of the network that learns."""
    return {name: value for name, value in meta.items() if name.startswith(VALUE_PREFIX)}


def target_part(meta: Tensors) -> Tensors:
    """The target network, by the names of the other."""
    return {name.removeprefix(TARGET): value for name, value in meta.items() if name.startswith(TARGET)}
