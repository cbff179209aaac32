"""The tensor-native face of the supervised families."""

from __future__ import annotations

import abc

import torch

from innerloop.arrays import Array
from innerloop_server.tasks.batch import TaskBatch


class SupervisedBatch(TaskBatch):
    """B tasks, N examples each, one an episode. State: the right answers, [B, N, F] float64. After the step there is
    nothing to see: zeros.
    """

    labels: bool
    """Answers are labels; else targets."""
    shape: tuple[int, ...]
    """O, of an observation."""

    @abc.abstractmethod
    def examples(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What uniform numbers pick.

        Args:
            uniforms: [B, N, reset_uniforms] float64.

        Returns:
            (observation [B, N, *O] float32, answer [B, N, F] float32).
        """

    def reset(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Show examples."""
        observation, answer = self.examples(uniforms)
        return answer.double(), observation

    def step(
        self, state: torch.Tensor, action: torch.Tensor, uniforms: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compare predictions with the answers; every episode ends."""
        if self.labels:
            reward = (action == state[..., 0]).float()
        else:
            squares = [error * error for error in (action.double() - state).unbind(-1)]
            reward = -(sum(squares[1:], squares[0]) / len(squares)).float()
        observation = torch.zeros(*reward.shape, *self.shape, device=reward.device)
        return state, observation, reward, torch.ones_like(reward, dtype=torch.bool)

    def feedback(self, state: torch.Tensor) -> torch.Tensor:
        """The answers, float32 as they were made."""
        return state.float()


class LookupBatch(SupervisedBatch):
    """Classification of examples that stand in the rows of a table, those of a class side by side."""

    reset_uniforms = 1
    labels = True

    def __init__(self, table: Array, first: Array, count: Array, device: torch.device) -> None:
        """B tasks.

        Args:
            table: [R, O] float32.
            first: [B, ways] int64: the first row of the class behind each label.
            count: [B, ways] int64: how many rows it has.
            device: where to look up.
        """
        self.shape = table.shape[1:]
        self._table = torch.from_numpy(table).to(device)
        self._first = torch.from_numpy(first).to(device)
        self._count = torch.from_numpy(count).to(device)

    def examples(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of the table."""
        labels = labels_of(uniforms.shape[1], self._first.shape[1], uniforms.device)
        rows = self._first[:, labels] + pick(uniforms[..., 0], self._count[:, labels])
        return self._table[rows], labels[:, None].float().expand(*rows.shape, 1)


def labels_of(examples: int, ways: int, device: torch.device) -> torch.Tensor:
    """[examples] int64: 0, 1, ..., ways - 1, 0, 1, ..."""
    return torch.arange(examples, device=device) % ways


def whole(uniforms: torch.Tensor) -> torch.Tensor:
    """The twin of :func:`innerloop_server.tasks.families.supervised.whole`."""
    return torch.remainder(2 * uniforms, 1)


def pick(uniforms: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The twin of :func:`innerloop_server.tasks.families.supervised.pick`, int64."""
    half = count // 2
    return half * (uniforms >= 0.5) + torch.minimum((whole(uniforms) * half).long(), half - 1)
