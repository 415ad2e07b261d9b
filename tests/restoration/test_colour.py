from __future__ import annotations

from pathlib import Path
from typing import Unpack

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from resshift_cli.restoration import colour
from resshift_cli.restoration.colour import ColourFix
from resshift_cli.restoration.resize import enlarge
from resshift_cli.restoration.settings import Faithfulness

PHOTO = Path(__file__).parents[1] / "photos" / "dragonfly.png"
FIXES: tuple[ColourFix, ...] = ("none", "wavelet", "adain")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(seed))


def photo(side: int = 128) -> Tensor:
    with Image.open(PHOTO) as image:
        pixels = np.array(image.convert("RGB"))[:side, :side]
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1


def reduced(image: Tensor, factor: int = 4) -> Tensor:
    size = [side // factor for side in image.shape[-2:]]
    return F.interpolate(image, size, mode="bicubic", align_corners=False, antialias=True)


def strayed(image: Tensor) -> Tensor:
    """As a chain may give it: another tint, less contrast, details of its own."""
    tint = torch.tensor([0.05, -0.03, 0.02]).view(1, 3, 1, 1)
    return (0.9 * image + tint + 0.05 * noise(*image.shape[-2:])).clamp(-1, 1)


def error(result: Tensor, lq: Tensor) -> float:
    """Root mean square of what the reduced result differs by."""
    return (reduced(result) - lq).square().mean().sqrt().item()


def colour_error(result: Tensor, lq: Tensor) -> float:
    return (reduced(result) - lq).mean((2, 3)).abs().max().item()


# What each of them brings back


@pytest.mark.parametrize("fix", ["wavelet", "adain"])
def test_a_tint_is_taken_away(fix: ColourFix) -> None:
    lq = reduced(photo())
    result = strayed(photo())
    fixed = colour.correct(result, lq, fix=fix, consistency=0)
    assert colour_error(fixed, lq) < 0.1 * colour_error(result, lq)


def test_a_tint_in_one_half_is_taken_away_there() -> None:
    sharp = 0.5 * photo()
    result = sharp.clone()
    result[..., :64] += 0.1
    for fix in (colour.wavelet, colour.adain):
        left_over = (fix(result, reduced(sharp)) - sharp).mean((0, 1, 2)).abs()
        assert left_over[:24].max() < 0.01
        assert left_over[-24:].max() < 0.01


def test_wavelet_replaces_low_frequencies_as_at_full_size() -> None:
    def low(image: Tensor) -> Tensor:  # five levels of the a-trous wavelet, as StableSR has them
        for gap in (1, 2, 4, 8, 16):
            image = F.pad(image, (gap, gap, gap, gap), mode="replicate")
            kernel = torch.tensor([0.25, 0.5, 0.25]).expand(3, 1, 1, 3)
            image = F.conv2d(image, kernel, groups=3, dilation=(1, gap))
            image = F.conv2d(image, kernel.transpose(2, 3), groups=3, dilation=(gap, 1))
        return image

    lq = reduced(0.8 * photo())
    result = strayed(0.8 * photo())
    expected = result - low(result) + low(enlarge(lq, 4))
    moved = (expected - result).abs().mean()
    assert (colour.wavelet(result, lq) - expected).abs().mean() < 0.05 * moved


def test_wavelet_keeps_the_detail() -> None:
    result = 0.8 * photo()
    moved = colour.wavelet(result, reduced(strayed(result))) - result
    assert moved.abs().mean() > 0.02
    assert moved.diff(dim=-1).abs().max() < 0.01  # between neighbouring pixels


def test_adain_gives_contrast_back() -> None:
    sharp = 0.8 * photo()
    flat = 0.8 * sharp + 0.1
    fixed = colour.adain(flat, reduced(sharp))
    assert (fixed - sharp).abs().mean() < 0.1 * (flat - sharp).abs().mean()


def test_adain_does_not_dull_a_result_that_is_sharper_than_its_input() -> None:
    sharp = photo()
    assert_close(colour.adain(sharp, reduced(sharp)), sharp, atol=2e-5, rtol=0)


def test_adain_makes_no_texture_of_the_noise_of_a_flat_input() -> None:
    result = 0.001 * noise(64, 64)
    noisy = 0.01 * noise(16, 16, seed=1)
    assert colour.adain(result, noisy).std() < 0.02


def test_full_consistency_gives_a_result_that_reduces_to_the_input() -> None:
    lq = reduced(photo())
    fixed = colour.project(strayed(photo()), lq, 1.0)
    assert error(fixed, lq) < 0.5 / 127.5
    assert error(fixed, lq) < 0.03 * error(strayed(photo()), lq)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_projection_converges_for_every_factor(factor: int) -> None:
    lq = 0.2 * noise(16, 12)
    fixed = colour.project(torch.zeros(1, 3, 16 * factor, 12 * factor), lq, 1.0)
    assert (reduced(fixed, factor) - lq).abs().max() < 0.015 * lq.abs().max()


def test_consistency_goes_a_part_of_the_way() -> None:
    result, lq = strayed(photo()), reduced(photo())
    full = colour.project(result, lq, 1.0)
    assert_close(colour.project(result, lq, 0.25), result + 0.25 * (full - result))
    assert torch.equal(colour.project(result, lq, 0.0), result)


def test_a_result_that_is_consistent_stays_as_it_is() -> None:
    assert_close(colour.project(photo(), reduced(photo()), 1.0), photo(), atol=1e-5, rtol=0)


def test_what_is_flat_becomes_the_enlarged_input() -> None:
    lq = torch.full((1, 3, 16, 12), 0.3)
    lq[..., 8:, :] = -0.4
    calm = colour.calm(enlarge(lq, 4) + 0.05 * noise(64, 48), lq, 0.5)
    assert_close(calm[..., :12, :], enlarge(lq, 4)[..., :12, :], atol=1e-6, rtol=0)
    assert_close(calm[..., -12:, :], enlarge(lq, 4)[..., -12:, :], atol=1e-6, rtol=0)


def test_a_ramp_is_as_flat_as_a_plain_colour() -> None:
    lq = torch.linspace(-0.8, 0.8, 32).expand(1, 3, 16, 32)
    calm = colour.calm(enlarge(lq, 4) + 0.05 * noise(64, 128), lq, 0.5)
    middle = (..., slice(24, -24))
    assert_close(calm[middle], enlarge(lq, 4)[middle], atol=1e-5, rtol=0)


def test_what_has_detail_stays_what_the_network_made_of_it() -> None:
    lq = 0.5 * noise(16, 16)  # 64 levels
    result = 0.9 * noise(64, 64, seed=1).clamp(-1, 1)
    assert (colour.calm(result, lq, 0.5) - result).abs().max() < 0.01


def test_detail_in_one_channel_counts_for_all() -> None:
    lq = torch.zeros(1, 3, 16, 16)
    lq[:, 1] = 0.5 * noise(16, 16)[:, 1]
    result = 0.9 * noise(64, 64, seed=1).clamp(-1, 1)
    assert (colour.calm(result, lq, 0.5) - result).abs().mean() < 0.01


def test_nothing_wanted_is_nothing_done() -> None:
    result = strayed(photo())
    assert colour.correct(result, reduced(photo()), fix="none", consistency=0.0) is result


# Extremes


@pytest.mark.parametrize("fix", FIXES)
@pytest.mark.parametrize("consistency", [0.0, 0.5, 1.0])
def test_the_result_stays_within_its_range(fix: ColourFix, consistency: float) -> None:
    sharp = noise(64, 64).sign()
    fixed = colour.correct(
        -sharp, (1.2 * reduced(sharp)).clamp(-1, 1), fix=fix, consistency=consistency
    )
    assert fixed.min() >= -1 and fixed.max() <= 1


def test_clipping_does_not_keep_saturated_edges_from_being_consistent() -> None:
    sharp = -torch.ones(1, 3, 64, 64)
    sharp[..., 19:44, 22:47] = 1.0
    lq = reduced(sharp).clamp(-1, 1)
    result = enlarge(lq, 4).clamp(-1, 1)
    assert error(colour.project(result, lq, 1.0), lq) < 0.25 * error(result, lq)


@pytest.mark.parametrize("fix", FIXES)
def test_no_halo_appears_around_a_white_square_on_black(fix: ColourFix) -> None:
    sharp = -torch.ones(1, 3, 96, 96)
    sharp[..., 35:60, 38:63] = 1.0
    lq = reduced(sharp).clamp(-1, 1)
    fixed = colour.correct(sharp, lq, fix=fix, consistency=1.0)
    assert (fixed - sharp).abs().max() < 0.18  # 23 levels of 255, right at the edge
    assert (fixed - sharp)[..., :26, :].abs().max() < 0.5 / 127.5


@pytest.mark.parametrize("fix", FIXES)
def test_gray_stays_gray(fix: ColourFix) -> None:
    gray = photo().mean(1, keepdim=True).expand(1, 3, -1, -1)
    result = strayed(photo()).mean(1, keepdim=True).expand(1, 3, -1, -1)
    fixed = colour.correct(result, reduced(gray), fix=fix, consistency=0.5)
    assert torch.equal(fixed[:, 0], fixed[:, 1]) and torch.equal(fixed[:, 0], fixed[:, 2])


@pytest.mark.parametrize("fix", FIXES)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 2)])
def test_the_smallest_images_can_be_corrected(fix: ColourFix, size: tuple[int, int]) -> None:
    lq = 0.2 * noise(*size)
    fixed = colour.correct(0.9 * enlarge(lq, 4) + 0.1, lq, fix=fix, consistency=1.0)
    assert (reduced(fixed) - lq).abs().max() < 0.01


def test_images_of_a_batch_do_not_mix() -> None:
    lq = torch.cat([reduced(photo()), -reduced(photo())])
    result = torch.cat([strayed(photo()), noise(128, 128).clamp(-1, 1)])
    both = colour.correct(result, lq, fix="adain", consistency=0.5)
    for i in range(2):
        alone = colour.correct(result[i : i + 1], lq[i : i + 1], fix="adain", consistency=0.5)
        assert torch.equal(both[i : i + 1], alone)


@pytest.mark.parametrize("size", [(63, 64), (64, 128), (8, 8)])
def test_a_result_of_another_shape_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not multiples"):
        colour.correct(noise(*size), noise(16, 16), fix="wavelet", consistency=0.0)


# Bands


def banded(
    result: Tensor, lq: Tensor, top: int, bottom: int, halo: int, **wanted: Unpack[Faithfulness]
) -> Tensor:
    """Rows `top` to `bottom` of the input, corrected from a band with a halo."""
    factor = result.shape[-2] // lq.shape[-2]
    first, last = max(top - halo, 0), min(bottom + halo, lq.shape[-2])
    band = result[..., factor * first : factor * last, :]
    fixed = colour.correct(band, lq[..., first:last, :], **wanted)
    return fixed[..., factor * (top - first) : factor * (bottom - first), :]


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("fix", FIXES)
@pytest.mark.parametrize("consistency", [0.0, 0.7])
@pytest.mark.parametrize("flat", [0.0, 9.0])
def test_bands_with_their_halo_give_the_rows_of_the_whole_image(
    factor: int, fix: ColourFix, consistency: float, flat: float
) -> None:
    wanted: Faithfulness = {"fix": fix, "consistency": consistency, "flat": flat}
    lq = noise(110, 9).clamp(-1, 1)
    result = noise(110 * factor, 9 * factor, seed=1).clamp(-1, 1)
    whole = colour.correct(result, lq, **wanted)
    halo = colour.reach(factor, **wanted)
    for top, bottom in [(0, 1), (0, 40), (40, 47), (47, 109), (109, 110)]:
        band = banded(result, lq, top, bottom, halo, **wanted)
        assert torch.equal(band, whole[..., factor * top : factor * bottom, :])


@pytest.mark.parametrize(
    ("fix", "consistency", "flat", "expected"),
    [
        ("none", 0.0, 0.0, 0),
        ("none", 0.0, 9.0, 6),
        ("wavelet", 0.0, 0.0, 11),
        ("adain", 0.0, 0.0, 19),
        ("none", 1.0, 0.0, 16),
        ("wavelet", 1.0, 0.0, 26),
    ],
)
def test_the_reach_at_x4_is_no_longer_than_it_has_to_be(
    fix: ColourFix, consistency: float, flat: float, expected: int
) -> None:
    wanted: Faithfulness = {"fix": fix, "consistency": consistency, "flat": flat}
    assert colour.reach(4, **wanted) == expected
    if expected:
        lq = 0.1 * noise(110, 3).double()  # float32 can't hold what comes from so far
        result = 0.1 * noise(440, 12, seed=1).double()
        whole = colour.correct(result, lq, **wanted)
        band = banded(result, lq, 50, 55, expected - 1, **wanted)
        assert not torch.equal(band, whole[..., 200:220, :])
