"""Nearest class mean in a learned embedding (Snell et al. 2017, https://arxiv.org/abs/1703.05175).

The adaptation state is what the examples so far come to: the sum of their embeddings and how many there were, class by
class. A class's prototype c is its mean (equation 1 there), the logits are ``-|x - c|^2`` (equation 2); a class without
an example stands at the origin, the middle of the embedding. Seen as ``2 c.x - |c|^2``, which differs by what all
classes share, they are a last layer on the embedding, so that what is downloaded is a plain ``mlp``.

Nothing is drawn and no rate is chosen: the order of examples does not matter, and showing the same ones again changes
nothing. The outer loop goes down the cross-entropy of fresh queries after one step.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F

from innerloop.arrays import Arrays, Discrete
from innerloop.policy import Header
from innerloop_server.domain import Experience, LearnerSpec
from innerloop_server.learners import networks
from innerloop_server.learners.distributions import Categorical, Gaussian
from innerloop_server.learners.learner import Distribution, Input, Tensors
from innerloop_server.learners.objectives import masked_mean
from innerloop_server.learners.prototype_settings import PrototypeSettings, check_fits
from innerloop_server.learners.returns import step_mask
from innerloop_server.learners.supervised import example_loss
from innerloop_server.learners.trainable import Examples, GradientLearner, Prepared, Unrolled
from innerloop_server.streams import Purpose, stream

SUMS, COUNTS, DEPTH = "sums", "counts", "depth"
"""State arrays: [B, C, D] summed embeddings, [B, C] examples, [B] int64 adaptation steps."""


class Prototype(GradientLearner):
    """Prototypes for classification."""

    def __init__(self, spec: LearnerSpec) -> None:
        """Bind the method to a family.

        Raises:
            InvalidField: a setting that cannot be (see :class:`PrototypeSettings`), or a family without labels.
        """
        check_fits(spec)
        s = self.settings = PrototypeSettings.from_json(spec.settings)
        self.spec = spec
        self.header = networks.header(spec, s.hidden_sizes)
        # The layers of the policy but the last, whose outputs take the place of its logits.
        self._embedding = dataclasses.replace(
            self.header, hidden_sizes=s.hidden_sizes[:-1], action_space=Discrete(s.hidden_sizes[-1])
        )
        self._head = f"layers.{len(s.hidden_sizes)}"

    @property
    def inner_steps(self) -> int:
        """One."""
        return self.settings.inner_steps

    @property
    def episodes_per_step(self) -> int:
        """Examples a task and step in training: the default of a session."""
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
        """Adam steps on the same examples."""
        return self.settings.epochs

    @property
    def gradient_clip(self) -> float:
        """Largest norm of the gradient; 0: unbounded."""
        return self.settings.gradient_clip

    @property
    def kl_limit(self) -> float | None:
        """None: Adam's steps are taken."""
        return None

    def learning_rate(self, name: str, update: int) -> float:
        """Falls linearly from the setting at update 0 towards zero after the last."""
        del name
        return self.settings.learning_rate * max(0.0, 1 - update / self.settings.updates)

    def initial_meta(self, seed: int) -> Tensors:
        """A fresh embedding."""
        rng = stream(seed, Purpose.INITIAL_META)
        return networks.initial_weights(self._embedding, rng, last_layer_scale=1.0, initial_log_std=0.0)

    def begin(self, meta: Tensors, n: int, rows: int = 1) -> Tensors:
        """No example yet: every class is as likely."""
        del rows
        like = meta["layers.0.bias"]
        classes = self.header.action_size
        return {
            SUMS: like.new_zeros(n, classes, self.settings.hidden_sizes[-1]),
            COUNTS: like.new_zeros(n, classes),
            DEPTH: torch.zeros(n, dtype=torch.int64, device=like.device),
        }

    def act(self, meta: Tensors, state: Tensors, input: Input) -> tuple[Distribution, Tensors]:
        """Reads the observation alone; the state is unchanged."""
        return networks.forward(self.header, self._weights(meta, state), input.observation), state

    @torch.no_grad()
    def adapt(
        self, meta: Tensors, state: Tensors, experience: Experience[torch.Tensor], rate_scale: torch.Tensor
    ) -> tuple[Tensors, Mapping[str, torch.Tensor]]:
        """Add the examples to their classes. ``rate_scale`` weighs them."""
        prepared = self.prepare(experience)
        after = self._taught(meta, state, prepared, rate_scale)
        policies = (self._weights(meta, one) for one in (state, after))
        old, new = (networks.forward(self.header, weights, prepared.observations) for weights in policies)
        loss = masked_mean(example_loss(self.spec, old, prepared.feedback), prepared.mask)
        kl, entropy = (masked_mean(one, prepared.mask) for one in (old.kl(new), old.entropy()))
        return after, {"loss": loss.float(), "kl": kl.float(), "entropy": entropy.float()}

    def export(self, meta: Tensors, state: Tensors) -> tuple[Header, list[Arrays]]:
        """Portable policies, one a task: the embedding, and its prototypes as the last layer."""
        weights = self._weights(meta, state)
        host = {name: value.detach().to("cpu", torch.float32).numpy() for name, value in weights.items()}
        return self.header, [{name: value[b] for name, value in host.items()} for b in range(len(state[DEPTH]))]

    def prepare(self, experience: Experience[torch.Tensor]) -> Examples:
        """The examples and their labels."""
        mask = step_mask(experience.lengths, experience.rewards.shape[-1])
        return Examples(experience.observations, mask, experience.feedback)

    def unroll(self, meta: Tensors, steps: Sequence[Prepared], *, second_order: bool = True) -> Iterator[Unrolled]:
        """What the support's prototypes say of each step's queries.

        Args:
            meta: meta-parameters.
            steps: as :meth:`meta_loss`.
            second_order: makes no difference: nothing here is a gradient.
        """
        del second_order
        support = steps[0]
        assert isinstance(support, Examples)  # what prepare gives
        ones = meta["layers.0.bias"].new_ones(len(support.mask))
        state = self.begin(meta, len(support.mask))
        for judged in itertools.islice(steps, 1, None):
            before = networks.forward(self.header, self._weights(meta, state), support.observations)
            state = self._taught(meta, state, support, ones)
            after = networks.forward(self.header, self._weights(meta, state), judged.observations)
            yield Unrolled(before, support, after, judged)

    def outer_loss(self, unrolled: Iterable[Unrolled]) -> torch.Tensor:
        """Cross-entropy of the queries, in nats, mean over queries, steps and tasks."""
        losses = []
        for one in unrolled:
            assert isinstance(one.judged, Examples)  # what prepare gives
            losses.append(masked_mean(example_loss(self.spec, one.after, one.judged.feedback), one.judged.mask).mean())
        return torch.stack(losses).mean()

    def sampled(self, meta: Tensors, steps: Sequence[Prepared]) -> list[Gaussian | Categorical]:
        """None: nothing is penalised."""
        del meta, steps
        return []

    def meta_loss(
        self, meta: Tensors, steps: Sequence[Prepared], sampled: Sequence[Gaussian | Categorical] = ()
    ) -> torch.Tensor:
        """:meth:`outer_loss` of the support ``steps[0]`` and the queries ``steps[1]``."""
        del sampled
        return self.outer_loss(self.unroll(meta, steps))

    def _weights(self, meta: Tensors, state: Tensors) -> Tensors:
        """[B, ...] each, of the policies that the states come to."""
        counts = torch.where(state[COUNTS] > 0, state[COUNTS], torch.ones_like(state[COUNTS]))
        prototypes = state[SUMS] / counts.unsqueeze(-1)
        weights = networks.stack(meta, len(state[DEPTH]))
        weights[f"{self._head}.weight"] = 2 * prototypes.transpose(1, 2).contiguous()
        weights[f"{self._head}.bias"] = -(prototypes * prototypes).sum(-1)
        return weights

    def _taught(self, meta: Tensors, state: Tensors, examples: Examples, weight: torch.Tensor) -> Tensors:
        """The states after examples that count ``weight`` [B] each."""
        b = len(weight)
        outputs = networks.forward(self._embedding, networks.stack(meta, b), examples.observations)
        assert isinstance(outputs, Categorical)  # what a Discrete header gives
        embedded = torch.tanh(outputs.logits).reshape(b, -1, self.settings.hidden_sizes[-1])
        classes = F.one_hot(examples.feedback[..., 0].long().reshape(b, -1), self.header.action_size)
        counted = examples.mask.reshape(b, -1, 1) * weight.reshape(b, 1, 1) * classes.to(embedded.dtype)
        return {
            SUMS: torch.baddbmm(state[SUMS], counted.transpose(1, 2), embedded),
            COUNTS: state[COUNTS] + counted.sum(1),
            DEPTH: state[DEPTH] + 1,
        }
