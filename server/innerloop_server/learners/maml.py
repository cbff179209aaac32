"""MAML (Finn et al. 2017, https://arxiv.org/abs/1703.03400) and its nearest kin, each a setting.

The adaptation state is the fast weights and how many inner steps made them. One inner step is one gradient of the
ratio-form surrogate on fresh on-policy episodes, for all tasks at once:

    theta_{k+1} = theta_k - rate_scale * exp(log_rate_{min(k, K-1)}) * grad J_in(theta_k; tau_k)

The meta-loss is a surrogate of the adapted policies on their own episodes, averaged over k = 1..K, and differentiated
through the whole chain on stored episodes. What may differ:

* ``order``: ``second``, or ``first`` for FOMAML, which takes the inner gradients for constants (section 5.2 there).
* ``rates``: ``fixed``, or ``learned``, one for each parameter and each inner step, in log space (Meta-SGD, Li et al.
  2017, https://arxiv.org/abs/1707.09835, has one for each parameter).
* ``adapt``: ``all`` weights, or the ``head`` alone (ANIL, Raghu et al. 2020, https://arxiv.org/abs/1909.09157).
* ``outer``: ``ppo``, ``promp`` (``learners/promp``) or ``trpo`` (``training/outer_trpo``).

On a supervised family both losses are that of the answers instead (``learners/supervised``), tau_k is the same support
for every k, and the meta-loss is taken on fresh queries: MAML for classification and regression, as the paper has it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from innerloop_server.domain import Experience, LearnerSpec
from innerloop_server.learners.distributions import Categorical, Gaussian
from innerloop_server.learners.fast_weights import DEPTH, LOG_STD, FastWeightLearner, PolicySettings
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.maml_objectives import Weighing, objective_of
from innerloop_server.learners.maml_settings import MamlSettings, check_fits
from innerloop_server.learners.promp import mean_kl
from innerloop_server.learners.trainable import GradientLearner, Prepared, Unrolled

RATE_PREFIX = "log_rates."
"""Meta-parameter of the learned rates of a weight: ``log_rates.<weight>``, [K, *shape]."""


class Maml(FastWeightLearner, GradientLearner):
    """MAML for Box and Discrete actions."""

    def __init__(self, spec: LearnerSpec) -> None:
        """Bind the method to a family.

        Raises:
            InvalidField: a setting that cannot be (see :class:`MamlSettings`), or not on a supervised family.
        """
        s = self.settings = MamlSettings.from_json(spec.settings)
        check_fits(spec)
        super().__init__(spec, PolicySettings(s.hidden_sizes, s.last_layer_scale, s.initial_log_std))
        clip = None if s.outer == "trpo" else s.clip
        self._objective = objective_of(spec, self.header, Weighing(s.discount, s.inner_lambda, s.outer_lambda, clip))
        head = f"layers.{len(s.hidden_sizes)}."
        self._adapted = tuple(
            name for name in self._learned if s.adapt == "all" or name == LOG_STD or name.startswith(head)
        )
        """Names of the weights that inner steps move."""

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

    @property
    def kl_limit(self) -> float | None:
        """Of natural-gradient steps; ``None``: Adam's are taken."""
        return self.settings.kl_limit if self.settings.outer == "trpo" else None

    def learning_rate(self, name: str, update: int) -> float:
        """Falls linearly from the setting at update 0 towards zero after the last."""
        s = self.settings
        start = s.rates_learning_rate if name.startswith(RATE_PREFIX) else s.learning_rate
        return start * max(0.0, 1 - update / s.updates)

    def initial_meta(self, seed: int) -> Tensors:
        """Fresh meta-parameters: the initial weights and, if they are learned, the log rates of those that adapt."""
        meta = self._initial_weights(seed)
        if self.settings.rates == "learned":
            meta |= {RATE_PREFIX + name: self._initial_log_rates(meta[name]) for name in self._adapted}
        return meta

    def adapt(
        self, meta: Tensors, state: Tensors, experience: Experience[torch.Tensor], rate_scale: torch.Tensor
    ) -> tuple[Tensors, Mapping[str, torch.Tensor]]:
        """One inner step of B tasks, detached. A task without a real step keeps its weights."""
        prepared = self.prepare(experience)
        before = {name: state[name].detach() for name in self._names}
        with torch.enable_grad():
            leaves = {name: before[name].clone().requires_grad_() for name in self._adapted}
            policy = self._policy({**before, **leaves}, prepared)
            loss = self._objective.inner(policy, prepared)
            gradients = torch.autograd.grad(loss.sum(), list(leaves.values()))
        with torch.no_grad():
            step = state[DEPTH].clamp(max=self.inner_steps - 1)
            after: Tensors = dict(before)
            for name, gradient in zip(self._adapted, gradients, strict=True):
                value = before[name]
                rate = torch.exp(self._log_rates(meta, name, value[0])[step])
                after[name] = value - rate_scale.to(value.dtype).reshape(-1, *(1,) * (value.dim() - 1)) * (
                    rate * gradient
                )
            metrics = self._step_metrics(loss, policy, after, prepared)
            after[DEPTH] = state[DEPTH] + 1
        return after, metrics

    def prepare(self, experience: Experience[torch.Tensor]) -> Prepared:
        """As the objective wants it: advantages of episodes, or examples and their answers."""
        prepared: Prepared = self._objective.prepare(experience)
        return prepared

    def unroll(self, meta: Tensors, steps: Sequence[Prepared], *, second_order: bool = True) -> Iterator[Unrolled]:
        """The inner steps on stored episodes, one after another: what is not asked for is not computed.

        Args:
            meta: meta-parameters that require gradients.
            steps: as :meth:`meta_loss`.
            second_order: let the results depend on ``meta`` through the inner gradients too, if ``order`` is second.
        """
        weights = self._start(meta, steps[0].mask.shape[0])
        second_order = second_order and self.settings.order == "second"
        for k, (fresh, judged) in enumerate(itertools.pairwise(steps)):
            support = fresh if self.spec.supervision is None else steps[0]
            before = self._policy(weights, support)
            gradients = torch.autograd.grad(
                self._objective.inner(before, support).sum(),
                [weights[name] for name in self._adapted],
                retain_graph=True,
                create_graph=second_order,
            )
            weights = weights | {
                name: weights[name]
                - torch.exp(self._log_rates(meta, name, meta[name])[min(k, self.inner_steps - 1)]) * gradient
                for name, gradient in zip(self._adapted, gradients, strict=True)
            }
            yield Unrolled(before, support, self._policy(weights, judged), judged)

    def outer_loss(self, unrolled: Iterable[Unrolled]) -> torch.Tensor:
        """The outer loss after each of k = 1..K inner steps, mean over steps and tasks; without a KL penalty."""
        first, *others = [self._objective.outer(one.after, one.judged).mean() for one in unrolled]
        return sum(others, first) / (1 + len(others))

    def meta_loss(
        self, meta: Tensors, steps: Sequence[Prepared], sampled: Sequence[Gaussian | Categorical] = ()
    ) -> torch.Tensor:
        """:meth:`outer_loss` of the inner steps, and with ``outer = promp`` the penalty of having left ``sampled``."""
        if not sampled:
            return self.outer_loss(self.unroll(meta, steps))
        unrolled = list(self.unroll(meta, steps))
        left = mean_kl(sampled, [one.before for one in unrolled], [one.support.mask for one in unrolled])
        return self.outer_loss(unrolled) + self.settings.kl_penalty * left

    def sampled(self, meta: Tensors, steps: Sequence[Prepared]) -> list[Gaussian | Categorical]:
        """What the penalty of ``promp`` is measured from: the policies before each inner step, constants."""
        if self.settings.outer != "promp":
            return []
        leaves = {name: value.detach().requires_grad_() for name, value in meta.items()}
        return [one.before.detach() for one in self.unroll(leaves, steps, second_order=False)]

    def _initial_log_rates(self, like: torch.Tensor) -> torch.Tensor:
        return like.new_full((self.inner_steps, *like.shape), math.log(self.settings.initial_rate))

    def _log_rates(self, meta: Tensors, name: str, like: torch.Tensor) -> torch.Tensor:
        """[K, *shape]. Fixed rates take the same path as learned ones, so that the two agree bit for bit."""
        learned = meta.get(RATE_PREFIX + name)
        return self._initial_log_rates(like) if learned is None else learned
