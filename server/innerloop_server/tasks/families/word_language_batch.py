"""The tensor-native face of ``word-language``."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from innerloop.arrays import Array
from innerloop_server.tasks.families.supervised_batch import SupervisedBatch, labels_of, pick


class WordLanguageBatch(SupervisedBatch):
    """B tasks, N words each."""

    reset_uniforms = 1
    labels = True

    def __init__(
        self, table: Array, length: Array, first: Array, count: int, stand_in: Array, edge: int, device: torch.device
    ) -> None:
        """B tasks.

        Args:
            table: [R, L] int64: words as letters, filled up with one that is none.
            length: [R] int64: letters of a word.
            first: [B, ways] int64: the first row of the language behind each label.
            count: rows of a language.
            stand_in: [B, letters] int64: what stands for each letter.
            edge: letters that are seen in their place, at either end.
            device: where to encode.
        """
        nothing = stand_in.shape[1]
        self.shape = ((2 * edge + 1) * nothing,)
        self._table, self._length, self._first, self._stand_in = (
            torch.from_numpy(array).to(device)
            for array in (table, length, first, np.pad(stand_in, ((0, 0), (0, 1)), constant_values=nothing))
        )
        self._count = torch.tensor(count, device=device)
        self._edge = edge

    def examples(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoded words; the twin of ``word_language.encode``."""
        labels = labels_of(uniforms.shape[1], self._first.shape[1], uniforms.device)
        rows = self._first[:, labels] + pick(uniforms[..., 0], self._count)
        tasks = torch.arange(len(rows), device=rows.device)[:, None, None]
        letters = self._stand_in[tasks, self._table[rows]]  # [B, N, L]
        places = torch.arange(self._edge, device=rows.device)
        last = letters.gather(-1, self._length[rows][..., None] - 1 - places)
        nothing = self._stand_in.shape[1] - 1
        one_hot = F.one_hot(torch.cat((letters[..., : self._edge], last), -1), nothing)
        counts = F.one_hot(letters, nothing + 1).sum(-2)[..., :nothing]
        seen = torch.cat((one_hot.flatten(-2), counts), -1)
        return seen.float(), labels[:, None].float().expand(*rows.shape, 1)
