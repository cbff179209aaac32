"""The memory of a policy that plays whole trials, whatever it is made of: a gated recurrent unit, or a transformer."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from innerloop.policy import HIDDEN, Header
from innerloop_server.learners import attention, recurrent
from innerloop_server.learners.learner import Tensors


@dataclass(frozen=True)
class TrialNetwork(abc.ABC):
    """Encoder, memory and heads as pure functions; ``recurrent.policy`` and ``recurrent.value`` are the heads."""

    header: Header

    @abc.abstractmethod
    def begin(self, like: torch.Tensor, n: int, rows: int) -> Tensors:
        """Empty memories of n tasks, [n, R, ...] each; ``like`` gives dtype and device."""

    @abc.abstractmethod
    def look(
        self, weights: Tensors, memory: Tensors, x: torch.Tensor, first: torch.Tensor
    ) -> tuple[torch.Tensor, Tensors]:
        """One step of every row: what the heads read, [B, R, M + E], and the memory after.

        Args:
            weights: [B, ...] each.
            memory: as :meth:`begin` lays it out; other arrays are not read.
            x: [B, R, input_size].
            first: [B, R] bool: whose memory is emptied before.
        """

    @abc.abstractmethod
    def unroll(self, weights: Tensors, x: torch.Tensor) -> torch.Tensor:
        """What the heads read at each step of whole trials: [B, T, R, input_size] -> [B, T, R, M + E]."""

    @abc.abstractmethod
    def initial_weights(self, rng: np.random.Generator, *, last_layer_scale: float, initial_log_std: float) -> Tensors:
        """Fresh weights of policy and value, without a leading dimension, float32 on the CPU."""


class Gated(TrialNetwork):
    """A gated recurrent unit: :mod:`.recurrent`."""

    def begin(self, like: torch.Tensor, n: int, rows: int) -> Tensors:
        """One vector a row, zero."""
        return {HIDDEN: like.new_zeros((n, rows, self.header.memory_size))}

    def look(
        self, weights: Tensors, memory: Tensors, x: torch.Tensor, first: torch.Tensor
    ) -> tuple[torch.Tensor, Tensors]:
        """As ``recurrent.look``."""
        y, hidden = recurrent.look(weights, memory[HIDDEN], x, first)
        return y, {HIDDEN: hidden}

    def unroll(self, weights: Tensors, x: torch.Tensor) -> torch.Tensor:
        """As ``recurrent.unroll``."""
        return recurrent.unroll(weights, x)

    def initial_weights(self, rng: np.random.Generator, *, last_layer_scale: float, initial_log_std: float) -> Tensors:
        """As ``recurrent.initial_weights``."""
        return recurrent.initial_weights(
            self.header, rng, last_layer_scale=last_layer_scale, initial_log_std=initial_log_std
        )


class Attentive(TrialNetwork):
    """A causal transformer: :mod:`.attention`."""

    def begin(self, like: torch.Tensor, n: int, rows: int) -> Tensors:
        """As ``attention.begin``."""
        return attention.begin(self.header, like, n, rows)

    def look(
        self, weights: Tensors, memory: Tensors, x: torch.Tensor, first: torch.Tensor
    ) -> tuple[torch.Tensor, Tensors]:
        """As ``attention.look``."""
        return attention.look(self.header, weights, memory, x, first)

    def unroll(self, weights: Tensors, x: torch.Tensor) -> torch.Tensor:
        """As ``attention.unroll``."""
        return attention.unroll(self.header, weights, x)

    def initial_weights(self, rng: np.random.Generator, *, last_layer_scale: float, initial_log_std: float) -> Tensors:
        """As ``attention.initial_weights``."""
        return attention.initial_weights(
            self.header, rng, last_layer_scale=last_layer_scale, initial_log_std=initial_log_std
        )


NETWORKS: Mapping[str, type[TrialNetwork]] = {"gru": Gated, "transformer": Attentive}
"""By the ``architecture`` of a header."""
