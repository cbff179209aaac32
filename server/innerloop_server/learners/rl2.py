"""RL2: a recurrent policy trained over whole trials, whose memory is what adapts.

Duan et al. 2016 (https://arxiv.org/abs/1611.02779) and Wang et al. 2016 (https://arxiv.org/abs/1611.05763). The policy
sees what it did and what that brought, and remembers it through all the episodes of a task; memory is emptied at the
end of a trial and nowhere else. It is trained by PPO on the return of the whole trial: advantages run through the
ends of episodes, so that what was found out in the first is worth what it brings in the last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from innerloop.arrays import Arrays
from innerloop.policy import Header
from innerloop_server.domain import Adaptation, Experience, LearnerSpec
from innerloop_server.learners import networks, recurrent
from innerloop_server.learners.learner import Distribution, Input, Tensors
from innerloop_server.learners.objectives import clipped_surrogate, masked_mean, normalise
from innerloop_server.learners.returns import gae
from innerloop_server.learners.rl2_settings import Rl2Settings, check_fits
from innerloop_server.learners.trainable import TrainableLearner
from innerloop_server.streams import Purpose, stream

MEMORY = "memory"
"""State array [B, N, M]: what each row remembers."""
VALUE_PREFIX = "value."
"""Meta-parameters that only training reads."""


@dataclass(frozen=True)
class TrialRecord:
    """R whole trials, time first, whatever tasks they are of. A trial that is over goes on as steps that are not real.

    Arrays are [T, R, ...].
    """

    observations: torch.Tensor
    """[T, R, *O]: what was acted on."""
    actions: torch.Tensor
    """[T, R, ...] raw."""
    log_probs: torch.Tensor
    """[T, R] under the policy that sampled."""
    rewards: torch.Tensor
    terminated: torch.Tensor
    """[T, R] bool: the step ended its episode by itself."""
    truncated: torch.Tensor
    """[T, R] bool: the step ended its episode by its horizon."""
    trial_end: torch.Tensor
    """[T, R] bool: the step was the trial's last."""
    success: torch.Tensor
    """[T, R] bool: the environment called the step a success."""
    episode: torch.Tensor
    """[T, R] int64: which episode of its trial the step belongs to."""
    real: torch.Tensor
    """[T, R] bool: the trial was still on."""

    def of(self, rows: torch.Tensor) -> TrialRecord:
        """The trials at ``rows``, [R] bool or int64."""
        return TrialRecord(**{field.name: getattr(self, field.name)[:, rows] for field in dataclasses.fields(self)})


@dataclass(frozen=True)
class TrialSamples:
    """Whole trials with all that does not change while the network does. Arrays are [T, R, ...]."""

    x: torch.Tensor
    """[T, R, I]: what the network reads."""
    actions: torch.Tensor
    log_probs: torch.Tensor
    advantages: torch.Tensor
    """[T, R] with mean 0 and standard deviation 1 over all real steps."""
    value_targets: torch.Tensor
    """[T, R] in ``value_unit``."""
    real: torch.Tensor

    def __len__(self) -> int:
        return self.real.shape[1]

    def of(self, rows: torch.Tensor) -> TrialSamples:
        """The trials at ``rows`` [R] int64."""
        return TrialSamples(**{field.name: getattr(self, field.name)[:, rows] for field in dataclasses.fields(self)})


class Rl2(TrainableLearner):
    """RL2 with a GRU, for Box and Discrete actions."""

    adaptation = Adaptation.MEMORY

    def __init__(self, spec: LearnerSpec) -> None:
        """Bind the method to a family.

        Raises:
            InvalidField: a setting that cannot be (see :class:`Rl2Settings`), or a supervised family.
        """
        check_fits(spec)
        self.spec = spec
        self.settings = Rl2Settings.from_json(spec.settings)
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
        """One."""
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

    @torch.no_grad()
    def prepare(self, meta: Tensors, trials: TrialRecord) -> TrialSamples:
        """Advantages and value targets.

        They run through the ends of episodes: what comes after one is worth as much as what comes before. At the end
        of the trial nothing is left, whether its last episode terminated or its time was up: the trial's length is
        part of the problem.

        Args:
            meta: the network that sampled.
            trials: R trials.
        """
        s = self.settings
        x = self._inputs(trials, meta["gru.hidden.weight"].dtype)
        v_t = recurrent.value(recurrent.share(meta, 1), self._read(meta, x)).reshape(trials.real.shape)
        lengths = trials.real.sum(0)
        estimates = gae(
            (trials.rewards / s.value_unit).T[None],
            v_t.T[None],
            torch.zeros_like(v_t[:1]),
            lengths[None],
            s.discount,
            s.trace,
        )
        real = trials.real.T[None]
        return TrialSamples(
            x=x,
            actions=trials.actions,
            log_probs=trials.log_probs,
            advantages=normalise(estimates, real)[0].T.contiguous(),
            value_targets=estimates[0].T + v_t,
            real=trials.real,
        )

    def loss(self, meta: Tensors, samples: TrialSamples, entropy_weight: float) -> torch.Tensor:
        """Clipped surrogate, squared value error and entropy bonus, a scalar to minimise (Schulman et al. 2017,
        https://arxiv.org/abs/1707.06347, equation 9), through the whole of every trial.

        Args:
            meta: the network.
            samples: some trials.
            entropy_weight: of the bonus.
        """
        s = self.settings
        weights = recurrent.share(meta, 1)
        y = self._read(meta, samples.x)
        policy = recurrent.policy(self.header, weights, y)
        actions, old, advantages, targets, real = (
            part.flatten(0, 1)[None]
            for part in (samples.actions, samples.log_probs, samples.advantages, samples.value_targets, samples.real)
        )
        error = recurrent.value(weights, y) - targets
        loss = (
            clipped_surrogate(policy.log_prob(actions), old, advantages, real, s.clip)
            + s.value_weight * masked_mean(error * error, real)
            - entropy_weight * masked_mean(policy.entropy(), real)
        )
        return loss[0]

    def _inputs(self, trials: TrialRecord, dtype: torch.dtype) -> torch.Tensor:
        """[T, R, I] what the network reads at each step."""
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

    def _read(self, meta: Tensors, x: torch.Tensor) -> torch.Tensor:
        """[1, T * R, M + E] what the heads read."""
        return recurrent.unroll(recurrent.share(meta, 1), x[None]).flatten(1, 2)


def _policy_part(meta: Tensors) -> Tensors:
    return {name: value for name, value in meta.items() if not name.startswith(VALUE_PREFIX)}
