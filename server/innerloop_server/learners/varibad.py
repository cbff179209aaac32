"""VariBAD (Zintgraf et al. 2020, https://arxiv.org/abs/1910.08348): act on what one believes of the task.

A recurrent encoder turns all that happened in a trial into a belief, independent Gaussians over a latent. It is learned
without the policy's gradient, by the evidence lower bound: a latent has to explain the rewards (and the changes) of the
whole trial, of its past and of its future, and beliefs may move only as far as that is worth. The policy sees the
observation and the belief's mean and log-variance, so it knows how much it does not know: the Bayes-adaptive state.

Policy and value are trained by PPO on whole trials (:mod:`.trial_ppo`), on beliefs that are constants to them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from innerloop.arrays import Arrays
from innerloop.policy import BELIEF_LOG_VARIANCE, BELIEF_MEAN, HIDDEN, Header
from innerloop_server.domain import Experience, LearnerSpec
from innerloop_server.learners import evidence_bound, networks, recurrent
from innerloop_server.learners import varibad_networks as nets
from innerloop_server.learners.evidence_bound import Belief
from innerloop_server.learners.learner import Distribution, Input, Tensors
from innerloop_server.learners.trial_ppo import TrialLearner
from innerloop_server.learners.trial_record import TrialRecord
from innerloop_server.learners.varibad_settings import VaribadSettings, check_fits
from innerloop_server.streams import Purpose, stream

_OF_BELIEF = ("encoder.", "gru.", "belief.weight", "belief.bias", nets.DECODER)
_OF_POLICY = ("policy.", nets.VALUE, "log_std")
_TRAINING_ONLY = (nets.VALUE, nets.DECODER, nets.TARGET_SCALE)
LEAST_TARGET_SCALE = 1e-3
"""Targets that never differ from zero are not blown up."""


@dataclass(frozen=True)
class Draws:
    """What is drawn for the bound of R trials."""

    terms: torch.Tensor
    """[K, R] float64 in [0, 1): which beliefs."""
    noise: torch.Tensor
    """[K, R, L] standard normal: which latents."""
    steps: torch.Tensor
    """[D, R] float64 in [0, 1): which steps they have to explain."""


class Varibad(TrialLearner):
    """VariBAD for Box and Discrete actions."""

    def __init__(self, spec: LearnerSpec) -> None:
        """Bind the method to a family.

        Raises:
            InvalidField: a setting that cannot be (see :class:`VaribadSettings` and ``check_fits``).
        """
        check_fits(spec)
        self.spec = spec
        self._settings = VaribadSettings.from_json(spec.settings)
        s = self._settings
        self.header = dataclasses.replace(
            networks.header(spec, s.hidden_sizes),
            architecture="belief",
            adapts=True,
            encoder_sizes=s.encoder_sizes,
            memory_size=s.memory_size,
            latent_size=s.latent,
        )

    @property
    def settings(self) -> VaribadSettings:
        """As checked."""
        return self._settings

    def initial_meta(self, seed: int) -> Tensors:
        """Fresh weights of encoder, decoder, policy and value."""
        rng = stream(seed, Purpose.INITIAL_META)
        weights = nets.initial(self.header, self.settings, rng)
        return weights | recurrent.initial_told(self.header, rng, self.task_size)

    def begin(self, meta: Tensors, n: int, rows: int = 1) -> Tensors:
        """Empty memories, and N(0, I)."""
        like = meta["gru.hidden.weight"]
        sizes = {HIDDEN: self.settings.memory_size, BELIEF_MEAN: self.settings.latent}
        sizes[BELIEF_LOG_VARIANCE] = self.settings.latent
        return {name: like.new_zeros((n, rows, size)) for name, size in sizes.items()}

    def act(self, meta: Tensors, state: Tensors, input: Input) -> tuple[Distribution, Tensors]:
        """Look, believe, and say what to do."""
        memory = state[HIDDEN]
        weights = recurrent.share(exported(meta), memory.shape[0])
        x, first = recurrent.features(self.header, input, memory.dtype)
        memory = recurrent.look(weights, memory, x, first)[1]
        belief = nets.belief_of(weights, memory)
        y = nets.situation(weights, x[..., : self.header.observation_size], belief)
        after = {HIDDEN: memory, BELIEF_MEAN: belief.mean, BELIEF_LOG_VARIANCE: belief.log_variance}
        return recurrent.policy(self.header, weights, y), after

    def adapt(
        self, meta: Tensors, state: Tensors, experience: Experience[torch.Tensor], rate_scale: torch.Tensor
    ) -> tuple[Tensors, Mapping[str, torch.Tensor]]:
        """Nothing: the belief moved when the episodes were played."""
        del meta, experience
        zero = torch.zeros_like(rate_scale)
        return state, {"loss": zero, "kl": zero, "entropy": zero}

    def uncertainty(self, meta: Tensors, state: Tensors) -> torch.Tensor:
        """Entropy of each row's belief, [B, R], in nats."""
        del meta
        return Belief(state[BELIEF_MEAN], state[BELIEF_LOG_VARIANCE]).entropy()

    def export(self, meta: Tensors, state: Tensors) -> tuple[Header, list[Arrays]]:
        """The weights of encoder and policy, the same for every task."""
        host = {name: value.detach().cpu().numpy() for name, value in exported(meta).items()}
        return self.header, [dict(host) for _ in range(state[HIDDEN].shape[0])]

    def inputs(self, meta: Tensors, trials: TrialRecord) -> torch.Tensor:
        """What policy and value see at each step, observation and belief, and after it what the value is told of the
        task: [T, R, O + 2 L + P]. Constants: no gradient reaches the belief.
        """
        with torch.no_grad():
            weights = recurrent.share(meta, 1)
            x = self.features(meta, trials)
            belief = nets.unroll(weights, x[None])
            flat = Belief(belief.mean.flatten(1, 2), belief.log_variance.flatten(1, 2))
            y = nets.situation(weights, x[..., : self.header.observation_size].flatten(0, 1)[None], flat)
            return recurrent.with_task(y.reshape(*x.shape[:2], -1), trials, self.task_size)

    def read(self, meta: Tensors, x: torch.Tensor) -> tuple[Distribution, torch.Tensor]:
        """Policy and value at each step, [1, T * R]."""
        weights = recurrent.share(meta, 1)
        size = x.shape[-1] - self.task_size
        y = x[..., :size].flatten(0, 1)[None]
        told = recurrent.told(weights, x[..., size:])
        return recurrent.policy(self.header, weights, y), recurrent.value(weights, y, told)

    def features(self, meta: Tensors, trials: TrialRecord) -> torch.Tensor:
        """What the encoder reads at each step, [T, R, I]."""
        return recurrent.trial_features(self.header, trials, meta["gru.hidden.weight"].dtype)

    def beliefs(self, meta: Tensors, trials: TrialRecord) -> Belief:
        """The belief that is acted on at each step, [T, R, L]."""
        belief = nets.unroll(recurrent.share(meta, 1), self.features(meta, trials)[None])
        return Belief(belief.mean[0], belief.log_variance[0])

    def bound_loss(
        self, meta: Tensors, trials: TrialRecord, draws: Draws
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Minus the evidence lower bound of R trials, summed over their beliefs: a mean over trials, per step of the
        longest trial that there can be.

        Args:
            meta: meta-parameters; their dtype is the dtype of the computation.
            trials: R trials.
            draws: for them.

        Returns:
            (a scalar to minimise, its parts ``unexplained`` and ``belief_kl``, and the ``belief_entropy`` that is left
            at the ends of the trials).
        """
        beliefs = self.beliefs(meta, trials)
        lengths = trials.real.sum(0)
        at = evidence_bound.spread(draws.terms, lengths)
        drawn = Belief(_take(beliefs.mean, at), _take(beliefs.log_variance, at)).sample(draws.noise)
        explained = self._explained(meta, trials, drawn, draws.steps).sum(0) * lengths / len(at)
        moved = (evidence_bound.kl_chain(beliefs) * trials.real).sum(0)
        longest = self.spec.horizon * self.settings.episodes_per_trial
        # What is left to find out at the end of a trial is what the entropy of its last belief says.
        entropy = beliefs.entropy().gather(0, (lengths - 1).unsqueeze(0)).mean()
        parts = {"unexplained": -explained.mean() / longest, "belief_kl": moved.mean() / longest}
        loss = parts["unexplained"] + self.settings.kl_weight * parts["belief_kl"]
        return loss, {name: part.detach() for name, part in {**parts, "belief_entropy": entropy}.items()}

    def _explained(self, meta: Tensors, trials: TrialRecord, latent: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """Log-likelihood [K, R] of whole trials under the latents [K, R, L]."""
        s, dtype = self.settings, latent.dtype
        if s.decoder != "transitions":
            state = nets.state_index(self.header, trials.outcomes)
            logits = nets.decode(meta, latent)
            counts = evidence_bound.paid_states(state, trials.rewards.to(dtype), trials.real, logits.shape[-1])
            likelihood = evidence_bound.log_goal if s.decoder == "goal" else evidence_bound.log_chance
            return likelihood(logits, counts.unsqueeze(1))
        lengths = trials.real.sum(0)
        at = evidence_bound.spread(steps, lengths)
        told = _take(nets.told(self.header, trials, dtype), at)
        targets = _take(nets.targets(self.header, trials, dtype, dynamics=s.dynamics), at) / meta[nets.TARGET_SCALE]
        lead = (len(latent), *told.shape[:2])
        x = torch.cat([told.expand(*lead, -1), latent.unsqueeze(1).expand(*lead, -1)], -1)
        density = evidence_bound.log_density(nets.decode(meta, x), targets)
        return density.sum(1) * lengths / len(at)

    @torch.no_grad()
    def with_statistics(self, meta: Tensors, trials: TrialRecord, rate: float) -> Tensors:
        """The meta-parameters with their running statistics moved ``rate`` of the way to those of ``trials``."""
        beliefs, real = self.beliefs(meta, trials), trials.real
        seen = torch.cat([beliefs.mean, beliefs.log_variance], -1)[real]
        mean = seen.mean(0)
        shift = torch.lerp(meta[nets.SHIFT], mean, rate)
        square = torch.lerp(meta[nets.SCALE] ** 2, ((seen - mean) ** 2).mean(0), rate)
        moved = {nets.SHIFT: shift, nets.SCALE: square.sqrt().clamp(min=nets.LEAST_SCALE)}
        if nets.TARGET_SCALE in meta:
            told = nets.targets(self.header, trials, mean.dtype, dynamics=self.settings.dynamics)[real]
            square = torch.lerp(meta[nets.TARGET_SCALE] ** 2, (told**2).mean(0), rate)
            moved[nets.TARGET_SCALE] = square.sqrt().clamp(min=LEAST_TARGET_SCALE)
        return {**meta, **moved}


def of_policy(meta: Tensors) -> Tensors:
    """What PPO learns: policy and value."""
    return {name: value for name, value in meta.items() if name.startswith(_OF_POLICY)}


def of_belief(meta: Tensors) -> Tensors:
    """What the evidence lower bound learns: encoder and decoder."""
    return {name: value for name, value in meta.items() if name.startswith(_OF_BELIEF)}


def exported(meta: Tensors) -> Tensors:
    """What acting needs."""
    return {name: value for name, value in meta.items() if not name.startswith(_TRAINING_ONLY)}


def _take(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """The steps ``at`` [K, R] of ``x`` [T, R, N]: [K, R, N]."""
    return x.gather(0, at.unsqueeze(-1).expand(*at.shape, x.shape[-1]))
