"""A sheet of training crops beside their low-resolution partners, to look at before training."""

from __future__ import annotations

from itertools import count as numbers

from PIL import Image
from torch import Tensor

from resshift_cli.training import dataset, sheet
from resshift_cli.training.dataset import DataSpec
from resshift_cli.training.photos import Pictures
from resshift_cli.training.sheet import GAP, Cell

PAIRS = 12  # on a sheet for the eye
WIDE = 1100  # pixels that a sheet is at most wide, if one pair is not wider


def draw(pictures: Pictures, spec: DataSpec, seed: int, count: int) -> Image.Image:
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
    cells: list[Cell] = []
    for number in numbers():
        for hq, lq in zip(*dataset.make_batch(pictures, spec, seed, number), strict=True):
            name = len(cells) // 2 + 1
            cells += [(f"{name}: {_size(hq)}", hq), (_size(lq), lq[:3])]
        if len(cells) >= 2 * count:
            break
    cells = cells[: 2 * count]
    columns = 2 * min(max(WIDE // (2 * (spec.crop + GAP)), 1), count)
    return sheet.draw([cells[i : i + columns] for i in range(0, len(cells), columns)])


def _size(picture: Tensor) -> str:
    return f"{picture.shape[2]}x{picture.shape[1]}"
