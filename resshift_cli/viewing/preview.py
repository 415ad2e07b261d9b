"""One crop of a photo at settings to choose between, bicubic first."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration.size import target_size
from resshift_cli.training import sheet
from resshift_cli.viewing.exhibits import Exhibit

COLUMNS = 4
"""Most pictures side by side on a sheet."""


def bicubic(pixels: Pixels, scale: float) -> Pixels:
    """A crop (H, W, C) enlarged without a model, clipped to [0, 1]."""
    target = target_size(pixels.shape[0], pixels.shape[1], scale)
    image = _tensor(pixels)[None]
    large = F.interpolate(image, target, mode="bicubic", align_corners=False)[0]
    return np.ascontiguousarray(large.clamp(0, 1).permute(1, 2, 0).numpy())


def png(exhibits: Sequence[Exhibit]) -> bytes:
    """A sheet of crops as a PNG file, each under its title and facts; transparency is left out.

    Args:
        exhibits: of crops, in one colour space.
    """
    cells = []
    for one in exhibits:
        pixels = np.concatenate(list(one.rows))
        colour = pixels[..., :1] if pixels.shape[2] < 3 else pixels[..., :3]
        spread = np.array(np.broadcast_to(colour, (*colour.shape[:2], 3)))
        words = ", ".join([one.title, *(f"{name} {fact}" for name, fact in one.facts.items())])
        cells.append((words, _tensor(spread)))
    columns = min(COLUMNS, math.ceil(math.sqrt(len(cells))))
    rows = [cells[first : first + columns] for first in range(0, len(cells), columns)]
    icc = exhibits[0].icc
    if icc is not None and icc[16:20] != b"RGB ":
        icc = None  # of gray, which the sheet is not in
    buffer = io.BytesIO()
    sheet.draw(rows).save(buffer, "PNG", icc_profile=icc)
    return buffer.getvalue()


def _tensor(pixels: Pixels) -> Tensor:
    """(H, W, C) -> (C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
