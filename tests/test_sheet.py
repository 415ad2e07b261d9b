from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resshift_cli import sheet
from resshift_cli.errors import OutputError


def flat(level: float, side: int) -> torch.Tensor:
    return torch.full((1, 3, side, side), level)


def test_pictures_stand_side_by_side_with_white_between(tmp_path: Path) -> None:
    sheet.write(tmp_path / "s.png", [[flat(0.2, 8), flat(0.4, 8)], [flat(0.6, 8), flat(0.8, 8)]])
    pixels = np.array(Image.open(tmp_path / "s.png"))
    assert pixels.shape == (8 + 4 + 8, 8 + 4 + 8, 3)
    assert [pixels[0, 0, 0], pixels[0, -1, 0]] == [51, 102]
    assert [pixels[-1, 0, 0], pixels[-1, -1, 0]] == [153, 204]
    assert (pixels[8:12] == 255).all() and (pixels[:, 8:12] == 255).all()


def test_small_pictures_are_enlarged_pixel_by_pixel(tmp_path: Path) -> None:
    small = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).expand(1, 3, 2, 2)
    sheet.write(tmp_path / "s.png", [[small, flat(0.5, 8)]])
    pixels = np.array(Image.open(tmp_path / "s.png"))[:, :8, 0]
    assert (pixels[:4, :4] == 0).all() and (pixels[:4, 4:] == 255).all()


def test_values_beyond_the_range_are_clipped(tmp_path: Path) -> None:
    sheet.write(tmp_path / "s.png", [[flat(-1.0, 4), flat(2.0, 4)]])
    pixels = np.array(Image.open(tmp_path / "s.png"))
    assert (pixels[:, :4] == 0).all() and (pixels[:, 8:] == 255).all()


def test_a_sheet_that_can_t_be_written_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="can't be written"):
        sheet.write(tmp_path / "none" / "s.png", [[flat(0.0, 4)]])
