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
            their row, pixel by pixel, so that they show what there is. Words take as many lines as
            they need.
    """
    font = ImageFont.load_default(13)
    sizes = [tuple(max(p.shape[side] for _, p in row) for side in (1, 2)) for row in rows]
    told = [
        [_lines(words, size[1], font) for words, _ in row]
        for row, size in zip(rows, sizes, strict=True)
    ]
    heads = [LABEL * max(1, *(len(lines) for lines in cells)) for cells in told]
    width = max(len(row) * (w + GAP) for row, (_, w) in zip(rows, sizes, strict=True)) + GAP
    height = sum(h + head + GAP for (h, _), head in zip(sizes, heads, strict=True))
    page = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)
    y = 0
    for row, cells, size, head in zip(rows, told, sizes, heads, strict=True):
        x = GAP
        for (_, picture), lines in zip(row, cells, strict=True):
            for number, line in enumerate(lines):
                pen.text((x, y + number * LABEL + 2), line, "black", font)
            page.paste(_image(picture, size), (x, y + head))
            x += size[1] + GAP
        y += size[0] + head + GAP
    return page


def _lines(words: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Words in lines of so many pixels; a longer word has a line of its own."""
    lines: list[str] = []
    for word in words.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def save(path: Path, page: Image.Image) -> None:
    """Write a sheet as PNG, in place of what is there.

    Raises:
        OutputError: the file can't be written.
    """
    atomic.write(path, encoded(page))


def encoded(page: Image.Image) -> bytes:
    """A sheet as PNG."""
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()


def _image(picture: Tensor, size: tuple[int, ...]) -> Image.Image:
    shown = F.interpolate(picture[None].float(), size, mode="nearest")[0].clamp(0, 1) * 255
    return Image.fromarray(shown.round().byte().permute(1, 2, 0).cpu().numpy())
