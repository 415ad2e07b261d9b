"""The part of a photo that is shown for the whole."""

from __future__ import annotations

import numpy as np
import pytest

from resshift_cli.viewing import crops, preview
from resshift_cli.viewing.crops import Crop, Sight


def test_the_busiest_part_is_where_neighbours_differ() -> None:
    photo = np.full((200, 300, 3), 0.5, np.float32)
    photo[96:160, 192:256] = np.random.default_rng(0).random((64, 64, 3))
    for rows in ([photo], np.split(photo, [1, 50, 51, 130])):
        crop = crops.busiest(rows, 64, (200, 300))
        assert abs(crop.left - 192) <= crops.BLOCK and abs(crop.top - 96) <= crops.BLOCK


def test_opacity_does_not_count() -> None:
    photo = np.full((64, 128, 4), 0.5, np.float32)
    photo[:, :64, 3] = np.random.default_rng(0).random((64, 64))
    photo[:, 64:, 0] = np.random.default_rng(0).random((64, 64)) / 50
    assert crops.busiest([photo], 32, (64, 128)).left >= 48


@pytest.mark.parametrize("size", [(1, 1), (5, 400), (130, 9), (128, 128)])
def test_a_small_photo_is_shown_as_far_as_it_goes(size: tuple[int, int]) -> None:
    photo = np.random.default_rng(0).random((*size, 3), dtype=np.float32)
    crop = crops.busiest([photo], 128, size)
    assert crop.cut([photo]).shape == (min(size[0], 128), min(size[1], 128), 3)


def test_a_point_is_the_middle_but_at_the_borders() -> None:
    assert crops.around((50, 40), 32, (100, 200)) == Crop(34, 24, 32, 32)
    assert crops.around((0, 99), 32, (100, 200)) == Crop(0, 68, 32, 32)


def test_a_crop_is_cut_out_of_bands() -> None:
    photo = np.random.default_rng(0).random((40, 30, 1), dtype=np.float32)
    cut = Crop(3, 11, 20, 17).cut(np.split(photo, [10, 12, 30]))
    np.testing.assert_array_equal(cut, photo[11:28, 3:23])


@pytest.mark.parametrize("scale", [4, 2.5])
@pytest.mark.parametrize("corner", [(0, 0), (30, 10), (68, 88)], ids=["first", "inside", "last"])
def test_a_crop_is_enlarged_as_it_is_in_the_photo(corner: tuple[int, int], scale: float) -> None:
    photo = np.random.default_rng(0).random((100, 120, 3), dtype=np.float32)
    top, left = corner
    sight = Sight.of(Crop(left, top, 32, 32), [photo[:7], photo[7:]], (100, 120))
    assert sight.pixels.shape[0] <= 32 + 2 * crops.CONTEXT
    found = sight.of_enlarged(preview.bicubic(sight.pixels, scale), scale)
    first, side = [round(scale * x) for x in corner], round(32 * scale)
    whole = preview.bicubic(photo, scale)
    expected = whole[first[0] : first[0] + side, first[1] : first[1] + side]
    assert np.abs(found - expected).max() < 1e-5
