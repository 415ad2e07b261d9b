from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from resshift_cli import degrade
from resshift_cli.degrade import DegradeSpec

ALWAYS = DegradeSpec(share=1.0, blur=1.0, noise=8.0, jpeg=(50, 95))


def photo(height: int = 64, width: int = 96) -> Tensor:
    """Smooth colours under fine detail, (1, 3, height, width)."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0.2, 0.8, width).expand(1, 3, height, width)
    return (ramp + 0.1 * torch.randn(1, 3, height, width, generator=generator)).clamp(0, 1)


def degraded(spec: DegradeSpec, seed: int) -> Tensor:
    return degrade.degrade(photo(), 4, spec, np.random.default_rng(seed))


def assert_eight_bits(image: Tensor) -> None:
    """Every value is one of 0/255 .. 255/255."""
    assert image.min() >= 0 and image.max() <= 1
    assert torch.equal((image * 255).round() / 255, image)


# The bicubic reduction


@pytest.mark.parametrize(("height", "width"), [(64, 96), (8, 4), (67, 101)])
def test_shrinking_divides_the_sides(height: int, width: int) -> None:
    small = degrade.shrink(photo(height, width), 4)
    assert small.shape == (1, 3, height // 4, width // 4)
    assert_eight_bits(small)


def test_a_constant_stays_constant() -> None:
    flat = torch.full((1, 3, 32, 32), 77 / 255)
    assert torch.equal(degrade.shrink(flat, 4), torch.full((1, 3, 8, 8), 77 / 255))
    assert_close(degrade.enlarge(flat, 4), torch.full((1, 3, 128, 128), 77 / 255))


def test_shrinking_does_not_alias() -> None:
    stripes = torch.tensor([0.0, 1.0, 1.0, 0.0]).repeat(16).expand(1, 3, 64, 64)
    inside = degrade.shrink(stripes, 4)[..., 2:-2]
    assert_close(inside, torch.full_like(inside, 0.5), rtol=0.0, atol=3 / 255)


def test_overshoot_of_the_cubic_is_clipped() -> None:
    edge = torch.cat([torch.zeros(1, 3, 32, 30), torch.ones(1, 3, 32, 34)], dim=3)
    assert_eight_bits(degrade.shrink(edge, 4))


def test_enlarging_multiplies_the_sides() -> None:
    assert degrade.enlarge(photo(9, 5), 4).shape == (1, 3, 36, 20)


# The realistic degradation


@pytest.mark.parametrize("seed", range(20))
def test_a_degraded_picture_is_one_that_a_file_can_hold(seed: int) -> None:
    small = degraded(ALWAYS, seed)
    assert small.shape == (1, 3, 16, 24)
    assert_eight_bits(small)


def test_a_seed_decides_the_degradation() -> None:
    assert torch.equal(degraded(ALWAYS, 3), degraded(ALWAYS, 3))
    others = [degraded(ALWAYS, seed) for seed in range(6)]
    assert all(not torch.equal(a, b) for i, a in enumerate(others) for b in others[:i])


def test_without_a_share_every_picture_is_only_shrunk() -> None:
    clean = degrade.shrink(photo(), 4)
    never = replace(ALWAYS, share=0.0)
    assert all(torch.equal(degraded(never, seed), clean) for seed in range(10))


def test_about_the_share_is_degraded() -> None:
    clean = degrade.shrink(photo(), 4)
    half = replace(ALWAYS, share=0.5)
    count = sum(not torch.equal(degraded(half, seed), clean) for seed in range(100))
    assert 35 <= count <= 65


def test_each_part_makes_a_difference_of_its_own() -> None:
    gray = photo()[:, :1].expand(1, 3, -1, -1)  # the best JPEG hardly changes what has no colour
    clean = degrade.shrink(gray, 4)
    fine = DegradeSpec(share=1.0, blur=0.0, noise=0.0, jpeg=(100, 100))

    def change(spec: DegradeSpec) -> float:
        """Largest of a few pictures, in levels."""
        small = [degrade.degrade(gray, 4, spec, np.random.default_rng(seed)) for seed in range(8)]
        return max((image - clean).abs().max().item() for image in small) * 255

    assert change(fine) < 3
    assert change(replace(fine, blur=4.0)) > 6
    assert change(replace(fine, noise=8.0)) > 6
    assert change(replace(fine, jpeg=(10, 10))) > 6


def test_noise_is_as_strong_as_the_spec_says_at_most() -> None:
    gray = torch.full((1, 3, 128, 128), 128 / 255)
    spec = DegradeSpec(share=1.0, blur=0.0, noise=8.0, jpeg=(100, 100))
    stds = [
        degrade.degrade(gray, 4, spec, np.random.default_rng(seed)).std().item() * 255
        for seed in range(30)
    ]
    assert 6.0 < max(stds) < 8.8


def test_blur_keeps_the_mean_and_takes_the_detail() -> None:
    blurred = degrade._blur(photo(), 2.0)
    assert_close(blurred.mean(), photo().mean(), rtol=0.0, atol=2e-3)
    assert blurred.diff(dim=2).abs().mean() < 0.2 * photo().diff(dim=2).abs().mean()


# Crops


def half_detailed(side: int = 64) -> degrade.Pixels:
    """Flat above, noise below."""
    image = np.full((side, side, 3), 100, np.uint8)
    image[side // 2 :] = np.random.default_rng(0).integers(256, size=(side // 2, side, 3))
    return image


def test_the_most_detailed_of_many_crops_is_taken() -> None:
    image = half_detailed()
    few = [degrade.pick_crop(image, 16, 1, np.random.default_rng(s)) for s in range(20)]
    many = [degrade.pick_crop(image, 16, 12, np.random.default_rng(s)) for s in range(20)]
    assert min(crop.std() for crop in few) < 1
    assert min(crop.std() for crop in many) > 50


def test_a_crop_is_a_part_of_the_image_flipped_and_turned() -> None:
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    found = set()
    for seed in range(60):
        crop = degrade.pick_crop(image, 8, 1, np.random.default_rng(seed))
        found.add(crop.tobytes())
    turned = [np.rot90(image, turns) for turns in range(4)]
    assert found == {view.tobytes() for one in turned for view in (one, one[:, ::-1])}


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 40), (33, 17)])
def test_crops_reach_every_border_and_stay_inside(height: int, width: int) -> None:
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, rows], axis=2).astype(np.uint8)
    corners = set()
    for seed in range(400):
        crop = degrade.pick_crop(image, 16, 1, np.random.default_rng(seed))
        assert crop.shape == (16, 16, 3)
        corners.add((int(crop[..., 0].min()), int(crop[..., 1].min())))
    assert {y for y, _ in corners} == set(range(height - 15))
    assert {x for _, x in corners} == set(range(width - 15))
