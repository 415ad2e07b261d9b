"""Damage of old photos, drawn over crops to learn from: what lies under it is unknown.

Scratches, strokes of a brush, dust, writing and blobs, each in random places, sizes and numbers.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from resshift_cli.restoration.prefill import prefilled

Canvas = ImageDraw.ImageDraw
Draw = Callable[[Canvas, int, np.random.Generator], None]

LEAST, MOST = 0.01, 0.2
"""Share of a crop that its damage covers; more is taken back by leaving off the last of it."""

_TRIES = 24  # pieces of damage at most
_LETTERS = string.ascii_letters + string.digits


def mask(side: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Damage of one crop, (side, side): true where it is unknown, a share between those above.

    One or two kinds of it, until it covers as much as was drawn.

    Args:
        side: of the crop, in pixels.
        rng: source of every random choice.
    """
    kinds = rng.choice(len(KINDS), size=int(rng.integers(1, 3)), replace=False)
    wanted = rng.uniform(LEAST, MOST / 2)
    found = np.zeros((side, side), dtype=bool)
    for _ in range(_TRIES):
        image = Image.fromarray(found.astype(np.uint8) * 255)
        KINDS[int(rng.choice(kinds))](ImageDraw.Draw(image), side, rng)
        more = np.asarray(image) > 127
        if more.mean() <= MOST:
            found = more
        if found.mean() >= wanted:
            break
    return found


def over(
    images: Tensor, share: float, rng: np.random.Generator, *, prefill: bool = False
) -> Tensor:
    """Images with a plane that tells where they are unknown, drawn over a share of them.

    Args:
        images: (N, 3, side, side) in [0, 1].
        share: of the images that are damaged, 0 to 1.
        rng: source of every random choice.
        prefill: see `ModelSpec`.

    Returns:
        (N, 4, side, side) in [0, 1]: the last plane is 1 where an image is unknown, and 0; in the
        others unknown pixels are 0, or what `prefilled` has there.
    """
    side = images.shape[-1]
    planes = []
    for _ in images:
        damaged = rng.random() < share
        planes.append(mask(side, rng) if damaged else np.zeros((side, side), dtype=bool))
    unknown = torch.from_numpy(np.stack(planes))[:, None]
    if prefill:
        images = prefilled(images * 2 - 1, unknown) / 2 + 0.5
    else:
        images = images.masked_fill(unknown, 0.0)
    return torch.cat([images, unknown.to(images)], dim=1)


def _scratch(canvas: Canvas, side: int, rng: np.random.Generator) -> None:
    """A long thin line, nearly straight, more often down than across, as of a film's guide."""
    at, along = rng.uniform(0, side), np.linspace(-0.1, 1.1, 9) * side
    first, last = np.sort(rng.choice(9, size=2, replace=False))
    sway = at + np.cumsum(rng.normal(0, side / 80, size=9)) + along * rng.normal(0, 0.15)
    points = np.stack([sway, along], axis=1)[first : last + 1]
    if rng.random() < 0.3:
        points = points[:, ::-1]
    _line(canvas, points, int(rng.integers(1, 5)))


def _stroke(canvas: Canvas, side: int, rng: np.random.Generator) -> None:
    """A wandering line with round ends, 3 to 12 pixels wide, now and then twice that."""
    width = int(rng.integers(3, 13)) * (2 if rng.random() < 0.2 else 1)
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.5, size=8))
    steps = np.stack([np.cos(heading), np.sin(heading)], axis=1)
    steps *= rng.uniform(0.04, 0.12, size=(8, 1)) * side
    points = rng.uniform(0, side, size=2) + np.cumsum(steps, axis=0)
    _line(canvas, points, width)
    for x, y in points:
        _disc(canvas, x, y, width / 2)


def _dust(canvas: Canvas, side: int, rng: np.random.Generator) -> None:
    """Specks of up to 6 pixels, and a hair among them."""
    for _ in range(int(rng.integers(5, 40))):
        (x, y), radius = rng.uniform(0, side, size=2), rng.uniform(0.5, 3)
        _disc(canvas, x, y, radius)
    turn = np.linspace(0, rng.uniform(1, 4), 12)
    hair = np.stack([np.cos(turn), np.sin(turn)], axis=1) * rng.uniform(0.05, 0.2) * side
    _line(canvas, rng.uniform(0, side, size=2) + hair, 1)


def _writing(canvas: Canvas, side: int, rng: np.random.Generator) -> None:
    """Some letters, as of a watermark or a date, 12 to 64 pixels high."""
    letters = "".join(rng.choice(list(_LETTERS), size=int(rng.integers(3, 12))))
    place = (int(rng.integers(-side // 4, side)), int(rng.integers(-8, side)))
    font, weight = _font(int(rng.integers(12, 65))), int(rng.integers(0, 3))
    canvas.text(place, letters, fill=255, font=font, stroke_width=weight)


def _blob(canvas: Canvas, side: int, rng: np.random.Generator) -> None:
    """A patch with a ragged edge, as where paper is torn off, up to a third of the side across."""
    turn = np.sort(rng.uniform(0, 2 * np.pi, size=12))
    radius = rng.uniform(0.03, 0.16) * side * rng.uniform(0.6, 1.0, size=12)
    around = rng.uniform(0, side, size=2)
    points = around + np.stack([np.cos(turn), np.sin(turn)], axis=1) * radius[:, None]
    canvas.polygon([(float(x), float(y)) for x, y in points], fill=255)


KINDS: tuple[Draw, ...] = (_scratch, _stroke, _dust, _writing, _blob)
"""What damage there is; each draws a piece of it in white."""


def _line(canvas: Canvas, points: NDArray[np.float64], width: int) -> None:
    canvas.line([(float(x), float(y)) for x, y in points], fill=255, width=width, joint="curve")


def _disc(canvas: Canvas, x: float, y: float, radius: float) -> None:
    canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
