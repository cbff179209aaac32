"""The tensor-native face of ``glyphs``."""

from __future__ import annotations

import torch

from innerloop.arrays import Array
from innerloop_server.tasks.families.supervised_batch import SupervisedBatch, labels_of, whole


class GlyphsBatch(SupervisedBatch):
    """B tasks, N images each."""

    reset_uniforms = 7
    labels = True

    def __init__(
        self, table: Array, first: Array, count: Array, warp_range: Array, side: int, device: torch.device
    ) -> None:
        """B tasks.

        Args:
            table: [R, S, S] float32 rasters with a blank border.
            first: [B, ways] int64: the first raster of the letter behind each label.
            count: [B, ways] int64: how many it has.
            warp_range: [2, 6] float64: lowest and highest warp, as ``glyphs.Warp`` orders its fields.
            side: S', pixels of a side of an image.
            device: where to draw.
        """
        self.shape = (side * side,)
        self._raster = table.shape[-1]
        self._table = torch.from_numpy(table).to(device).flatten()
        self._first = torch.from_numpy(first).to(device)
        self._count = torch.from_numpy(count).to(device)
        low, high = torch.from_numpy(warp_range).to(device)
        self._low, self._width = low, high - low
        self._grid = (2 * torch.arange(side, dtype=torch.float64, device=device) + 1) / side - 1

    def examples(self, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Warped letters; the twin of ``glyphs.draw``, in the same order of operations."""
        labels = labels_of(uniforms.shape[1], self._first.shape[1], uniforms.device)
        rows = self._first[:, labels] + torch.minimum(
            (whole(uniforms[..., 0]) * self._count[:, labels]).long(), self._count[:, labels] - 1
        )
        warp = self._low + self._width * uniforms[..., 1:]
        angle, stretch_x, stretch_y, shear, shift_x, shift_y = warp[..., None, None].unbind(-3)
        x, y = self._grid - shift_x, self._grid[:, None] - shift_y  # [B, N, 1, S'], [B, N, S', 1]
        cos, sin = torch.cos(angle), torch.sin(angle)
        u = (cos * x + sin * y) * stretch_x
        v = (cos * y - sin * x) * stretch_y
        u = u + shear * v
        image = self._sample(rows[..., None, None], u, v)
        return image.flatten(-2).float(), labels[:, None].float().expand(*rows.shape, 1)

    def _sample(self, rows: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Rasters at (u, v), where -1 and 1 are their edges, linear between the middles of four pixels."""
        last = self._raster - 1
        column = ((u + 1) * (self._raster / 2) - 0.5).clamp(0, last)
        row = ((v + 1) * (self._raster / 2) - 0.5).clamp(0, last)
        left, top = column.floor().clamp(max=last - 1), row.floor().clamp(max=last - 1)
        right_share, bottom_share = column - left, row - top
        corner = (rows * self._raster + top.long()) * self._raster + left.long()
        upper = self._table[corner] * (1 - right_share) + self._table[corner + 1] * right_share
        corner = corner + self._raster
        lower = self._table[corner] * (1 - right_share) + self._table[corner + 1] * right_share
        sampled: torch.Tensor = upper * (1 - bottom_share) + lower * bottom_share
        return sampled
