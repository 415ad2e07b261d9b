"""Filling holes: what is computed, with which noise, and what stays as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from kinds import calls
from PIL import Image
from tiny_model import tiny_fills, tiny_networks
from torch.testing import assert_close

from resshift_cli.errors import UsageError
from resshift_cli.imaging.masks import Hole
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration.inpainter import Inpainter


def tiny_inpainter(**changes: Any) -> Inpainter:
    spec = tiny_fills(**changes)
    options: dict[str, Any] = {"name": "tiny", "device": "cpu", "precision": "fp32"}
    return Inpainter(spec, *tiny_networks(spec), **options)


def photo(height: int, width: int, channels: int = 3) -> Pixels:
    return np.random.default_rng(0).random((height, width, channels), dtype=np.float32)


def hole(image: Pixels, *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Boxes of (top, left, bottom, right)."""
    mask = np.zeros(image.shape[:2], dtype=bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_all_that_is_known_comes_back_bit_for_bit(channels: int) -> None:
    image = photo(50, 70, channels)
    mask = hole(image, (10, 20, 25, 41), (40, 0, 50, 9))
    result = tiny_inpainter()(image, mask, feather=2)
    assert (result[~mask] == image[~mask]).all()
    colours = slice(0, channels - 1 + channels % 2)
    assert (result[mask][:, colours] != image[mask][:, colours]).mean() > 0.99
    assert channels % 2 or (result[..., -1] == image[..., -1]).all()


def test_sixteen_bits_come_back_as_they_were() -> None:
    image = np.random.default_rng(0).integers(0, 65536, (33, 40), dtype=np.uint16)
    mask = np.zeros((33, 40), np.uint8)
    mask[5:9, 5:9] = 255
    result = tiny_inpainter()(image, mask)
    assert result.dtype == np.uint16 and (result[mask == 0] == image[mask == 0]).all()
    assert (result[mask > 0] != image[mask > 0]).any()


def test_pil_images_are_taken_and_nothing_under_the_hole_is_seen() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    mask = Image.new("L", (40, 40))
    mask.paste(255, (8, 8, 20, 20))
    other = image.copy()
    other[8:20, 8:20] = 7
    results = [tiny_inpainter()(Image.fromarray(each), mask) for each in (image, other)]
    assert isinstance(results[0], Image.Image)
    assert (np.asarray(results[0]) == np.asarray(results[1])).all()


def test_only_tiles_that_touch_the_hole_are_computed() -> None:
    inpainter, image = tiny_inpainter(), photo(200, 200)
    seen = calls(inpainter)
    options: dict[str, Any] = {"tile": 32, "overlap": 8, "steps": 1}
    inpainter(image, hole(image, (100, 100, 104, 104)), **options)
    assert 1 <= len(seen) <= 4
    seen.clear()
    inpainter(image, hole(image, (0, 0, 4, 4), (190, 180, 194, 186)), **options)
    assert 2 <= len(seen) <= 5


def test_a_hole_is_filled_alike_whatever_other_holes_there_are() -> None:
    """Noise belongs to places of the photo, and tiles that share none don't know each other."""
    inpainter, image = tiny_inpainter(), photo(200, 200)
    options: dict[str, Any] = {"tile": 32, "overlap": 8}
    near, far = (150, 150, 160, 160), (20, 30, 29, 44)
    mask = hole(image, near)
    both = inpainter(image, hole(image, near, far), **options)
    assert_close(both[mask], inpainter(image, mask, **options)[mask], rtol=0, atol=1e-5)


def test_a_hole_over_all_tiles_is_filled_as_the_whole_chain_would() -> None:
    inpainter, image = tiny_inpainter(), photo(50, 60)
    mask = hole(image, (4, 4, 46, 56))
    settings = inpainter.settings(tile=32, overlap=8)
    whole = np.concatenate(
        list(inpainter.stream([image[:7], image[7:]], image.shape, settings, Hole.of(mask)))
    )
    assert_close(whole, inpainter(image, mask, tile=32, overlap=8), rtol=0, atol=0)
    assert (whole[mask] != image[mask]).all()


@pytest.mark.parametrize("size", [(1, 2), (3, 5), (31, 33)])
def test_any_size_is_filled(size: tuple[int, int]) -> None:
    image = photo(*size)
    result = tiny_inpainter()(image, hole(image, (0, 0, 1, 1)), steps=1)
    assert (result[0, 1:] == image[0, 1:]).all() and (result[0, 0] != image[0, 0]).any()


def test_seeds_give_other_fillings_and_one_always_the_same() -> None:
    image = photo(40, 40)
    mask = hole(image, (8, 8, 20, 20))
    first, again, other = (tiny_inpainter()(image, mask, seed=seed) for seed in (1, 1, 2))
    assert (first == again).all() and (first[mask] != other[mask]).any()


def test_colours_under_transparency_don_t_reach_the_hole() -> None:
    image = photo(40, 40, 4)
    image[..., 3] = 1
    image[:, 30:, 3] = 0
    black = image.copy()
    black[:, 30:, :3] = 0
    mask = hole(image, (8, 8, 20, 20))
    results = [tiny_inpainter()(each, mask) for each in (image, black)]
    assert (results[0][mask] == results[1][mask]).all()
    assert (results[1][~mask] == black[~mask]).all()


def test_a_mask_that_does_not_fit_and_a_model_that_takes_none_are_refused() -> None:
    image = photo(40, 40)
    with pytest.raises(ValueError, match="mask is 40x20, and the image 40x40"):
        tiny_inpainter()(image, np.ones((20, 40), dtype=bool))
    with pytest.raises(UsageError, match="nothing to be filled"):
        tiny_inpainter()(image, np.zeros((40, 40), dtype=bool))
    with pytest.raises(UsageError, match="takes no mask"):
        tiny_inpainter(denoiser=replace(tiny_fills().denoiser, lq_mask=False))
    with pytest.raises(TypeError, match="scale"):
        tiny_inpainter()(image, hole(image, (0, 0, 1, 1)), scale=2)  # type: ignore[call-arg]


def test_progress_is_told_of_the_tiles_that_are_computed() -> None:
    told: list[tuple[int, int]] = []
    image = photo(200, 200)
    inpainter = tiny_inpainter()
    mask = hole(image, (100, 100, 104, 104))
    inpainter(image, mask, tile=32, overlap=8, progress=lambda *units: told.append(units))
    assert told[-1][0] == told[-1][1] and told[-1][1] <= 4 * 4
    assert torch.is_grad_enabled()
