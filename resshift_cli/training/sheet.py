"""Pictures side by side on one sheet, with a few words above each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from resshift_cli.system import atomic

GAP = 8  # pixels between pictures
LABEL = 20  # pixels for the words above a picture

Cell = tuple[str, Tensor]
"""Words, and a picture (3, H, W) in about [0, 1]."""


def draw(rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """Draw a sheet, RGB on white.

    Args:
        rows: what stands side by side. Smaller pictures are enlarged to the size of the largest of
            their row, pixel by pixel, so that they show what there is.
    """
    sizes = [tuple(max(p.shape[side] for _, p in row) for side in (1, 2)) for row in rows]
    width = max(len(row) * (w + GAP) for row, (_, w) in zip(rows, sizes, strict=True)) + GAP
    page = Image.new("RGB", (width, sum(h + LABEL + GAP for h, _ in sizes)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    y = 0
    for row, size in zip(rows, sizes, strict=True):
        x = GAP
        for words, picture in row:
            pen.text((x, y + 2), words, "black", font)
            page.paste(_image(picture, size), (x, y + LABEL))
            x += size[1] + GAP
        y += size[0] + LABEL + GAP
    return page


def save(path: Path, page: Image.Image) -> None:
    """Write a sheet as PNG.

    Raises:
        OutputError: the file can't be written.
    """
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    atomic.write(path, buffer.getvalue())


def _image(picture: Tensor, size: tuple[int, ...]) -> Image.Image:
    shown = F.interpolate(picture[None].float(), size, mode="nearest")[0].clamp(0, 1) * 255
    return Image.fromarray(shown.round().byte().permute(1, 2, 0).cpu().numpy())
