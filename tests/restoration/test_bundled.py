"""What the bundled models promise, measured on pictures that they were not trained on."""

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

from resshift_cli.diffusion import specs
from resshift_cli.restoration import settings
from resshift_cli.restoration.quality import psnr_y, sharpness
from resshift_cli.restoration.resize import enlarge, shrink
from resshift_cli.restoration.tiling import Axis
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.system import digests
from resshift_cli.weights import checkpoint, registry

PHOTOS = Path(__file__).parents[1] / "photos"
GAIN = {"dragonfly": 0.8, "window": 1.5}  # dB, of means; over all held-out photos it is more
FAITHFUL: dict[str, dict[str, Any]] = {"tiny-x4": {"detail": 0}, "chain-x4": {"steps": 1}}
QUICK: dict[str, dict[str, Any]] = {"tiny-x4": {}, "chain-x4": {"steps": 2}}
every_model = pytest.mark.parametrize("name", ["tiny-x4", "chain-x4"])
EXAMPLE = Path(__file__).parents[2] / "examples" / "kitten.jpg"


@cache
def model(name: str, precision: str = "fp32") -> Upscaler:
    return Upscaler.from_pretrained(name, device="cpu", precision=precision)


def picture(name: str) -> Tensor:
    with Image.open(PHOTOS / f"{name}.png") as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


@cache
def restored(name: str, photo: str, **options: Any) -> Tensor:
    """A held-out photo, reduced and enlarged again."""
    return model(name)(shrink(picture(photo), 4), **options)


# The file


def test_the_files_are_small_and_say_what_they_are() -> None:
    total = 0
    for entry in registry.bundled():
        (source,) = entry.weights.sources
        assert isinstance(source, registry.BundledSource)
        assert digests.digest(source.path) == entry.weights.sha256
        total += source.path.stat().st_size
        spec = specs.read_spec(source.path)
        scale = 1 if entry.task == "mending" else 4
        assert (spec.scale, spec.predict, spec.schedule.steps) == (scale, "residual", 15)
        denoiser, _ = checkpoint.build(spec)
        assert 1e6 <= sum(p.numel() for p in denoiser.network.parameters()) <= 4.1e6
    assert total <= 16 << 20


@pytest.mark.parametrize(("name", "steps", "gigaflop"), [("tiny-x4", 1, 29), ("chain-x4", 15, 10)])
def test_a_call_costs_little(name: str, steps: int, gigaflop: float) -> None:
    network = model(name).denoiser.network
    count = network.spec.noise_channels
    planes = torch.zeros(1, count, 64, 64) if count else None
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 48, 64, 64), torch.tensor([14]), torch.zeros(1, 3, 64, 64), planes)
    assert counter.get_total_flops() <= gigaflop * 1e9
    assert model(name).spec.steps == steps


# Quality. The whole set of held-out photos is measured by scripts/measure_bars.py.


@every_model
@pytest.mark.parametrize("photo", ["dragonfly", "window"])
def test_the_posterior_mean_is_closer_to_the_original_than_bicubic(name: str, photo: str) -> None:
    original = picture(photo)
    bicubic = psnr_y(enlarge(shrink(original, 4), 4), original)
    assert psnr_y(restored(name, photo, **FAITHFUL[name]), original) > bicubic + GAIN[photo]


@every_model
def test_what_is_made_by_default_is_sharp_and_on_average_no_further_from_the_original(
    name: str,
) -> None:
    gains = []
    for photo in GAIN:
        original, result = picture(photo), restored(name, photo)
        bicubic = enlarge(shrink(original, 4), 4)
        gains.append(psnr_y(result, original) - psnr_y(bicubic, original))
        assert sharpness(result) > 3 * sharpness(bicubic)
        assert 0.5 * sharpness(original) < sharpness(result) < 1.1 * sharpness(original)
    assert np.mean(gains) > 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tiny-x4", {"detail": 0}),
        ("tiny-x4", {}),
        ("tiny-x4", {"detail": 1}),
        ("chain-x4", {"steps": 4}),
        ("chain-x4", {}),
    ],
)
def test_colours_stay(name: str, options: dict[str, Any]) -> None:
    lq, result = shrink(picture("window"), 4), restored(name, "window", **options)
    shift = (result.mean((2, 3)) - lq.mean((2, 3))).abs().max().item()
    assert shift < 1.5 / 255


@every_model
def test_the_latent_s_grid_does_not_show(name: str) -> None:
    """Each latent position makes a block of 4x4 pixels: block borders are lines like any other."""
    with Image.open(EXAMPLE) as image:
        part = image.convert("RGB").crop((60, 80, 124, 144))
    result = np.asarray(model(name)(part), dtype=float)
    for axis in (0, 1):
        profile = steps_along(result, axis)
        borders = profile[3::4].mean() / profile.mean()
        assert 0.95 < borders < 1.1


# Seams


def steps_along(image: NDArray[Any], axis: int) -> NDArray[Any]:
    """Mean absolute difference of each line to the next, by line."""
    return np.abs(np.diff(image.astype(float), axis=axis)).mean(axis=(1 - axis, 2))


def border_lines(
    name: str, image: NDArray[Any], tile: int, overlap: int
) -> tuple[list[int], list[int]]:
    """Where, in an enlarged image, tiles begin or end: as indices of `steps_along`, by axis."""
    spec = model(name).spec
    height, width = image.shape[0] // 4, image.shape[1] // 4
    chosen = settings.settings(spec, name=name, tile=tile, overlap=overlap)
    grid = settings.grid(spec, height, width, chosen)
    frame = settings.frame(spec, height, width, chosen)

    def lines(axis: Axis, first: int, length: int) -> list[int]:
        edges = {*axis.starts[1:], *(start + axis.size for start in axis.starts[:-1])}
        return sorted((edge - first) * 4 - 1 for edge in edges if 0 < edge - first < length)

    return lines(grid.rows, frame.top, height), lines(grid.columns, frame.left, width)


def seam_excess(name: str, image: NDArray[Any], tile: int, overlap: int) -> float:
    """How much larger steps are at the borders of tiles than elsewhere, in levels of 255."""
    excess = []
    for axis, lines in enumerate(border_lines(name, image, tile, overlap)):
        profile = steps_along(image, axis)
        excess += [profile[line] - np.median(profile) for line in lines]
    return float(max(excess))


def seam_score(name: str, image: NDArray[Any], tile: int, overlap: int) -> float:
    """The mean step at borders of tiles against as many random lines, in standard deviations.

    Every step is taken relative to those around it, since pictures are busier here than there,
    and the random lines are borders of latent positions, as those of tiles are.
    """
    borders: list[float] = []
    others: list[float] = []
    for axis, lines in enumerate(border_lines(name, image, tile, overlap)):
        profile = steps_along(image, axis)
        for line in range(11, len(profile) - 8, 4):
            around = np.median(profile[line - 8 : line + 9])
            (borders if line in lines else others).append(profile[line] / around)
    draws = np.random.default_rng(0).choice(others, size=(2000, len(borders)))
    return float((np.mean(borders) - draws.mean()) / draws.mean(axis=1).std())


@every_model
def test_the_seam_measures_find_a_seam(name: str) -> None:
    """Tiles that differ by two levels of 255 are found, in a flat picture and in a photo."""
    flat = np.full((600, 560, 3), 90)
    with Image.open(EXAMPLE) as image:
        photo = np.asarray(image.convert("RGB").resize((1024, 772), Image.Resampling.BICUBIC))
    assert seam_excess(name, with_seams(name, flat), 64, 16) > 0.25
    seamed = with_seams(name, photo)
    assert seam_score(name, seamed, 64, 16) - seam_score(name, photo, 64, 16) > 1.5


def with_seams(name: str, image: NDArray[Any]) -> NDArray[Any]:
    seamed = image.astype(float)
    for axis, lines in enumerate(border_lines(name, image, 64, 16)):
        for i, line in enumerate(lines):
            part = [slice(None)] * 2
            part[axis] = slice(line + 1, None)
            seamed[tuple(part)] += 2 * (-1) ** i
    return seamed


TILES = [(32, 8), (64, 16), (96, 8)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("name", "steps", "size"),
    [
        ("tiny-x4", 1, (40, 20)),
        ("chain-x4", 1, (20, 40)),
        ("chain-x4", 4, (14, 30)),
        ("chain-x4", 15, (12, 12)),
    ],
)
def test_what_is_flat_stays_flat_borders_included(
    name: str, steps: int, precision: str, size: tuple[int, int]
) -> None:
    for level in (0, 90, 200) if precision == "fp32" else (200,):  # bf16 takes its time here
        colour = np.array([level, 255 - level, 128], np.uint8)
        image = np.broadcast_to(colour, (*size, 3)).copy()
        result = model(name, precision)(image, steps=steps).astype(int)
        off = np.abs(result - colour)
        assert off.mean() <= 0.5
        assert off.max() <= 3


@every_model
@pytest.mark.parametrize(("tile", "overlap"), TILES)
def test_a_constant_image_comes_out_without_a_grid(name: str, tile: int, overlap: int) -> None:
    colour = np.array([0, 90, 255], np.uint8)
    image = np.broadcast_to(colour, (tile + 4, tile + 24, 3)).copy()
    result = model(name)(image, tile=tile, overlap=overlap, **QUICK[name]).astype(int)
    assert np.percentile(np.abs(result - colour), 99) <= 5
    assert np.sqrt(np.mean((result - colour) ** 2)) < 2
    assert seam_excess(name, result, tile, overlap) < 0.25


@every_model
@pytest.mark.parametrize(("tile", "overlap"), TILES)
def test_a_smooth_gradient_comes_out_without_a_grid(name: str, tile: int, overlap: int) -> None:
    down, across = np.linspace(-20, 20, tile + 4), np.linspace(30, 220, tile + 24)
    ramp = down[:, None, None] + across[None, :, None]
    image = np.repeat(ramp, 3, axis=2).round().astype(np.uint8)
    result = model(name)(image, tile=tile, overlap=overlap, **QUICK[name]).astype(int)
    assert seam_excess(name, result, tile, overlap) < 0.25


def kitten() -> Image.Image:
    """Of which tiles of 96 need two each way."""
    with Image.open(EXAMPLE) as image:
        return image.convert("RGB").crop((20, 20, 180, 140))


@cache
def kitten_in_one_tile(name: str) -> NDArray[Any]:
    return np.asarray(model(name)(kitten(), tile=256, **QUICK[name])).astype(int)


@every_model
@pytest.mark.parametrize(("tile", "overlap"), TILES)
def test_on_a_photo_the_borders_of_tiles_are_lines_like_any_other(
    name: str, tile: int, overlap: int
) -> None:
    """What the photo itself has at those lines shows in a result without tiles."""
    result = np.asarray(model(name)(kitten(), tile=tile, overlap=overlap, **QUICK[name]))
    score = seam_score(name, result.astype(int), tile, overlap)
    assert abs(score - seam_score(name, kitten_in_one_tile(name), tile, overlap)) < 1.5
