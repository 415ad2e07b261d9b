from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from resshift_cli.errors import OutputError
from resshift_cli.training import sheet
from resshift_cli.training.sheet import Cell


def flat(level: float, side: int) -> Cell:
    return "", torch.full((3, side, side), level)


def drawn(*rows: list[Cell]) -> NDArray[np.uint8]:
    return np.array(sheet.draw(rows))


def test_pictures_stand_side_by_side_with_white_between() -> None:
    pixels = drawn([flat(0.2, 8), flat(0.4, 8)], [flat(0.6, 8), flat(0.8, 8)])
    assert pixels.shape == (2 * (20 + 8 + 8), 8 + 2 * (8 + 8), 3)
    for row, column, level in ((20, 8, 51), (20, 24, 102), (56, 8, 153), (56, 24, 204)):
        assert (pixels[row : row + 8, column : column + 8] == level).all()
        pixels[row : row + 8, column : column + 8] = 255
    assert (pixels == 255).all()


def test_words_stand_above_their_picture() -> None:
    pixels = drawn([("one", torch.ones(3, 40, 40)), ("", torch.ones(3, 40, 40))])
    assert (pixels[:20, 8:48] < 128).any() and (pixels[:, 48:] == 255).all()


def test_small_pictures_are_enlarged_pixel_by_pixel() -> None:
    small = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).expand(3, 2, 2)
    pixels = drawn([("", small), flat(0.5, 8)])[20:28, 8:16, 0]
    assert np.array_equal(pixels, np.array([[0, 255], [255, 0]]).repeat(4, 0).repeat(4, 1))


def test_values_beyond_the_range_are_clipped() -> None:
    pixels = drawn([flat(-1.0, 4), flat(2.0, 4)])
    assert (pixels[20:24, 8:12] == 0).all() and (pixels[20:24, 20:24] == 255).all()


def test_a_sheet_is_saved_as_png(tmp_path: Path) -> None:
    page = sheet.draw([[flat(0.2, 8)]])
    sheet.save(tmp_path / "s.png", page)
    with Image.open(tmp_path / "s.png") as saved:
        assert saved.format == "PNG" and np.array_equal(np.array(saved), np.array(page))


def test_a_sheet_that_can_t_be_written_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="can't be written"):
        sheet.save(tmp_path / "none" / "s.png", sheet.draw([[flat(0.0, 4)]]))


def test_words_take_as_many_lines_as_they_need() -> None:
    pixels = drawn([("one two three four", torch.ones(3, 60, 60)), ("", torch.zeros(3, 60, 60))])
    assert pixels.shape[0] == 60 + 8 + 2 * 20 or pixels.shape[0] == 60 + 8 + 3 * 20
    assert (pixels[20:40, 8:68] < 128).any() and (pixels[:, 68:76] == 255).all()
