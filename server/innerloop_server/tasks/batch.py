"""The tensor-native face of a family: many tasks, stepped as one batch of tensors. Imports no torch by itself."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class TaskBatch(abc.ABC):
    """B tasks, N parallel episodes each.

    Pure: ``reset`` and ``step`` return new states and never touch old ones. Physics is float64; observations and
    rewards come out as float32. What a row computes does not depend on how many rows there are.
    """

    reset_uniforms: int
    """How many uniform numbers in [0, 1) one reset consumes (0: the start is fixed).

    In a supervised family the first of them picks from a finite pool of examples (scans, words, fonts): whoever draws
    support takes it from [0, 0.5), whoever draws queries from [0.5, 1), so that no query was seen in adaptation."""
    step_uniforms: int = 0
    """How many uniform numbers in [0, 1) one step consumes (0: the dynamics are deterministic). Where it is not 0,
    ``step`` takes them as its third argument."""
    knows_success: bool = False
    """Whether :meth:`success` says anything."""

    @abc.abstractmethod
    def reset(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Start episodes.

        Args:
            uniforms: [B, N, reset_uniforms] float64 in [0, 1).

        Returns:
            (state [B, N, S] float64, observation [B, N, *O] float32, int64 where the space is Discrete).
        """

    @abc.abstractmethod
    def step(
        self, state: torch.Tensor, action: torch.Tensor, uniforms: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """One step of every row, finished or not (the caller masks what is finished).

        Args:
            state: [B, N, S].
            action: [B, N, *A] float32 as an environment takes it (clipped and scaled), or [B, N] int64.
            uniforms: [B, N, step_uniforms] float64 in [0, 1); ``None`` where ``step_uniforms`` is 0.

        Returns:
            (state [B, N, S], observation [B, N, *O], reward [B, N] float32, terminated [B, N] bool).
        """

    def feedback(self, state: torch.Tensor) -> torch.Tensor:
        """The right answers to what is shown in ``state`` [B, N, S]: [B, N, F] float32; F = 0 without supervision."""
        return state.new_zeros((*state.shape[:2], 0)).float()

    def success(self, state: torch.Tensor) -> torch.Tensor:
        """Whether the step that led to ``state`` [B, N, S] was a success, as ``info["success"]`` of the Gymnasium face
        says it: [B, N] bool.
        """
        return state.new_zeros(state.shape[:2]).bool()
