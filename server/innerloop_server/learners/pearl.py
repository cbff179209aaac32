"""PEARL (Rakelly et al. 2019, https://arxiv.org/abs/1903.08254): infer the task, act on what was inferred.

The adaptation state is a belief over a latent description z of the task and the z that is acted on now. A step adds the
evidence of the episodes' transitions to the belief and takes a new z: no gradient, no rate. ``rate_scale`` weighs the
evidence (1: as it is). Nothing is drawn: for its first ``sampled_steps`` states a session takes z from a sequence that
covers the belief evenly (posterior sampling without randomness), then the belief's mean.

Networks are trained off-policy by soft actor-critic on a replay of tasks (``training/pearl_student``). The encoder
follows the critics' loss, the belief's KL to the prior and, where ``model_weight`` is not 0, the error of a model that
predicts reward and change from z (the paper's section 4.1 names both ways); policy and targets see z as a constant.
The policy's deviation is one number an action dimension, and its mean a tanh network: with z fixed it is a portable
``mlp``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from innerloop.arrays import Arrays, Discrete
from innerloop.policy import Header
from innerloop_server.domain import Experience, LearnerSpec
from innerloop_server.learners import networks, perceptron, sac
from innerloop_server.learners import pearl_networks as nets
from innerloop_server.learners.distributions import Categorical, Gaussian
from innerloop_server.learners.learner import Distribution, Input, Tensors
from innerloop_server.learners.objectives import masked_mean
from innerloop_server.learners.pearl_networks import Belief
from innerloop_server.learners.pearl_settings import PearlSettings, check_fits
from innerloop_server.learners.trainable import TrainableLearner
from innerloop_server.learners.transitions import Transitions, transitions_of
from innerloop_server.streams import Purpose, stream

ENCODER, POLICY, CRITIC, TARGET, MODEL = "encoder.", "policy.", "critic.", "target.", "model."
"""What meta-parameters are named after; critics and their targets have a leading dimension 2."""
PRECISION, WEIGHTED, Z, DEPTH, COUNT = "precision", "weighted", "z", "depth", "transitions"
"""State arrays: the belief's sums [B, L, L] and [B, L], z [B, L], and, [B] int64, the adaptation steps and transitions
behind them."""
POLICY_LAST_LAYER_SCALE = 0.1
"""Shrinks the policy's last layer at the start, so that it begins by trying everything."""


@dataclass(frozen=True)
class Lesson:
    """What one optimiser step learns from, of B tasks."""

    context: Transitions
    """[B, C] what z is inferred from."""
    steps: Transitions
    """[B, M] what is valued."""
    belief_noise: torch.Tensor
    """[B, L] standard normal."""
    action_noise: torch.Tensor
    """[B, M, A] standard normal; unused where actions are Discrete."""
    next_action_noise: torch.Tensor
    """[B, M, A] standard normal; unused where actions are Discrete."""


class Pearl(TrainableLearner):
    """PEARL for Box and Discrete actions."""

    def __init__(self, spec: LearnerSpec) -> None:
        """Bind the method to a family.

        Raises:
            InvalidField: a setting that cannot be (see :class:`PearlSettings`), or a supervised family.
        """
        check_fits(spec)
        self.spec = spec
        self.settings = PearlSettings.from_json(spec.settings)
        self.header = networks.header(spec, self.settings.hidden_sizes)
        s = self.settings
        self._sighted = nets.looking(self.header, s.latent)
        self._noise = (*nets.spread_noise(s.sampled_steps, s.latent), (0.0,) * s.latent)

    @property
    def inner_steps(self) -> int:
        """Adaptation steps of a task in training."""
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

    def initial_meta(self, seed: int) -> Tensors:
        """Fresh encoder, policy and critics; the targets are the critics."""
        s, discrete = self.settings, isinstance(self.spec.action_space, Discrete)
        rngs = [stream(seed, Purpose.INITIAL_META, counter) for counter in range(5)]
        seen = self.header.observation_size + s.latent
        sizes = (
            (seen, *s.critic_sizes, self.header.action_size)
            if discrete
            else (seen + self.header.action_size, *s.critic_sizes, 1)
        )
        features = nets.evidence_size(self.header, squares=s.squares)
        measured = s.measurements * (s.latent + 1)
        encoder = perceptron.initial((features, *s.encoder_sizes, measured), rngs[0])
        critics = [perceptron.initial(sizes, rng) for rng in rngs[1:3]]
        policy = networks.initial_weights(
            self.header, rngs[3], last_layer_scale=POLICY_LAST_LAYER_SCALE, initial_log_std=s.initial_log_std
        )
        width = policy["layers.0.bias"].shape[0]
        bound = math.sqrt(6 / (seen + width))
        policy["latent.weight"] = torch.from_numpy(rngs[3].uniform(-bound, bound, (s.latent, width))).float()
        meta = {ENCODER + name: torch.from_numpy(value) for name, value in encoder.items()}
        meta |= {POLICY + name: value for name, value in policy.items()}
        if s.model_weight:
            model = perceptron.initial(
                (seen + self.header.action_size, *s.critic_sizes, 1 + self.header.observation_size), rngs[4]
            )
            meta |= {MODEL + name: torch.from_numpy(value) for name, value in model.items()}
        for name in critics[0]:
            both = torch.stack([torch.from_numpy(critic[name]) for critic in critics])
            meta |= {CRITIC + name: both, TARGET + name: both.clone()}
        return meta

    def begin(self, meta: Tensors, n: int, rows: int = 1) -> Tensors:
        """The prior, ``n`` times; all rows of a task share it."""
        del rows
        like = next(iter(meta.values()))
        zero = torch.zeros(n, dtype=torch.int64, device=like.device)
        return self._state(nets.prior(n, self.settings.latent, like), zero, zero)

    def act(self, meta: Tensors, state: Tensors, input: Input) -> tuple[Distribution, Tensors]:
        """Reads the observation and z; the state is unchanged."""
        return self._policy(meta, state[Z], input.observation), state

    @torch.no_grad()
    def adapt(
        self, meta: Tensors, state: Tensors, experience: Experience[torch.Tensor], rate_scale: torch.Tensor
    ) -> tuple[Tensors, Mapping[str, torch.Tensor]]:
        """Take in the episodes' transitions. ``loss`` is the mean squared Bellman error of the critics on them under
        the z of before, ``kl`` that of the belief from the prior, ``entropy`` the belief's.
        """
        steps = transitions_of(experience, self.spec.horizon)
        n = len(rate_scale)
        features = self._evidence(steps, torch.float32)
        measured = nets.encode(networks.stack(_part(meta, ENCODER), n), features, self.settings.latent)
        belief = nets.updated(_belief(state), *measured, steps.real, rate_scale)
        after = self._state(belief, state[DEPTH] + 1, state[COUNT] + experience.lengths.sum(-1))
        loss = self._bellman_error(meta, state[Z], steps)
        return after, {"loss": loss, "kl": belief.kl_to_prior(), "entropy": belief.entropy()}

    def uncertainty(self, meta: Tensors, state: Tensors) -> torch.Tensor:
        """The belief's entropy, [B]."""
        del meta
        return _belief(state).entropy()

    def redrawn(self, state: Tensors, noise: torch.Tensor) -> Tensors:
        """The same beliefs acting on a z drawn with ``noise`` [B, L]."""
        return {**state, Z: _belief(state).sample(noise)}

    def export(self, meta: Tensors, state: Tensors) -> tuple[Header, list[Arrays]]:
        """Portable policies, one a task, with z in their first bias."""
        weights = nets.folded(_part(meta, POLICY), state[Z])
        host = {name: value.detach().to("cpu", torch.float32).numpy() for name, value in weights.items()}
        return self.header, [{name: value[b] for name, value in host.items()} for b in range(len(state[Z]))]

    def loss(self, meta: Tensors, lesson: Lesson, temperature: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What training minimises, a scalar differentiable in all but the targets, and its parts.

        Args:
            meta: meta-parameters; their dtype is the dtype of the computation.
            lesson: of B tasks.
            temperature: scaled reward that a nat of the policy's entropy is worth.
        """
        s, dtype = self.settings, meta[POLICY + "layers.0.bias"].dtype
        belief = self._infer(meta, lesson.context, dtype)
        z = belief.sample(lesson.belief_noise)
        fixed = z.detach()
        steps, mask = lesson.steps, lesson.steps.valued
        with torch.no_grad():
            after = nets.situation(self.header, steps.next_observations, fixed)
            policy = self._looking(meta, after)
            value = self._value(_part(meta, TARGET), policy, after, lesson.next_action_noise, temperature)
            rewards = s.reward_scale * steps.rewards.to(dtype)
            targets = sac.bellman_target(rewards, steps.terminated, value, s.discount)
        critics = _part(meta, CRITIC)
        critic = sac.critic_loss(self._taken(critics, z, steps), targets, mask)
        here = nets.situation(self.header, steps.observations, fixed)
        policy = self._looking(meta, here)
        frozen = {name: w.detach() for name, w in critics.items()}
        value = self._value(frozen, policy, here, lesson.action_noise, temperature)
        actor = sac.actor_loss(value, steps.real)
        if isinstance(policy, Gaussian):
            astray = sac.out_of_reach(policy.mean, *nets.reach(self.header, dtype, fixed.device))
            actor = actor + s.reach_weight * masked_mean(astray, steps.real).mean()
        kl = belief.kl_to_prior().mean()
        model = self._model_error(_part(meta, MODEL), z, steps) if s.model_weight else torch.zeros_like(kl)
        parts = {
            "critic_loss": critic,
            "actor_loss": actor,
            "model_loss": model,
            "belief_kl": kl,
            "policy_entropy": policy.entropy().mean(),
        }
        total = critic + s.kl_weight * kl + s.model_weight * model + actor
        return total, {name: part.detach() for name, part in parts.items()}

    def _state(self, belief: Belief, depth: torch.Tensor, count: torch.Tensor) -> Tensors:
        table = torch.tensor(self._noise, dtype=belief.precision.dtype, device=depth.device)
        noise = table[depth.clamp(max=self.settings.sampled_steps)]
        sums = {PRECISION: belief.precision, WEIGHTED: belief.weighted}
        return {**sums, Z: belief.sample(noise), DEPTH: depth, COUNT: count}

    def _infer(self, meta: Tensors, context: Transitions, dtype: torch.dtype) -> Belief:
        """From the prior; for training, where all tasks may share a matrix product."""
        features = self._evidence(context, dtype)
        b, c = features.shape[:2]
        shared = networks.stack(_part(meta, ENCODER), 1)
        measured = nets.encode(shared, features.reshape(1, b * c, -1), self.settings.latent)
        directions, values = (x.reshape(b, c, *x.shape[2:]) for x in measured)
        start = nets.prior(b, self.settings.latent, features)
        return nets.updated(start, directions, values, context.real, features.new_ones(b))

    def _evidence(self, steps: Transitions, dtype: torch.dtype) -> torch.Tensor:
        s = self.settings
        return nets.evidence(self.header, steps, s.reward_scale, dtype, squares=s.squares)

    def _policy(self, meta: Tensors, z: torch.Tensor, observations: torch.Tensor) -> Gaussian | Categorical:
        return networks.forward(self.header, nets.folded(_part(meta, POLICY), z), observations)

    def _looking(self, meta: Tensors, x: torch.Tensor) -> Gaussian | Categorical:
        """What policies would do in situations [B, M, observation_size + L]; for training, as :meth:`_infer`."""
        b, m, size = x.shape
        policy = networks.forward(self._sighted, nets.unfolded(_part(meta, POLICY)), x.reshape(1, b * m, size))
        if isinstance(policy, Gaussian):
            return Gaussian(policy.mean.reshape(b, m, -1), policy.log_std)
        return Categorical(policy.logits.reshape(b, m, -1))

    def _value(
        self,
        critics: Tensors,
        policy: Gaussian | Categorical,
        x: torch.Tensor,
        noise: torch.Tensor | None,
        temperature: float,
        *,
        apart: bool = False,
    ) -> torch.Tensor:
        """Soft values [B, M] of situations ``x``, by the lower of two critics."""
        if isinstance(policy, Categorical):
            return sac.soft_value(_feed_twins(critics, x, apart=apart).amin(0), policy, temperature)
        acted = torch.cat((x, nets.done(self.header, policy.sample(noise), x.dtype)), -1)
        return sac.soft_value(_feed_twins(critics, acted, apart=apart).amin(0).squeeze(-1), policy, temperature)

    def _taken(self, critics: Tensors, z: torch.Tensor, steps: Transitions, *, apart: bool = False) -> torch.Tensor:
        """[2, B, M]: what the critics say of the actions that were taken."""
        x = nets.situation(self.header, steps.observations, z)
        actions = nets.done(self.header, steps.actions, x.dtype)
        if isinstance(self.spec.action_space, Discrete):
            return (_feed_twins(critics, x, apart=apart) * actions).sum(-1)
        return _feed_twins(critics, torch.cat((x, actions), -1), apart=apart).squeeze(-1)

    def _model_error(self, model: Tensors, z: torch.Tensor, steps: Transitions) -> torch.Tensor:
        """Mean squared error of the predicted scaled reward, and of the normalised change where it was seen."""
        x = nets.situation(self.header, steps.observations, z)
        x = torch.cat((x, nets.done(self.header, steps.actions, x.dtype)), -1)
        b, m = x.shape[:2]
        predicted = nets.feed(networks.stack(model, 1), x.reshape(1, b * m, -1)).reshape(b, m, -1)
        before, after = (nets.seen(self.header, o, x.dtype) for o in (steps.observations, steps.next_observations))
        reward = (predicted[..., 0] - self.settings.reward_scale * steps.rewards.to(x.dtype)).square()
        change = (predicted[..., 1:] - (after - before)).square().sum(-1)
        return masked_mean(reward, steps.real).mean() + masked_mean(change, steps.real & steps.seen).mean()

    def _bellman_error(self, meta: Tensors, z: torch.Tensor, steps: Transitions) -> torch.Tensor:
        """[B], of the more likely actions, without the entropy's worth."""
        s = self.settings
        after = nets.situation(self.header, steps.next_observations, z)
        policy = self._policy(meta, z, steps.next_observations)
        value = self._value(_part(meta, TARGET), policy, after, None, 0.0, apart=True)
        targets = sac.bellman_target(s.reward_scale * steps.rewards, steps.terminated, value, s.discount)
        error = (self._taken(_part(meta, CRITIC), z, steps, apart=True) - targets).square().mean(0)
        return masked_mean(error, steps.valued)


def _feed_twins(critics: Tensors, x: torch.Tensor, *, apart: bool) -> torch.Tensor:
    """Both critics on [B, M, in]: [2, B, M, out].

    Args:
        critics: [2, ...] each.
        x: what they see.
        apart: one matrix product a task, so that what a task is told does not depend on its company.
    """
    b, m = x.shape[:2]
    if not apart:
        return nets.feed(critics, x.reshape(1, b * m, -1).expand(2, b * m, x.shape[-1])).reshape(2, b, m, -1)
    weights = {name: w.repeat_interleave(b, 0) for name, w in critics.items()}
    return nets.feed(weights, x.repeat(2, 1, 1)).reshape(2, b, m, -1)


def _belief(state: Tensors) -> Belief:
    return Belief(state[PRECISION], state[WEIGHTED])


def _part(meta: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in meta.items() if name.startswith(prefix)}
