"""Figures against a reference are those of whole pictures, though computed in bands."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from resshift_cli.evaluation.metrics import Realism
from resshift_cli.evaluation.pairs import to_tensor
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration import quality
from resshift_cli.viewing import figures
from resshift_cli.viewing.exhibits import Exhibit


def exhibit(pixels: Pixels, *cuts: int) -> Exhibit:
    height, width, channels = pixels.shape
    return Exhibit("picture", (height, width, channels), np.split(pixels, cuts))


def noise(seed: int, height: int, width: int = 40, channels: int = 3) -> Pixels:
    return np.random.default_rng(seed).random((height, width, channels), dtype=np.float32)


@pytest.mark.parametrize("height", [11, 64, 65, 100, 138])
def test_bands_of_rows_change_no_figure(height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "BAND", 64)
    one, other = noise(0, height), noise(1, height)
    found = figures.measure(exhibit(one, 5, 50), exhibit(other, 9), None)
    whole = to_tensor(one), to_tensor(other)
    assert found["psnr-y"] == pytest.approx(quality.psnr_y(*whole, border=0))
    assert found["ssim-y"] == pytest.approx(quality.ssim_y(*whole, border=0))


def test_equal_pictures_have_no_noise_and_small_ones_no_ssim() -> None:
    one = exhibit(noise(0, 3))
    found = figures.measure(one, one, None)
    assert found["psnr-y"] == math.inf and math.isnan(found["ssim-y"])
    assert figures.told(found, None) == {"PSNR-Y, dB": "inf", "SSIM-Y": "none"}


def test_gray_counts_as_rgb_and_what_is_opaque_as_without_alpha() -> None:
    gray = noise(0, 20, channels=1)
    rgba = np.concatenate([np.repeat(gray, 3, axis=2), np.ones_like(gray)], axis=2)
    assert figures.measure(exhibit(gray), exhibit(rgba), None)["psnr-y"] == math.inf


def test_there_are_none_of_another_size_or_of_glass() -> None:
    one = exhibit(noise(0, 20))
    assert figures.measure(one, exhibit(noise(0, 21)), None) == {}
    assert figures.measure(one, exhibit(noise(0, 20, channels=4)), None) == {}


def test_realism_is_that_of_all_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "BAND", 64)
    realism = Realism(torch.device("cpu"))
    one, other = noise(0, 128, 192), noise(1, 128, 192) ** 2
    patches = [realism.describe(to_tensor(pixels), 99) for pixels in (one, other)]
    expected, count = realism.measure(patches[:1], patches[1:])
    found = figures.measure(exhibit(one), exhibit(other), realism)
    assert count == 6
    assert found["realism"] == pytest.approx(expected)
