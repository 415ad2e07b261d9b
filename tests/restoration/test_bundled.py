"""What the bundled model promises, measured on pictures that it was not trained on."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from resshift_cli.restoration import tiling
from resshift_cli.restoration.quality import psnr_y, sharpness
from resshift_cli.restoration.resize import enlarge, shrink
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.system import digests
from resshift_cli.weights import registry

PHOTOS = Path(__file__).parents[1] / "photos"
GAIN = {"dragonfly": 0.8, "window": 1.5}  # dB; the bar over all held-out photos is 1.2
EXAMPLE = Path(__file__).parents[2] / "examples" / "kitten.jpg"


@cache
def model() -> Upscaler:
    return Upscaler.from_pretrained("tiny-x4", device="cpu", precision="fp32")


def picture(name: str) -> Tensor:
    with Image.open(PHOTOS / f"{name}.png") as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


# The file


def test_the_file_is_small_and_says_what_it_is() -> None:
    weights = registry.find("tiny-x4").weights
    (source,) = weights.sources
    assert isinstance(source, registry.BundledSource)
    assert digests.digest(source.path) == weights.sha256
    path = source.path
    assert path.stat().st_size <= 16 << 20
    spec = model().spec
    assert (spec.scale, spec.predict, spec.schedule.steps) == (4, "residual", 15)
    parameters = sum(p.numel() for p in model().denoiser.parameters())
    assert 2e6 <= parameters <= 8e6


def test_a_call_costs_at_most_ten_gigaflop() -> None:
    network = model().denoiser.network
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 48, 64, 64), torch.tensor([14]), torch.zeros(1, 3, 64, 64))
    assert counter.get_total_flops() <= 10e9


# Quality. The whole set of held-out photos is measured by scripts/measure_bars.py.


@pytest.mark.parametrize("name", ["dragonfly", "window"])
def test_the_posterior_mean_is_closer_to_the_original_than_bicubic(name: str) -> None:
    original = picture(name)
    lq = shrink(original, 4)
    bicubic = psnr_y(enlarge(lq, 4), original)
    assert psnr_y(model()(lq, steps=1), original) > bicubic + GAIN[name]


def test_the_whole_chain_is_sharp_and_on_average_no_further_from_the_original() -> None:
    gains = []
    for name in GAIN:
        original = picture(name)
        lq = shrink(original, 4)
        bicubic, restored = enlarge(lq, 4), model()(lq)
        gains.append(psnr_y(restored, original) - psnr_y(bicubic, original))
        assert sharpness(restored) > 3 * sharpness(bicubic)
        assert 0.5 * sharpness(original) < sharpness(restored) < 1.1 * sharpness(original)
    assert np.mean(gains) > 0


@pytest.mark.parametrize("steps", [1, 4, 15])
def test_colours_stay(steps: int) -> None:
    lq = shrink(picture("window"), 4)
    restored = model()(lq, steps=steps)
    shift = (restored.mean((2, 3)) - lq.mean((2, 3))).abs().max().item()
    assert shift < 1.5 / 255


def test_the_latent_s_grid_does_not_show() -> None:
    """Each latent position makes a block of 4x4 pixels: block borders are lines like any other."""
    with Image.open(EXAMPLE) as image:
        part = image.convert("RGB").crop((40, 60, 136, 156))
    result = np.asarray(model()(part), dtype=float)
    for axis in (0, 1):
        profile = steps_along(result, axis)
        borders = profile[3::4].mean() / profile.mean()
        assert 0.95 < borders < 1.08


# Seams


def steps_along(image: NDArray[Any], axis: int) -> NDArray[Any]:
    """Mean absolute difference of each line to the next, by line."""
    return np.abs(np.diff(image.astype(float), axis=axis)).mean(axis=(1 - axis, 2))


def border_lines(length: int, tile: int, overlap: int) -> list[int]:
    """Where, in the enlarged image, tiles begin or end: as indices of `steps_along`."""
    axis = tiling.plan_axis(length, size=tile, overlap=overlap, multiple=32)
    edges = {*axis.starts[1:], *(start + axis.size for start in axis.starts[:-1])}
    return sorted(edge * 4 - 1 for edge in edges)


def seam_excess(image: NDArray[Any], tile: int, overlap: int) -> float:
    """How much larger steps are at the borders of tiles than elsewhere, in levels of 255."""
    excess = []
    for axis in (0, 1):
        profile = steps_along(image, axis)
        lines = border_lines(image.shape[axis] // 4, tile, overlap)
        excess += [profile[line] - np.median(profile) for line in lines]
    return float(max(excess))


def seam_score(image: NDArray[Any], tile: int, overlap: int) -> float:
    """The mean step at borders of tiles against as many random lines, in standard deviations.

    Every step is taken relative to those around it, since pictures are busier here than there,
    and the random lines are borders of latent positions, as those of tiles are.
    """
    borders: list[float] = []
    others: list[float] = []
    for axis in (0, 1):
        profile = steps_along(image, axis)
        lines = set(border_lines(image.shape[axis] // 4, tile, overlap))
        for line in range(11, len(profile) - 8, 4):
            around = np.median(profile[line - 8 : line + 9])
            (borders if line in lines else others).append(profile[line] / around)
    draws = np.random.default_rng(0).choice(others, size=(2000, len(borders)))
    return float((np.mean(borders) - draws.mean()) / draws.mean(axis=1).std())


def test_the_seam_measures_find_a_seam() -> None:
    """Tiles that differ by two levels of 255 are found, in a flat picture and in a photo."""
    flat = np.full((600, 560, 3), 90)
    with Image.open(EXAMPLE) as image:
        photo = np.asarray(image.convert("RGB").resize((1024, 772), Image.Resampling.BICUBIC))
    assert seam_excess(with_seams(flat), 64, 16) > 0.25
    assert seam_score(with_seams(photo), 64, 16) - seam_score(photo, 64, 16) > 1.5


def with_seams(image: NDArray[Any]) -> NDArray[Any]:
    seamed = image.astype(float)
    for axis in (0, 1):
        for i, line in enumerate(border_lines(seamed.shape[axis] // 4, 64, 16)):
            part = [slice(None)] * 2
            part[axis] = slice(line + 1, None)
            seamed[tuple(part)] += 2 * (-1) ** i
    return seamed


TILES = [(32, 8), (64, 16), (96, 8)]


@pytest.mark.parametrize(("tile", "overlap"), TILES)
@pytest.mark.parametrize("level", [0, 90, 255])
def test_a_constant_image_comes_out_without_a_grid(tile: int, overlap: int, level: int) -> None:
    image = np.full((100, 120, 3), level, dtype=np.uint8)
    result = model()(image, tile=tile, overlap=overlap, steps=4).astype(int)
    assert np.percentile(np.abs(result - level), 99) <= 5
    assert np.sqrt(np.mean((result - level) ** 2)) < 2
    assert seam_excess(result, tile, overlap) < 0.25


@pytest.mark.parametrize(("tile", "overlap"), TILES)
def test_a_smooth_gradient_comes_out_without_a_grid(tile: int, overlap: int) -> None:
    ramp = np.linspace(30, 220, 120)[None, :, None] + np.linspace(-20, 20, 100)[:, None, None]
    image = np.repeat(ramp, 3, axis=2).round().astype(np.uint8)
    result = model()(image, tile=tile, overlap=overlap, steps=4).astype(int)
    assert seam_excess(result, tile, overlap) < 0.25


@cache
def photo_in_one_tile() -> NDArray[Any]:
    with Image.open(EXAMPLE) as image:
        result = model()(image.convert("RGB"), tile=256, steps=4)
    return np.asarray(result).astype(int)


@pytest.mark.parametrize(("tile", "overlap"), TILES)
def test_on_a_photo_the_borders_of_tiles_are_lines_like_any_other(tile: int, overlap: int) -> None:
    """What the photo itself has at those lines shows in a result without tiles."""
    with Image.open(EXAMPLE) as image:
        result = np.asarray(model()(image.convert("RGB"), tile=tile, overlap=overlap, steps=4))
    score = seam_score(result.astype(int), tile, overlap)
    assert abs(score - seam_score(photo_in_one_tile(), tile, overlap)) < 1.5
