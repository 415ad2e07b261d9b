from __future__ import annotations

import numpy as np
import pytest
from pictures import made_up_photo

from resshift_cli.training import crops
from resshift_cli.training.photos import Photo


def half_detailed(side: int = 64) -> Photo:
    """Flat above, noise below."""
    image = np.full((side, side, 3), 100, np.uint8)
    image[side // 2 :] = np.random.default_rng(0).integers(256, size=(side // 2, side, 3))
    return image


def test_the_most_detailed_of_many_crops_is_taken() -> None:
    image = half_detailed()
    few = [crops.detailed(image, 16, 1, np.random.default_rng(s)) for s in range(20)]
    many = [crops.detailed(image, 16, 12, np.random.default_rng(s)) for s in range(20)]
    assert min(crop.std() for crop in few) < 1
    assert min(crop.std() for crop in many) > 50


def test_a_crop_is_a_part_of_the_image_flipped_and_turned() -> None:
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    found = set()
    for seed in range(60):
        crop = crops.detailed(image, 8, 1, np.random.default_rng(seed))
        found.add(crop.tobytes())
    turned = [np.rot90(image, turns) for turns in range(4)]
    assert found == {view.tobytes() for one in turned for view in (one, one[:, ::-1])}


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 40), (33, 17)])
def test_crops_reach_every_border_and_stay_inside(height: int, width: int) -> None:
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, rows], axis=2).astype(np.uint8)
    corners = set()
    for seed in range(400):
        crop = crops.detailed(image, 16, 1, np.random.default_rng(seed))
        assert crop.shape == (16, 16, 3)
        corners.add((int(crop[..., 0].min()), int(crop[..., 1].min())))
    assert {y for y, _ in corners} == set(range(height - 15))
    assert {x for _, x in corners} == set(range(width - 15))


def test_half_of_the_crops_may_be_of_more_and_reduced() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255  # single pixels, which a reduction loses
    image = np.stack([board] * 3, axis=2).astype(np.uint8)
    contrasts = []
    for seed in range(200):
        crop = crops.detailed(image, 16, 2, np.random.default_rng(seed), reduce=2.0)
        assert crop.shape == (16, 16, 3)
        contrasts.append(crop.std() / image.std())
    assert 80 < sum(contrast == 1 for contrast in contrasts) < 130
    assert min(contrasts) < 0.1


def test_pictures_are_not_reduced_to_less_than_a_crop() -> None:
    image = made_up_photo(0, 24)[:18]
    for seed in range(50):
        crop = crops.detailed(image, 16, 1, np.random.default_rng(seed), reduce=4.0)
        assert crop.shape == (16, 16, 3)


def blocks_of(image: Photo, scale: int) -> Photo:
    """Each pixel as a square of `scale` times `scale`."""
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


@pytest.mark.parametrize("scale", [2, 4])
def test_both_of_a_pair_are_cut_at_the_same_place_and_turned_alike(scale: int) -> None:
    small = made_up_photo(0, 24)[:20]
    large = blocks_of(small, scale)
    found = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        hq, lq = crops.detailed_pair(large, small, 8 * scale, 2, rng)
        assert lq.shape == (8, 8, 3)
        assert np.array_equal(hq, blocks_of(lq, scale))
        found.add(lq.tobytes())
    assert len(found) > 30


def test_of_pairs_too_the_most_detailed_is_taken() -> None:
    large = half_detailed(128)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        hq, _ = crops.detailed_pair(large, large[::4, ::4], 16, 12, rng)
        assert hq.std() > 50


def test_the_largest_square_is_reduced_by_averaging() -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    image = blocks_of(coarse, 3)
    found = {crops.largest(image, 16, np.random.default_rng(seed)).tobytes() for seed in range(20)}
    assert found == {coarse.tobytes(), coarse[:, ::-1].tobytes()}  # mirrored, but never turned


def test_the_largest_square_lies_anywhere_along_the_longer_side() -> None:
    columns = np.arange(40, dtype=np.uint8)
    image = np.broadcast_to(columns[None, :, None], (16, 40, 3))
    lefts = {int(crops.largest(image, 16, np.random.default_rng(s)).min()) for s in range(400)}
    assert lefts == set(range(25))


def test_a_picture_smaller_than_the_square_is_reflected() -> None:
    image = made_up_photo(0, 32)[:20, :28]
    crop = crops.largest(image, 32, np.random.default_rng(3))
    upright = min((crop, crop[:, ::-1]), key=lambda view: np.abs(view[:20, :28] - image).sum())
    assert np.array_equal(upright[:20, :28], image)
    assert np.array_equal(upright[20, :28], image[18])


def test_flat_crops_have_one_colour_or_a_soft_gradient() -> None:
    rng = np.random.default_rng(0)
    made = [crops.flat(64, rng) for _ in range(200)]
    assert all(crop.shape == (64, 64, 3) and crop.dtype == np.uint8 for crop in made)
    steps = np.array([np.abs(np.diff(crop.astype(int), axis=0)).max() for crop in made])
    assert steps.max() <= 3 and 0.3 < (steps == 0).mean() < 0.7
    gray = [bool((crop == crop[..., :1]).all()) for crop in made]
    assert 0.2 < np.mean(gray) < 0.5
