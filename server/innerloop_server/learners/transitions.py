"""Episodes as a set of transitions, for methods that learn from single steps in any order."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from innerloop_server.domain import Experience
from innerloop_server.learners.returns import step_mask


@dataclass(frozen=True)
class Transitions:
    """M transitions of each of B tasks; their order means nothing."""

    observations: torch.Tensor
    """[B, M, *O]."""
    actions: torch.Tensor
    """[B, M, A] raw, or [B, M] int64."""
    rewards: torch.Tensor
    """[B, M] float32."""
    next_observations: torch.Tensor
    """[B, M, *O]; the observation itself where what came next was not seen."""
    terminated: torch.Tensor
    """[B, M] bool: nothing comes after."""
    seen: torch.Tensor
    """[B, M] bool: ``next_observations`` is what came next."""
    real: torch.Tensor
    """[B, M] bool: not padding."""

    @property
    def valued(self) -> torch.Tensor:
        """[B, M] bool: those that a Bellman target can be made of.

        A step that a clock cut is none: its episode did not end there, and what came next was not seen.
        """
        return self.real & (self.seen | self.terminated)

    def take(self, rows: torch.Tensor) -> Transitions:
        """Those at ``rows`` [B, K] int64 of each task."""
        return Transitions(**{f.name: _take(getattr(self, f.name), rows) for f in dataclasses.fields(self)})

    def to(self, dtype: torch.dtype) -> Transitions:
        """The same with numbers of another precision; integers and flags stay."""
        parts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Transitions(**{name: x.to(dtype) if x.is_floating_point() else x for name, x in parts.items()})


def transitions_of(experience: Experience[torch.Tensor], horizon: int) -> Transitions:
    """The steps of N episodes as M = N * T transitions.

    Args:
        experience: [B, N, T] episodes.
        horizon: of the family: an episode that reaches it was truncated, a shorter one terminated.
    """
    capacity = experience.rewards.shape[-1]
    real = step_mask(experience.lengths, capacity)
    last = torch.arange(1, capacity + 1, device=real.device) == experience.lengths.unsqueeze(-1)
    cut = experience.bootstrap.unsqueeze(-1) & last
    ended = experience.time_offset + experience.lengths < horizon
    terminated = last & ~cut & ended.unsqueeze(-1)
    seen = real & (~last | cut)
    observations = experience.observations
    following = torch.cat((observations[:, :, 1:], observations[:, :, -1:]), 2)
    following = torch.where(_wide(cut, observations), experience.final_observations.unsqueeze(2), following)
    following = torch.where(_wide(seen, observations), following, observations)
    parts = {
        "observations": observations,
        "actions": experience.actions,
        "rewards": experience.rewards,
        "next_observations": following,
        "terminated": terminated,
        "seen": seen,
        "real": real,
    }
    return Transitions(**{name: value.flatten(1, 2) for name, value in parts.items()})


def _wide(flags: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return flags.reshape(*flags.shape, *(1,) * (like.dim() - flags.dim()))


def _take(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    index = rows.reshape(*rows.shape, *(1,) * (x.dim() - 2)).expand(*rows.shape, *x.shape[2:])
    return x.gather(1, index)
