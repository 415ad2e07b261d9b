"""A sheet of training crops beside their low-resolution partners, to look at before training."""

from __future__ import annotations

from itertools import count as numbers

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from resshift_cli import dataset
from resshift_cli.dataset import DataSpec
from resshift_cli.photos import Pictures

PAIRS = 12  # on a sheet for the eye
GAP = 8  # pixels between pictures
LABEL = 20  # pixels for the words above a picture
WIDE = 1100  # pixels that a sheet is at most wide, if one pair is not wider


def sheet(pictures: Pictures, spec: DataSpec, seed: int, count: int) -> Image.Image:
    """The first pairs that a run with this seed trains on.

    Args:
        pictures: what crops are cut from.
        spec: how, and how partners are made.
        seed: of the run.
        count: pairs, at least 1.

    Returns:
        An RGB image: each crop, and right of it its partner, whose pixels are shown as squares.

    Raises:
        ImageUnreadableError: a picture is damaged.
    """
    pairs: list[tuple[Tensor, Tensor]] = []
    for number in numbers():
        sharp, blurry = dataset.make_batch(pictures, spec, seed, number)
        pairs += zip(sharp, blurry, strict=True)
        if len(pairs) >= count:
            break
    cell = 2 * (spec.crop + GAP)
    columns = min(max(WIDE // cell, 1), count)
    rows = -(-count // columns)
    page = Image.new("RGB", (columns * cell + GAP, rows * (spec.crop + LABEL + GAP)), "white")
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(13)
    for number, (hq, lq) in enumerate(pairs[:count]):
        x = GAP + number % columns * cell
        y = number // columns * (spec.crop + LABEL + GAP)
        names = (f"{number + 1}: HQ, {_size(hq)}", f"LQ, {_size(lq)}, x{spec.scale}")
        for name, picture in zip(names, (hq, lq), strict=True):
            draw.text((x, y + 2), name, "black", font)
            page.paste(_image(picture, spec.crop), (x, y + LABEL))
            x += spec.crop + GAP
    return page


def _size(picture: Tensor) -> str:
    return f"{picture.shape[2]}x{picture.shape[1]}"


def _image(picture: Tensor, side: int) -> Image.Image:
    shown = F.interpolate(picture[None], (side, side), mode="nearest")[0]
    levels = (shown.permute(1, 2, 0) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.numpy())
