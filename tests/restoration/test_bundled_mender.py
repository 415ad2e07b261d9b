"""What the bundled `tiny-x1` promises, measured on pictures that it was not trained on.

The whole set of held-out photos is measured by scripts/measure_mending.py.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from resshift_cli.restoration.inpainter import Inpainter
from resshift_cli.restoration.restorer import Restorer

Photo = NDArray[np.uint8]
Unknown = NDArray[np.bool_]

PHOTOS = Path(__file__).parents[1] / "photos"
every_photo = pytest.mark.parametrize("name", ["dragonfly", "window"])


@cache
def restorer() -> Restorer:
    return Restorer.from_pretrained("tiny-x1", device="cpu", precision="fp32")


@cache
def inpainter() -> Inpainter:
    return Inpainter.from_pretrained("tiny-x1", device="cpu", precision="fp32")


def photo(name: str) -> Photo:
    with Image.open(PHOTOS / f"{name}.png") as image:
        return np.array(image.convert("RGB"))


def saved(image: Photo, quality: int) -> Photo:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def noisy(image: Photo, std: float) -> Photo:
    noise = np.random.default_rng(0).normal(0, std, image.shape)
    return np.rint((image + noise).clip(0, 255)).astype(np.uint8)


def scratched(image: Photo) -> Unknown:
    """Lines of 3 to 9 pixels across a photo, a few letters among them."""
    canvas = Image.new("L", image.shape[1::-1])
    draw = ImageDraw.Draw(canvas)
    for number, width in enumerate((3, 5, 9)):
        draw.line([(20 + 70 * number, 0), (80 + 60 * number, 255)], 255, width)
    draw.text((30, 120), "1968", 255, font_size=56)
    return np.asarray(canvas) > 127


def psnr(result: NDArray[Any], original: NDArray[Any]) -> float:
    return float(-10 * np.log10(np.mean((result.astype(float) - original) ** 2) / 255**2))


@every_photo
def test_noise_and_artefacts_are_taken_away(name: str) -> None:
    original = photo(name)
    for damaged, gain in (
        (saved(noisy(original, 8), 60), 1.0),
        (noisy(original, 12), 4.5),
        (saved(original, 35), 0.3),
    ):
        assert psnr(restorer()(damaged), original) > psnr(damaged, original) + gain


@every_photo
def test_half_of_the_strength_is_half_of_the_change(name: str) -> None:
    damaged = noisy(photo(name), 12)
    whole, half = (restorer()(damaged, strength=x).astype(float) for x in (1.0, 0.5))
    assert np.abs((half - damaged) - (whole - damaged) / 2).max() <= 1


@every_photo
def test_a_clean_photo_stays_what_it_was(name: str) -> None:
    clean = saved(photo(name), 95)
    assert psnr(restorer()(clean), photo(name)) > psnr(clean, photo(name)) - 0.2


@every_photo
def test_faint_grain_of_a_photo_stays(name: str) -> None:
    """Gray, which is farthest from what a sensor's colours have, and most like noise."""
    grain = np.random.default_rng(0).normal(0, 2.5, (*photo(name).shape[:2], 1))
    original = np.rint((photo(name) + grain).clip(0, 255)).astype(np.uint8)
    clean = saved(original, 95)
    assert psnr(restorer()(clean), original) > psnr(clean, original) - 0.1


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (90, 165, 128)])
def test_what_is_flat_stays_flat_borders_included(colour: tuple[int, int, int]) -> None:
    image = np.full((40, 52, 3), colour, np.uint8)
    assert np.abs(restorer()(image).astype(int) - image).max() <= 1


@every_photo
def test_scratches_and_letters_are_filled_nearer_to_the_original_than_by_opencv(name: str) -> None:
    original = photo(name)
    hole = scratched(original)
    damaged = np.where(hole[..., None], np.uint8(0), original)
    filled = inpainter()(damaged, hole)
    assert (filled[~hole] == original[~hole]).all()
    flags = (cv2.INPAINT_TELEA, cv2.INPAINT_NS)
    others = [cv2.inpaint(damaged, hole.astype(np.uint8), 5, flag) for flag in flags]
    best = max(psnr(other[hole], original[hole]) for other in others)
    assert psnr(filled[hole], original[hole]) > best + 1.0


@every_photo
def test_tiles_don_t_show(name: str) -> None:
    damaged = noisy(photo(name), 12)
    apart = restorer()(damaged, tile=128).astype(int) - restorer()(damaged, tile=256)
    inner = apart[8:-8, 8:-8]  # a photo is grown by more for larger tiles, which its corners show
    assert np.abs(inner).max() <= 6 and np.sqrt(np.mean(inner**2)) < 0.6
