"""The tensor-native face of ``tabular-mdp``."""

from __future__ import annotations

import torch

from innerloop.arrays import Array
from innerloop_server.tasks.batch import TaskBatch


class TabularMDPBatch(TaskBatch):
    """B MDPs, N walkers each. State: the number of the state, [B, N, 1] float64."""

    reset_uniforms = 0
    step_uniforms = 2

    def __init__(
        self, cumulative: Array, rewards: Array, device: torch.device, *, start: int, smallest_uniform: float
    ) -> None:
        """B tasks.

        Args:
            cumulative: [B, S, A, S] float64 distribution functions, made as for the other face: so both round alike.
            rewards: [B, S, A].
            device: where to step.
            start: the first state.
            smallest_uniform: what a uniform number of 0 counts as in the noise.
        """
        b, _, self._actions, states = cumulative.shape
        self._cumulative = torch.tensor(cumulative, device=device).reshape(b, -1, states)  # a row a state and action
        self._rewards = torch.tensor(rewards, dtype=torch.float64, device=device).reshape(b, -1)
        self._start = start
        self._smallest_uniform = smallest_uniform

    def reset(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every walker in the first state."""
        state = self._rewards.new_full((*uniforms.shape[:-1], 1), self._start)
        return state, state[..., 0].long()

    def step(
        self, state: torch.Tensor, action: torch.Tensor, uniforms: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Be paid for the state and action, then move. The uniforms are for the next state and for the noise."""
        assert uniforms is not None  # step_uniforms is 2
        where, noise = uniforms.unbind(-1)
        row = state[..., 0].long() * self._actions + action
        reward = self._rewards.gather(1, row) + torch.special.ndtri(noise.clamp(min=self._smallest_uniform))
        tasks = torch.arange(len(row), device=row.device)[:, None]
        observation = (self._cumulative[tasks, row] <= where[..., None]).sum(-1)
        return observation[..., None].double(), observation, reward.float(), torch.zeros_like(row, dtype=torch.bool)
