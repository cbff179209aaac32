"""RL2: a recurrent policy trained over whole trials, whose memory is what adapts.

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
from innerloop.policy import Header
from innerloop_server.domain import Experience, LearnerSpec
from innerloop_server.learners import networks, recurrent
from innerloop_server.learners.learner import Distribution, Input, Tensors
from innerloop_server.learners.rl2_settings import Rl2Settings, check_fits
from innerloop_server.learners.trial_ppo import TrialLearner
from innerloop_server.learners.trial_record import TrialRecord
from innerloop_server.streams import Purpose, stream

MEMORY = "memory"
"""State array [B, N, M]: what each row remembers."""
VALUE_PREFIX = "value."
"""Meta-parameters that only training reads."""


class Rl2(TrialLearner):
    """RL2 with a GRU, for Box and Discrete actions."""

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
            architecture="gru",
            adapts=True,
            encoder_sizes=s.encoder_sizes,
            memory_size=s.memory_size,
        )

    @property
    def settings(self) -> Rl2Settings:
        """As checked."""
        return self._settings

    def initial_meta(self, seed: int) -> Tensors:
        """Fresh weights of policy and value."""
        s = self.settings
        rng = stream(seed, Purpose.INITIAL_META)
        scales = {"last_layer_scale": s.last_layer_scale, "initial_log_std": s.initial_log_std}
        return recurrent.initial_weights(self.header, rng, **scales)

    def begin(self, meta: Tensors, n: int, rows: int = 1) -> Tensors:
        """Empty memories."""
        kernel = meta["gru.hidden.weight"]
        return {MEMORY: kernel.new_zeros((n, rows, self.header.memory_size))}

    def act(self, meta: Tensors, state: Tensors, input: Input) -> tuple[Distribution, Tensors]:
        """Look, remember, and say what to do."""
        memory = state[MEMORY]
        weights = recurrent.share(_policy_part(meta), memory.shape[0])
        x, first = recurrent.features(self.header, input, memory.dtype)
        y, memory = recurrent.look(weights, memory, x, first)
        return recurrent.policy(self.header, weights, y), {MEMORY: memory}

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
        return self.header, [dict(host) for _ in range(state[MEMORY].shape[0])]

    def inputs(self, meta: Tensors, trials: TrialRecord) -> torch.Tensor:
        """What the network reads at each step, [T, R, I]."""
        dtype = meta["gru.hidden.weight"].dtype
        start, _ = recurrent.features(self.header, Input(trials.observations[:1]), dtype)
        then = Input(
            observation=trials.observations[1:],
            previous_action=trials.actions[:-1],
            reward=trials.rewards[:-1],
            terminated=trials.terminated[:-1],
            truncated=trials.truncated[:-1],
            # Trials are whole: none starts in the middle, and what comes after one's end is not real.
            trial_end=torch.zeros_like(trials.trial_end[:-1]),
        )
        return torch.cat([start, recurrent.features(self.header, then, dtype)[0]])

    def read(self, meta: Tensors, x: torch.Tensor) -> tuple[Distribution, torch.Tensor]:
        """Policy and value at each step, [1, T * R]."""
        weights = recurrent.share(meta, 1)
        y = recurrent.unroll(weights, x[None]).flatten(1, 2)
        return recurrent.policy(self.header, weights, y), recurrent.value(weights, y)


def _policy_part(meta: Tensors) -> Tensors:
    return {name: value for name, value in meta.items() if not name.startswith(VALUE_PREFIX)}
