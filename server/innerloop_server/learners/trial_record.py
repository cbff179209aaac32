"""What playing whole trials leaves to learn from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TrialRecord:
    """R whole trials, time first, whatever tasks they are of. A trial that is over goes on as steps that are not real.

    Arrays are [T, R, ...].
    """

    observations: torch.Tensor
    """[T, R, *O]: what was acted on."""
    outcomes: torch.Tensor
    """[T, R, *O]: what the action led to; where an episode ended, its true last observation."""
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
    task: torch.Tensor | None = None
    """[1, R, P]: what tells each trial's task, for who may know it in training; ``None``: nobody asked."""

    def of(self, rows: torch.Tensor) -> TrialRecord:
        """The trials at ``rows``, [R] bool or int64."""
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return TrialRecord(**{name: part[:, rows] for name, part in parts.items() if part is not None})
