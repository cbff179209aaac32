"""What the gradients of fast weights follow: returns, or right answers.

An objective turns a step's episodes into what does not change while the meta-parameters do (``prepare``), and says what
a policy loses on it before (``inner``) and after (``outer``) adaptation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from innerloop.policy import Header
from innerloop_server.domain import Experience, LearnerSpec
from innerloop_server.learners import networks
from innerloop_server.learners.baselines import fit_values
from innerloop_server.learners.distributions import Categorical, Gaussian
from innerloop_server.learners.objectives import clipped_surrogate, masked_mean, normalise, surrogate
from innerloop_server.learners.returns import gae, step_mask
from innerloop_server.learners.supervised import example_loss
from innerloop_server.learners.trainable import Examples, Prepared, Samples

PreparedT = TypeVar("PreparedT", bound=Prepared)


class Objective(Protocol[PreparedT]):
    """See the module."""

    def prepare(self, experience: Experience[torch.Tensor]) -> PreparedT:
        """All that a step's gradients need of its episodes."""
        ...

    def inner(self, policy: Gaussian | Categorical, prepared: PreparedT) -> torch.Tensor:
        """[B] what an inner step goes down."""
        ...

    def outer(self, policy: Gaussian | Categorical, prepared: PreparedT) -> torch.Tensor:
        """[B] what training goes down, of adapted policies."""
        ...


@dataclass(frozen=True)
class Weighing:
    """How returns are weighed. Where there are right answers, not at all."""

    discount: float
    """Per step."""
    inner_lambda: float
    """GAE lambda of the inner surrogate."""
    outer_lambda: float
    """GAE lambda of the outer surrogate."""
    clip: float | None
    """PPO clip of the outer surrogate; ``None``: its ratios are not bounded."""


def objective_of(spec: LearnerSpec, header: Header, weighing: Weighing) -> Objective[Any]:
    """The objective for a family with or without right answers."""
    return Reinforcement(spec, header, weighing) if spec.supervision is None else Answers(spec)


class Reinforcement:
    """Inside the ratio-form surrogate, outside the same or PPO's clipped one (``learners/objectives``)."""

    def __init__(self, spec: LearnerSpec, header: Header, weighing: Weighing) -> None:
        self._spec = spec
        self._header = header
        self._weighing = weighing

    def prepare(self, experience: Experience[torch.Tensor]) -> Samples:
        """Fit each task's baseline on these episodes and normalise its advantages."""
        s = self._weighing
        with torch.no_grad():
            observations = networks.flatten(self._header, experience.observations, torch.float64)
            final = networks.flatten(self._header, experience.final_observations, torch.float64)
            values = fit_values(self._spec.baseline, experience, observations, final, self._spec.horizon, s.discount)
            mask = step_mask(experience.lengths, experience.rewards.shape[-1])
            rewards = experience.rewards.to(torch.float64)

            def advantages(trace: float) -> torch.Tensor:
                raw = gae(rewards, values.v_t, values.v_final, experience.lengths, s.discount, trace)
                return normalise(raw, mask).to(experience.log_probs.dtype)

            inner = advantages(s.inner_lambda)
            outer = inner if s.outer_lambda == s.inner_lambda else advantages(s.outer_lambda)
        return Samples(
            observations=experience.observations,
            mask=mask,
            actions=experience.actions,
            log_probs=experience.log_probs,
            inner_advantages=inner,
            outer_advantages=outer,
        )

    def inner(self, policy: Gaussian | Categorical, prepared: Samples) -> torch.Tensor:
        """The surrogate of the policy that sampled."""
        log_prob = policy.log_prob(prepared.actions)
        return surrogate(log_prob, prepared.log_probs, prepared.inner_advantages, prepared.mask)

    def outer(self, policy: Gaussian | Categorical, prepared: Samples) -> torch.Tensor:
        """The surrogate on the adapted policy's own episodes."""
        log_prob = policy.log_prob(prepared.actions)
        old, advantages, mask = prepared.log_probs, prepared.outer_advantages, prepared.mask
        if self._weighing.clip is None:
            return surrogate(log_prob, old, advantages, mask)
        return clipped_surrogate(log_prob, old, advantages, mask, self._weighing.clip)


class Answers:
    """The mean loss of labelled examples (``learners/supervised``), inside on the support, outside on queries."""

    def __init__(self, spec: LearnerSpec) -> None:
        self._spec = spec

    def prepare(self, experience: Experience[torch.Tensor]) -> Examples:
        """The examples and their answers; what was predicted, and what it earned, is not needed."""
        mask = step_mask(experience.lengths, experience.rewards.shape[-1])
        return Examples(experience.observations, mask, experience.feedback)

    def inner(self, policy: Gaussian | Categorical, prepared: Examples) -> torch.Tensor:
        """Mean over the support examples."""
        return masked_mean(example_loss(self._spec, policy, prepared.feedback), prepared.mask)

    def outer(self, policy: Gaussian | Categorical, prepared: Examples) -> torch.Tensor:
        """Mean over the query examples."""
        return self.inner(policy, prepared)
