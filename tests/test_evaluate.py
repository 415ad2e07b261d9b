from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from resshift_cli.degrade import enlarge, shrink
from resshift_cli.evaluate import luma, psnr_y, sharpness


def noise(side: int = 32) -> Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))


def gray(level: int, side: int = 16) -> Tensor:
    return torch.full((1, 3, side, side), level / 255)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [((0, 0, 0), 16.0), ((1, 1, 1), 235.0), ((1, 0, 0), 81.481), ((0, 1, 0), 144.553)],
)
def test_luma_is_that_of_bt601_in_studio_range(
    colour: tuple[float, float, float], expected: float
) -> None:
    pixel = torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1)
    assert luma(pixel).item() == pytest.approx(expected)


def test_psnr_agrees_with_a_value_worked_out_by_hand() -> None:
    # Ten levels of gray are 10 * 219 / 255 of luma, everywhere.
    error = 10 * 219 / 255
    expected = 20 * math.log10(255 / error)
    assert psnr_y(gray(110), gray(100)) == pytest.approx(expected, abs=1e-3)


def test_one_wrong_pixel_counts_by_its_share() -> None:
    image = gray(100)
    image[..., 8, 8] = 110 / 255
    expected = 20 * math.log10(255 / (10 * 219 / 255)) + 10 * math.log10(64)  # of 8 x 8 inside
    assert psnr_y(image, gray(100)) == pytest.approx(expected, abs=1e-2)


def test_equal_images_have_infinite_psnr() -> None:
    assert psnr_y(noise(), noise()) == math.inf


def test_differences_that_8_bits_can_t_hold_do_not_count() -> None:
    assert psnr_y(gray(100) + 0.4 / 255, gray(100)) == math.inf
    assert psnr_y(gray(255) + 3.0, gray(255)) == math.inf
    assert psnr_y(gray(100) + 0.6 / 255, gray(100)) < 60


@pytest.mark.parametrize("border", [1, 4, 7])
def test_the_border_is_left_out_and_nothing_else(border: int) -> None:
    image = gray(100)
    image[..., :border, :] = 1.0
    image[..., -border:, :] = 1.0
    image[..., :border] = 1.0
    image[..., -border:] = 1.0
    assert psnr_y(image, gray(100), border) == math.inf
    assert psnr_y(image, gray(100), border - 1) < 40


def test_a_worse_image_has_a_lower_psnr() -> None:
    image = noise(64)
    assert psnr_y(enlarge(shrink(image, 2), 2), image) > psnr_y(enlarge(shrink(image, 8), 8), image)


def test_a_constant_image_has_no_sharpness() -> None:
    assert sharpness(gray(90)) == pytest.approx(0.0, abs=1e-3)
    ramp = (torch.arange(32.0) * 4 / 255).expand(1, 3, 32, 32)
    assert sharpness(ramp) == pytest.approx(0.0, abs=1e-3)


def test_noise_is_sharper_than_its_blurred_self() -> None:
    assert sharpness(noise()) > 4 * sharpness(enlarge(shrink(noise(), 4), 4))


def test_sharpness_is_in_proportion_to_contrast() -> None:
    checks = (torch.arange(16)[:, None] + torch.arange(16)[None, :]) % 2
    image = gray(100) + checks * 20 / 255
    # Each pixel differs by 20 levels from all four neighbours: root mean square of 80 levels.
    assert sharpness(image) == pytest.approx(80 * 219 / 255, rel=1e-3)
    assert sharpness(gray(100) + checks * 40 / 255) == pytest.approx(2 * sharpness(image), rel=1e-3)
