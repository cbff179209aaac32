"""One raster of each letter of ``glyphs`` in each of its fonts, drawn once a process."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from innerloop.arrays import Array
from innerloop_server.tasks.families.glyph_scripts import ALPHABETS

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

RASTER = 32
"""Pixels of a side of a raster; its outermost ones are blank, so that whatever lies outside is, too."""
LONGEST = 22
"""Pixels of a letter's longer side. All letters are brought to this size: how large one is drawn does not tell which it
is."""
POINTS = 128
"""Size at which outlines are drawn before they are brought down to size."""


@dataclass(frozen=True)
class Rasters:
    """Letters, those of a class in neighbouring rows, one a font."""

    table: Array
    """[R, RASTER, RASTER] float32 in [0, 1]; 1 is ink."""
    first: Array
    """[classes] int64: the first row of a letter."""
    count: Array
    """[classes] int64: fonts that draw it."""


@functools.lru_cache(maxsize=1)
def rasters() -> Rasters:
    """All of them (a fraction of a second)."""
    drawn: list[Array] = []
    count: list[int] = []
    for alphabet in ALPHABETS:
        faces = [_face(font) for font in alphabet.fonts]
        drawn += [_draw(face, letter) for letter in alphabet.letters for face in faces]
        count += [len(faces)] * len(alphabet.letters)
    return Rasters(np.stack(drawn), np.cumsum([0, *count[:-1]]), np.array(count))


def _face(font: str) -> FreeTypeFont:
    import matplotlib
    from PIL import ImageFont

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    # The basic engine draws a character as it stands alone, whatever shaping library is installed.
    return ImageFont.truetype(str(path), POINTS, layout_engine=ImageFont.Layout.BASIC)


def _draw(face: FreeTypeFont, letter: str) -> Array:
    """[RASTER, RASTER] float32, shares of ink: the letter in the middle, its longer side LONGEST pixels."""
    from PIL import Image, ImageDraw

    sheet = Image.new("L", (4 * POINTS, 4 * POINTS))
    ImageDraw.Draw(sheet).text((POINTS, POINTS), letter, fill=255, font=face)
    ink = sheet.crop(sheet.getbbox())
    width, height = (max(1, round(side * LONGEST / max(ink.size))) for side in ink.size)
    small = ink.resize((width, height), Image.Resampling.BOX)
    top, left = (RASTER - height) // 2, (RASTER - width) // 2
    raster = np.zeros((RASTER, RASTER), np.float32)
    raster[top : top + height, left : left + width] = np.asarray(small, np.float32) / 255
    return raster
