from __future__ import annotations

import itertools
import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.ft2font import FT2Font

from innerloop_server.domain import Split
from innerloop_server.errors import InvalidField
from innerloop_server.tasks.families.glyph_rasters import LONGEST, RASTER, rasters
from innerloop_server.tasks.families.glyph_scripts import ALPHABETS, LETTERS, groups
from innerloop_server.tasks.families.glyphs import SIDE, WARP_RANGE, Glyphs, Warp, draw
from innerloop_server.tasks.sampling import custom_task, sample_task, stack_parameters

FAMILY = Glyphs()
CPU = torch.device("cpu")
UNWARPED = Warp(0, 1, 1, 0, 0, 0)


@pytest.mark.parametrize("alphabet", ALPHABETS, ids=lambda alphabet: alphabet.name)
def test_each_font_of_an_alphabet_has_its_letters(alphabet: object) -> None:
    for font in alphabet.fonts:  # type: ignore[attr-defined]
        path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
        assert not {ord(letter) for letter in alphabet.letters} - set(FT2Font(str(path)).get_charmap())  # type: ignore[attr-defined]


def test_no_script_is_in_two_splits() -> None:
    scripts = {
        split: {unicodedata.name(LETTERS[letter]).split()[0] for letter in itertools.chain(*found)}
        for split, found in groups().items()
    }
    assert scripts[Split.TEST] == {"GEORGIAN", "NKO", "TIFINAGH"}
    assert scripts[Split.VALIDATION] == {"HEBREW", "LAO"}
    assert not scripts[Split.TRAIN] & (scripts[Split.TEST] | scripts[Split.VALIDATION])
    assert sorted(itertools.chain(*itertools.chain(*groups().values()))) == list(range(len(LETTERS)))
    assert len(set(LETTERS)) == len(LETTERS)


def test_a_task_has_different_letters_of_one_alphabet() -> None:
    five = Glyphs(ways=5)
    assert five.name == "glyphs.ways-5"
    for split in Split:
        met = set()
        for index in range(100):
            letters = five.classes_of(sample_task(five, 0, split, index).parameters).tolist()
            alphabet = next(one for one in ALPHABETS if LETTERS[letters[0]] in one.letters)
            assert {LETTERS[letter] for letter in letters} <= set(alphabet.letters)
            assert alphabet.split is split
            assert len(set(letters)) == 5
            met.add(alphabet.name)
        assert met == {alphabet.name for alphabet in ALPHABETS if alphabet.split is split}
    with pytest.raises(InvalidField):
        Glyphs(ways=25)  # Greek has 24 capitals


def test_rasters_are_letters_in_a_blank_frame() -> None:
    table, first, count = vars(rasters()).values()
    assert first[-1] + count[-1] == len(table)
    assert (np.diff(first) == count[:-1]).all()
    assert not table[:, [0, -1]].any()
    assert not table[:, :, [0, -1]].any()
    inked = np.stack([table.any(axis) for axis in (1, 2)])
    longer = (RASTER - inked.argmax(-1) - inked[..., ::-1].argmax(-1)).max(0)
    assert set(longer) <= {LONGEST - 1, LONGEST}
    assert table.max() == 1
    bar = table[first[LETTERS.index("I")]]  # sans: a bar, as high as it may be, in the middle
    assert bar.any(1).sum() == LONGEST
    assert bar[RASTER // 2].sum() == pytest.approx(bar[RASTER // 2 + 4].sum())
    assert bar.sum(0).argmax() in (RASTER // 2 - 1, RASTER // 2)


def test_an_unwarped_pixel_is_the_mean_of_four_of_the_raster() -> None:
    raster = rasters().table[0]
    blocks = raster.reshape(SIDE, 2, SIDE, 2).mean((1, 3))
    np.testing.assert_allclose(draw(raster, UNWARPED), blocks, atol=1e-6)


def test_warps_do_what_they_are_called() -> None:
    """A blot of four raster pixels is one pixel of the image, by default right of the middle and just above it."""

    def where(top: int = 14, **warp: float) -> tuple[float, float]:
        """Row and column of the ink's middle."""
        raster = np.zeros((RASTER, RASTER), np.float32)
        raster[top : top + 2, 22:24] = 1
        image = draw(raster, UNWARPED._replace(**warp)).astype(np.float64)
        row, column = (image.sum(axis) @ np.arange(SIDE) / image.sum() for axis in (1, 0))
        return float(row), float(column)

    assert where() == pytest.approx((7, 11))
    assert where(shift_x=1 / 8) == pytest.approx((7, 12))  # an eighth of eight pixels
    assert where(shift_y=-1 / 8) == pytest.approx((6, 11))
    row, column = where(angle=np.pi / 2)
    assert (row, column) == pytest.approx((11, 8))  # 3.5 right and 0.5 up of the middle: 3.5 down and 0.5 right
    assert where(stretch_x=1.25)[1] < 10.7  # seen from farther away it lies nearer the middle
    assert where(top=6, shear=0.25)[1] > 11.5  # what is above leans right
    assert where(top=24, shear=0.25)[1] < 10.5  # and what is below left


def test_both_faces_draw_the_same_image() -> None:
    rng = np.random.default_rng(0)
    family = Glyphs(ways=3)
    for split in Split:
        tasks = [sample_task(family, 1, split, index) for index in range(3)]
        uniforms = rng.random((3, 8, 7))
        _, images = family.batch(stack_parameters(tasks), CPU).reset(torch.tensor(uniforms))
        low, high = np.array(WARP_RANGE)
        table, first, count = vars(rasters()).values()
        for b, task in enumerate(tasks):
            for n in range(8):
                letter = int(task.parameters[f"class_{n % 3}"])
                raster = table[first[letter] + int(2 * uniforms[b, n, 0] % 1 * count[letter])]
                expected = draw(raster, Warp(*(low + (high - low) * uniforms[b, n, 1:])))
                np.testing.assert_allclose(images[b, n].numpy(), expected.ravel(), atol=1e-6)


def test_support_and_queries_show_every_font() -> None:
    letter = LETTERS.index("A")
    task = custom_task(FAMILY, {"class_0": np.array(letter), "class_1": np.array(letter + 1)})
    batch = FAMILY.batch(stack_parameters([task]), CPU)
    middle = torch.full((1, 12, 7), 0.5, dtype=torch.float64)  # no warp
    middle[..., 0] = torch.arange(12) // 2 / 12 + 0.001
    shown = [
        {tuple(i) for i in batch.reset(middle + torch.tensor([half] + [0] * 6))[1][0, ::2].tolist()}
        for half in (0, 0.5)
    ]
    assert shown[0] == shown[1]
    assert len(shown[0]) == 6
