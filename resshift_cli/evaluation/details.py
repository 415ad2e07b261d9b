"""The same detail of an image in every row of a comparison, side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from resshift_cli.errors import printable
from resshift_cli.evaluation.comparison import Study
from resshift_cli.evaluation.pairs import read_pair, to_tensor
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration.quality import luma

Levels = NDArray[np.uint8]

SIDE = 128  # pixels of the original
MOST = 8  # images that are shown
PARTNER, ORIGINAL = "low quality", "original"

ZOOM, GAP, LABEL = 2, 8, 20  # of the sheet: magnification, pixels between, and for a line of text


@dataclass(frozen=True, slots=True)
class Strip:
    """One image's detail: `cells` are titles and pixels (H, W, 3), all of one size.

    Attributes:
        place: left, top, width and height within what was measured.
    """

    name: str
    place: tuple[int, int, int, int]
    cells: list[tuple[str, Levels]]


def strips(study: Study) -> list[Strip]:
    """Details of images spread evenly over those measured.

    The place is where the original has most detail: the results have no say in it.
    """
    pairs = [pair for pair in study.pairs if pair.name not in study.left_out]
    count = min(MOST, len(pairs))
    scale = study.setup.scale
    found = []
    for pair in (pairs[number * len(pairs) // count] for number in range(count)):
        original, partner = read_pair(pair, study.setup)
        place = _busiest(original, scale)
        shown = np.repeat(np.repeat(partner, scale, axis=0), scale, axis=1)
        cells = [(PARTNER, shown)]
        cells += [(title, study.restored(pair, title)) for title in study.values]
        cells.append((ORIGINAL, original))
        found.append(Strip(pair.name, place, [(title, _cut(p, place)) for title, p in cells]))
    return found


def png(levels: Levels) -> bytes:
    """As a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def sheet(found: Sequence[Strip]) -> Image.Image:
    """All strips on one sheet, a line each, with titles."""
    font = ImageFont.load_default(LABEL * 0.6)
    cell = max(strip.place[2] for strip in found) * ZOOM
    lines = [strip.place[3] * ZOOM + 2 * LABEL + GAP for strip in found]
    count = len(found[0].cells)
    image = Image.new("RGB", (count * (cell + GAP) + GAP, sum(lines) + GAP), "white")
    draw = ImageDraw.Draw(image)
    top = GAP
    for strip, line in zip(found, lines, strict=True):
        draw.text((GAP, top), _short(strip.name, image.width - 2 * GAP, font), "black", font)
        for number, (title, levels) in enumerate(strip.cells):
            left = GAP + number * (cell + GAP)
            draw.text((left, top + LABEL), _short(title, cell, font), "black", font)
            size = (levels.shape[1] * ZOOM, levels.shape[0] * ZOOM)
            large = Image.fromarray(levels).resize(size, Image.Resampling.NEAREST)
            image.paste(large, (left, top + 2 * LABEL))
        top += line
    return image


def _short(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Text that can be drawn, cut to so many pixels."""
    text = printable(text)
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-4] + "..."
    return text


def _cut(pixels: Pixels, place: tuple[int, int, int, int]) -> Levels:
    left, top, width, height = place
    part = pixels[top : top + height, left : left + width]
    return np.rint(part.clip(0, 1) * 255).astype(np.uint8)


def _busiest(original: Pixels, scale: int) -> tuple[int, int, int, int]:
    """The square of most contrast between neighbours, on whole pixels of the partner."""
    height, width = original.shape[:2]
    tall, wide = (min(SIDE, length) // scale * scale for length in (height, width))
    y = luma(to_tensor(original))
    energy = F.pad(y.diff(dim=2).abs(), (0, 0, 0, 1)) + F.pad(y.diff(dim=3).abs(), (0, 1))
    means = F.avg_pool2d(energy, (tall, wide), stride=scale)[0, 0]
    row, column = divmod(int(means.argmax()), means.shape[1])
    return column * scale, row * scale, wide, tall
