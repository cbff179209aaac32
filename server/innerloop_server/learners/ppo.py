"""PPO (Schulman et al. 2017, https://arxiv.org/abs/1707.06347): one policy for all tasks, which never adapts.

Not a meta-learner. It says what one reaches without adapting (trained on what a policy sees: the *memoryless*
reference, the method ``multitask``) and what one reaches by being told (trained with the tasks' parameters in view: the
method ``oracle``). As a :class:`Learner` its adaptation state is the policy itself, and an adaptation step changes
nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from innerloop.arrays import Arrays, Discrete
from innerloop.policy import Header
from innerloop_server.domain import Experience, LearnerSpec
from innerloop_server.learners import networks
from innerloop_server.learners.distributions import Categorical, Gaussian
from innerloop_server.learners.learner import Distribution, Input, Tensors
from innerloop_server.learners.objectives import clipped_surrogate, normalise
from innerloop_server.learners.ppo_settings import PpoSettings
from innerloop_server.learners.returns import gae, step_mask
from innerloop_server.learners.trainable import TrainableLearner
from innerloop_server.streams import Purpose, stream

POLICY, VALUE = "policy/", "value/"
"""Meta-parameters are ``policy/<weight>`` and ``value/<weight>``."""
LOG_STD = f"{POLICY}log_std"


@dataclass(frozen=True)
class Steps:
    """An update's real steps, S of them, in no order that matters."""

    observations: torch.Tensor
    """[S, *O]."""
    actions: torch.Tensor
    """[S, ...] raw."""
    log_probs: torch.Tensor
    """[S] under the policy that sampled."""
    advantages: torch.Tensor
    """[S] with mean 0 and standard deviation 1."""
    value_targets: torch.Tensor
    """[S] discounted returns in ``value_unit``."""

    def __len__(self) -> int:
        return len(self.log_probs)

    def take(self, rows: torch.Tensor) -> Steps:
        """The steps at ``rows`` [R] int64."""
        parts = {field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)}
        return Steps(**parts)


class Ppo(TrainableLearner):
    """PPO for Box and Discrete actions."""

    def __init__(self, spec: LearnerSpec) -> None:
        """Bind the method to a family.

        Raises:
            InvalidField: a setting that cannot be (see :class:`PpoSettings`).
        """
        self.spec = spec
        self.settings = PpoSettings.from_json(spec.settings)
        self.header = networks.header(spec, self.settings.hidden_sizes)
        # A value is the one logit of a choice among one: the same network code, without a log_std.
        self._value_header = dataclasses.replace(self.header, action_space=Discrete(1))

    @property
    def inner_steps(self) -> int:
        """One, which changes nothing: a session that was not told otherwise ends after it."""
        return self.settings.inner_steps

    @property
    def episodes_per_step(self) -> int:
        """One episode of each task an update."""
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
        """Fresh networks."""
        s = self.settings
        parts = {POLICY: (self.header, s.last_layer_scale), VALUE: (self._value_header, 1.0)}
        meta: Tensors = {}
        for counter, (prefix, (header, scale)) in enumerate(parts.items()):
            weights = networks.initial_weights(
                header,
                stream(seed, Purpose.INITIAL_META, counter),
                last_layer_scale=scale,
                initial_log_std=s.initial_log_std,
            )
            meta |= {prefix + name: value for name, value in weights.items()}
        return meta

    def begin(self, meta: Tensors, n: int, rows: int = 1) -> Tensors:
        """The policy ``n`` times."""
        del rows
        return networks.stack(_part(meta, POLICY), n)

    def act(self, meta: Tensors, state: Tensors, input: Input) -> tuple[Distribution, Tensors]:
        """Reads the observation alone; the state is unchanged."""
        del meta
        return networks.forward(self.header, state, input.observation), state

    def adapt(
        self, meta: Tensors, state: Tensors, experience: Experience[torch.Tensor], rate_scale: torch.Tensor
    ) -> tuple[Tensors, Mapping[str, torch.Tensor]]:
        """Nothing: the policy is fixed."""
        del meta, experience
        zero = torch.zeros_like(rate_scale)
        return state, {"loss": zero, "kl": zero, "entropy": zero}

    def export(self, meta: Tensors, state: Tensors) -> tuple[Header, list[Arrays]]:
        """The policy, once a task."""
        del meta
        host = {name: value.detach().cpu().numpy() for name, value in state.items()}
        n = len(next(iter(host.values())))
        return self.header, [{name: value[b] for name, value in host.items()} for b in range(n)]

    @torch.no_grad()
    def prepare(self, meta: Tensors, experience: Experience[torch.Tensor]) -> Steps:
        """Advantages and value targets of whole episodes.

        An episode that ran to the horizon was cut by a clock that the policy does not see, so the value of its last
        observation stands for what would have come after (Pardo et al. 2018, https://arxiv.org/abs/1712.00378).

        Args:
            meta: the networks that sampled.
            experience: [1, N, T] episodes of any tasks, as if they were one task's.
        """
        s = self.settings
        capacity = experience.rewards.shape[-1]
        mask = step_mask(experience.lengths, capacity)
        v_t = self._values(meta, experience.observations) * mask
        last = v_t.gather(-1, (experience.lengths - 1).clamp(min=0).unsqueeze(-1)).squeeze(-1)
        v_final = torch.where(experience.lengths == self.spec.horizon, last, torch.zeros_like(last))
        advantages = gae(experience.rewards / s.value_unit, v_t, v_final, experience.lengths, s.discount, s.trace)
        return Steps(
            observations=experience.observations[mask],
            actions=experience.actions[mask],
            log_probs=experience.log_probs[mask],
            advantages=normalise(advantages, mask)[mask],
            value_targets=(advantages + v_t)[mask],
        )

    def loss(self, meta: Tensors, steps: Steps) -> torch.Tensor:
        """Clipped surrogate, squared value error and entropy bonus, a scalar to minimise (equation 9)."""
        s = self.settings
        policy = self._policy(meta, steps.observations[None])
        log_prob = policy.log_prob(steps.actions[None])
        everything = torch.ones_like(log_prob, dtype=torch.bool)
        surrogate = clipped_surrogate(log_prob, steps.log_probs[None], steps.advantages[None], everything, s.clip)
        error = self._values(meta, steps.observations[None])[0] - steps.value_targets
        return surrogate[0] + s.value_weight * (error * error).mean() - s.entropy * policy.entropy().mean()

    def _policy(self, meta: Tensors, observations: torch.Tensor) -> Gaussian | Categorical:
        return networks.forward(self.header, networks.stack(_part(meta, POLICY), 1), observations)

    def _values(self, meta: Tensors, observations: torch.Tensor) -> torch.Tensor:
        """[1, ...] for observations [1, ..., *O]."""
        logit = networks.forward(self._value_header, networks.stack(_part(meta, VALUE), 1), observations)
        assert isinstance(logit, Categorical)  # what a Discrete header gives
        return logit.logits[..., 0]


def _part(meta: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in meta.items() if name.startswith(prefix)}
