"""Tiles: what they show, and how they are cut while rows come."""

from __future__ import annotations

import io

import numpy as np
import pytest
from pictures import P3
from PIL import Image

from resshift_cli.imaging import icc
from resshift_cli.imaging.icc import SRGB_CURVE
from resshift_cli.imaging.picture import Pixels, floats
from resshift_cli.viewing import pyramid
from resshift_cli.viewing.pyramid import TILE, Tile


def made_up(height: int, width: int, channels: int = 3) -> Pixels:
    levels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return floats(levels)


def decoded(tile: Tile) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(tile.content)))
    return pixels.reshape(*pixels.shape[:2], -1)


@pytest.mark.parametrize("size", [(1, 1), (512, 512), (513, 40), (700, 1100)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_tiles_of_the_first_level_are_the_picture(size: tuple[int, int], channels: int) -> None:
    pixels = made_up(*size, channels)
    together = np.zeros(pixels.shape, np.uint8)
    for tile in pyramid.tiles([pixels], pixels.shape, pyramid.as_png(None)):
        if tile.level == 0:
            top, left = tile.row * TILE, tile.column * TILE
            part = decoded(tile)
            together[top : top + len(part), left : left + part.shape[1]] = part
    np.testing.assert_array_equal(together, np.rint(pixels * 255))


@pytest.mark.parametrize(
    "size, levels", [((1, 1), 1), ((512, 512), 1), ((513, 1), 2), ((1024, 9), 2), ((1025, 1025), 3)]
)
def test_sizes_are_halved_until_one_tile_is_left(size: tuple[int, int], levels: int) -> None:
    assert pyramid.depth(*size) == levels
    tiles = list(pyramid.tiles([made_up(*size)], (*size, 3), pyramid.as_png(None)))
    last = [tile for tile in tiles if tile.level == levels - 1]
    assert max(tile.level for tile in tiles) == levels - 1
    assert [(tile.column, tile.row) for tile in last] == [(0, 0)]


def test_a_level_is_the_mean_of_the_one_before() -> None:
    pixels = made_up(600, 600)
    (small,) = (
        decoded(tile)
        for tile in pyramid.tiles([pixels], pixels.shape, pyramid.as_png(None))
        if tile.level == 1
    )
    mean = (pixels * 255).reshape(300, 2, 300, 2, 3).mean((1, 3))
    assert np.abs(small - mean).max() <= 1


def test_the_bands_that_rows_come_in_change_nothing() -> None:
    pixels = made_up(1100, 300)
    bands = np.split(pixels, [1, 2, 500, 513, 1099])
    whole = list(pyramid.tiles([pixels], pixels.shape, pyramid.as_png(None)))
    assert list(pyramid.tiles(bands, pixels.shape, pyramid.as_png(None))) == whole


@pytest.mark.parametrize("encoder", [pyramid.as_png, pyramid.as_jpeg])
def test_every_tile_says_what_its_colours_are(encoder: type) -> None:
    profile = icc.make("Display P3", P3, SRGB_CURVE)
    pixels = made_up(600, 20)
    for tile in pyramid.tiles([pixels], pixels.shape, encoder(profile)):
        assert Image.open(io.BytesIO(tile.content)).info["icc_profile"] == profile
