"""``glyphs``: few-shot classification of letters, with whole scripts held out."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium
import numpy as np

from innerloop.arrays import Array, Arrays, Box
from innerloop_server.domain import Task
from innerloop_server.tasks.batch import TaskBatch
from innerloop_server.tasks.families.glyph_rasters import RASTER, rasters
from innerloop_server.tasks.families.glyph_scripts import LETTERS, groups
from innerloop_server.tasks.families.supervised import Classification, Example, supervised_env, whole

if TYPE_CHECKING:
    import torch

SIDE = 16
"""Pixels of a side of an image."""


class Warp(NamedTuple):
    """Where in a letter's raster an image looks. Lengths are in halves of a side."""

    angle: float
    """In radians."""
    stretch_x: float
    stretch_y: float
    """How much of the raster is seen along each axis: more than 1 makes the letter smaller."""
    shear: float
    shift_x: float
    shift_y: float


WARP_RANGE = (Warp(-0.3, 0.8, 0.8, -0.25, -0.15, -0.15), Warp(0.3, 1.2, 1.2, 0.25, 0.15, 0.15))
"""Each field of an example's warp is uniform between these."""


class Glyphs(Classification):
    """Letters of one alphabet, a few at a time."""

    name = "glyphs"
    title = "Tell letters apart in a script that was never shown before"
    classes = len(LETTERS)
    groups = groups()

    def __init__(self, ways: int = 2) -> None:
        """As :class:`Classification`."""
        super().__init__(ways)
        names = ", ".join(self._class_names)
        self.description = (
            f"An example is an image of a letter, {SIDE} x {SIDE} pixels in [0, 1] as {SIDE * SIDE} numbers, and the "
            f"action its label. Hidden: the letter behind each of the {ways} labels ({names}), different ones of one "
            "alphabet. Training draws its tasks from Latin, Greek, Cyrillic, Armenian, Arabic, Canadian syllabics, "
            "Lisu and Old Italic, validation from Hebrew and Lao, test from Georgian (both old and new letters), N'Ko "
            "and Tifinagh; scripts may share a shape: 9 of the 155 test letters are drawn as a training letter is in "
            "one face at least. Letters come from the two to six faces of "
            "DejaVu that have them, brought to one size, and each example has its own face, rotation (up to 17 "
            "degrees), stretch along either axis (0.8 to 1.2), shear (up to 0.25) and shift (up to 1.2 pixels), all "
            "uniform: no image comes twice. Horizon 1: one example an episode; its feedback is the label. Reward: 1 "
            "if the label is right, else 0. In the manner of Omniglot (Lake et al. 2015), whose letters were drawn by "
            "people and whose alphabets are also held out; here they are type, so nothing has to be downloaded."
        )

    @functools.cached_property
    def observation_space(self) -> Box:
        """Ink, row by row."""
        return Box.of(0.0, 1.0, (SIDE * SIDE,))

    def make(self, task: Task) -> gymnasium.Env[Any, Any]:
        """See :class:`~innerloop_server.tasks.families.supervised.SupervisedEnv`."""
        drawn = rasters()
        letters = self.classes_of(task.parameters)
        low, high = np.array(WARP_RANGE)

        def example(label: int, uniforms: Array) -> Example:
            letter = letters[label]
            raster = drawn.table[
                drawn.first[letter] + min(int(whole(uniforms[0]) * drawn.count[letter]), drawn.count[letter] - 1)
            ]
            return draw(raster, Warp(*(low + (high - low) * uniforms[1:]))).ravel(), np.array([label], np.float32)

        return supervised_env(self, example, 1 + len(low))

    def batch(self, parameters: Arrays, device: torch.device) -> TaskBatch:
        """See :class:`~innerloop_server.tasks.families.glyphs_batch.GlyphsBatch`."""
        from innerloop_server.tasks.families.glyphs_batch import GlyphsBatch

        drawn = rasters()
        letters = self.classes_of(parameters)
        first, count = drawn.first[letters], drawn.count[letters]
        return GlyphsBatch(drawn.table, first, count, np.array(WARP_RANGE), SIDE, device)


def draw(raster: Array, warp: Warp) -> Array:
    """An image of a raster: [SIDE, SIDE] float32.

    A pixel's middle, both sides running from -1 to 1, is moved back by the shift, turned back by the angle, stretched
    and sheared; there the raster is read, linear between the middles of its four nearest pixels. Unwarped, each pixel
    of the image is the mean of four of the raster's.

    Args:
        raster: [RASTER, RASTER] with a blank border, which also stands for all that lies outside.
        warp: which part of it is seen.
    """
    grid = (2 * np.arange(SIDE, dtype=np.float64) + 1) / SIDE - 1
    x, y = grid - warp.shift_x, grid[:, None] - warp.shift_y
    cos, sin = math.cos(warp.angle), math.sin(warp.angle)
    u = (cos * x + sin * y) * warp.stretch_x
    v = (cos * y - sin * x) * warp.stretch_y
    u = u + warp.shear * v
    last = RASTER - 1
    column = np.clip((u + 1) * (RASTER / 2) - 0.5, 0, last)
    row = np.clip((v + 1) * (RASTER / 2) - 0.5, 0, last)
    left, top = (np.minimum(np.floor(place), last - 1).astype(np.int64) for place in (column, row))
    right_share, bottom_share = column - left, row - top
    upper = raster[top, left] * (1 - right_share) + raster[top, left + 1] * right_share
    lower = raster[top + 1, left] * (1 - right_share) + raster[top + 1, left + 1] * right_share
    image: Array = (upper * (1 - bottom_share) + lower * bottom_share).astype(np.float32)
    return image
