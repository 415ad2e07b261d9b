from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from resshift_cli.restoration.quality import (
    colour_shift,
    levels,
    luma,
    psnr_rgb,
    psnr_y,
    relative_sharpness,
    sharpness,
    ssim_rgb,
    ssim_y,
)
from resshift_cli.restoration.resize import enlarge, shrink


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


def test_sharpness_is_relative_to_the_original_s() -> None:
    blurred = enlarge(shrink(noise(), 4), 4)
    expected = sharpness(blurred) / sharpness(noise())
    assert relative_sharpness(blurred, noise()) == pytest.approx(expected)
    assert math.isnan(relative_sharpness(noise(), gray(90, 32)))


def test_the_colour_shift_is_that_of_the_worst_channel() -> None:
    shifted = gray(100)
    shifted[:, 0] += 3 / 255
    shifted[:, 2] -= 7 / 255
    assert colour_shift(shifted, gray(100)) == pytest.approx(7)


# scikit-image is the reference for the two figures of the papers.


def pair(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Two images that differ as enlargements do, of every brightness and kind of detail."""
    generator = torch.Generator().manual_seed(height * width)
    coarse = torch.rand(1, 3, height // 4, width // 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    original = smooth + 0.1 * torch.randn(1, 3, height, width, generator=generator)
    return smooth.clamp(0, 1), original.clamp(0, 1)


def luma_array(image: Tensor) -> NDArray[Any]:
    return luma(levels(image))[0, 0].numpy()


def rgb_array(image: Tensor) -> NDArray[Any]:
    return levels(image)[0].permute(1, 2, 0).numpy() * 255


SIZES = [(64, 64), (48, 132), (20, 40)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("border", [0, 4])
def test_psnr_is_scikit_image_s(height: int, width: int, border: int) -> None:
    images = pair(height, width)
    inside = np.s_[border : height - border, border : width - border]
    for ours, as_array in ((psnr_y, luma_array), (psnr_rgb, rgb_array)):
        a, b = (as_array(image)[inside] for image in images)
        expected = peak_signal_noise_ratio(b, a, data_range=255)
        assert ours(*images, border) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("border", [0, 4])
def test_ssim_is_scikit_image_s_with_the_paper_s_window(
    height: int, width: int, border: int
) -> None:
    images = pair(height, width)
    inside = np.s_[border : height - border, border : width - border]
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    luma_pair = [luma_array(image)[inside] for image in images]
    rgb_pair = [rgb_array(image)[inside] for image in images]
    expected = structural_similarity(*luma_pair, data_range=255, **how)
    assert ssim_y(*images, border) == pytest.approx(expected, abs=1e-6)
    expected = structural_similarity(*rgb_pair, data_range=255, channel_axis=2, **how)
    assert ssim_rgb(*images, border) == pytest.approx(expected, abs=1e-6)


def test_ssim_is_one_for_equal_images_and_lower_for_all_others() -> None:
    image, original = pair(64, 64)
    assert ssim_y(original, original) == pytest.approx(1.0)
    assert ssim_y(1 - original, original) < 0 < ssim_y(image, original) < 1


def test_an_image_without_room_for_the_window_is_refused() -> None:
    assert 0 < ssim_y(*pair(20, 20), border=4) < 1
    with pytest.raises(ValueError, match="window"):
        ssim_y(*pair(16, 20), border=4)
