"""RL2: a policy with a memory, trained over whole trials, whose memory is what adapts.

Duan et al. 2016 (https://arxiv.org/abs/1611.02779) and Wang et al. 2016 (https://arxiv.org/abs/1611.05763). The policy
sees what it did and what that brought, and remembers it through all the episodes of a task; memory is emptied at the
end of a trial and nowhere else. It is trained by PPO on the return of the whole trial: advantages run through the
ends of episodes, so that what was found out in the first is worth what it brings in the last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch

from innerloop.arrays import Arrays
from innerloop.policy import PREVIOUS, Header
from innerloop_server.domain import Experience, LearnerSpec
from innerloop_server.learners import networks, recurrent, tallies
from innerloop_server.learners.learner import Distribution, Input, Tensors
from innerloop_server.learners.rl2_settings import Rl2Settings, check_fits, span_of
from innerloop_server.learners.trial_network import NETWORKS
from innerloop_server.learners.trial_ppo import TrialLearner
from innerloop_server.learners.trial_record import TrialRecord
from innerloop_server.streams import Purpose, stream

VALUE_PREFIX = "value."
"""Meta-parameters that only training reads."""
_KERNEL = "policy.layers.0.weight"
"""A weight that every network has: its dtype and device are those of all."""


class Rl2(TrialLearner):
    """RL2 with a GRU or a transformer, for Box and Discrete actions."""

    def __init__(self, spec: LearnerSpec) -> None:
        """Bind the method to a family.

        Raises:
            InvalidField: a setting that cannot be (see :class:`Rl2Settings`), or a supervised family.
        """
        check_fits(spec)
        self.spec = spec
        self._settings = Rl2Settings.from_json(spec.settings)
        s = self._settings
        self.header = dataclasses.replace(
            networks.header(spec, s.hidden_sizes),
            architecture=s.memory,
            adapts=True,
            encoder_sizes=s.encoder_sizes,
            memory_size=s.memory_size,
            transitions=s.transitions,
            tallies=s.tallies,
            tally_mean=s.tally_mean if s.tallies else 0.0,
            tally_strength=s.tally_strength if s.tallies else 1.0,
        )
        if s.memory == "transformer":
            self.header = dataclasses.replace(
                self.header,
                memory_layers=s.memory_layers,
                memory_heads=s.memory_heads,
                memory_span=span_of(s, spec.horizon),
            )
        self._network = NETWORKS[s.memory](self.header)

    @property
    def settings(self) -> Rl2Settings:
        """As checked."""
        return self._settings

    def initial_meta(self, seed: int) -> Tensors:
        """Fresh weights of policy and value."""
        s = self.settings
        rng = stream(seed, Purpose.INITIAL_META)
        scales = {"last_layer_scale": s.last_layer_scale, "initial_log_std": s.initial_log_std}
        weights = self._network.initial_weights(rng, **scales)
        return weights | recurrent.initial_told(self.header, rng, self.task_size)

    def begin(self, meta: Tensors, n: int, rows: int = 1) -> Tensors:
        """Empty memories."""
        memory = self._network.begin(meta[_KERNEL], n, rows)
        if self.header.tallies:
            memory = memory | tallies.begin(self.header, meta[_KERNEL], n, rows)
        if self.header.transitions:
            memory = memory | {PREVIOUS: meta[_KERNEL].new_zeros((n, rows, self.header.observation_size))}
        return memory

    def act(self, meta: Tensors, state: Tensors, input: Input) -> tuple[Distribution, Tensors]:
        """Look, remember, and say what to do."""
        weights = recurrent.share(_policy_part(meta), input.observation.shape[0])
        x, first = recurrent.features(self.header, input, meta[_KERNEL].dtype)
        parts: list[torch.Tensor] = [x]
        kept: Tensors = {}
        if self.header.tallies:
            seen, kept = tallies.look(self.header, state, input)
            parts.append(seen)
        if self.header.transitions:
            parts.append(state[PREVIOUS].masked_fill(first.unsqueeze(-1), 0))
            kept = {**kept, PREVIOUS: x[..., : self.header.observation_size]}
        y, memory = self._network.look(weights, state, torch.cat(parts, -1), first)
        return recurrent.policy(self.header, weights, y), memory | kept

    def adapt(
        self, meta: Tensors, state: Tensors, experience: Experience[torch.Tensor], rate_scale: torch.Tensor
    ) -> tuple[Tensors, Mapping[str, torch.Tensor]]:
        """Nothing: the memory moved when the episodes were played."""
        del meta, experience
        zero = torch.zeros_like(rate_scale)
        return state, {"loss": zero, "kl": zero, "entropy": zero}

    def export(self, meta: Tensors, state: Tensors) -> tuple[Header, list[Arrays]]:
        """The policy's weights, the same for every task."""
        host = {name: value.detach().cpu().numpy() for name, value in _policy_part(meta).items()}
        return self.header, [dict(host) for _ in range(next(iter(state.values())).shape[0])]

    def inputs(self, meta: Tensors, trials: TrialRecord) -> torch.Tensor:
        """What the network reads at each step, and after it what the value is told of the task: [T, R, I + P]."""
        dtype = meta[_KERNEL].dtype
        parts = [recurrent.trial_features(self.header, trials, dtype)]
        if self.header.tallies:
            parts.append(tallies.of_trials(self.header, trials, dtype))
        if self.header.transitions:
            seen = parts[0][..., : self.header.observation_size]
            parts.append(torch.cat([torch.zeros_like(seen[:1]), seen[:-1]]))
        return recurrent.with_task(torch.cat(parts, -1), trials, self.task_size)

    def read(self, meta: Tensors, x: torch.Tensor) -> tuple[Distribution, torch.Tensor]:
        """Policy and value at each step, [1, T * R]."""
        weights = recurrent.share(meta, 1)
        size = x.shape[-1] - self.task_size
        y = self._network.unroll(weights, x[None, ..., :size]).flatten(1, 2)
        told = recurrent.told(weights, x[..., size:])
        return recurrent.policy(self.header, weights, y), recurrent.value(weights, y, told)


def _policy_part(meta: Tensors) -> Tensors:
    return {name: value for name, value in meta.items() if not name.startswith(VALUE_PREFIX)}
