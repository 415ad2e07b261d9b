"""Pictures side by side on one sheet."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from resshift_cli import atomic

GAP = 4  # pixels between pictures


def write(path: Path, rows: Sequence[Sequence[Tensor]]) -> None:
    """Write a PNG sheet.

    Args:
        path: the file.
        rows: pictures (1, 3, H, W) in about [0, 1]. Smaller ones are enlarged to the size of
            their row's last, pixel by pixel, so that they show what there is.

    Raises:
        OutputError: the file can't be written.
    """
    buffer = io.BytesIO()
    Image.fromarray(
        _stack([_stack([_levels(p, row[-1]) for p in row], 1) for row in rows], 0)
    ).save(buffer, "PNG")
    atomic.write(path, buffer.getvalue())


def _levels(picture: Tensor, like: Tensor) -> np.ndarray:
    shown = F.interpolate(picture.float(), like.shape[2:], mode="nearest")[0].clamp(0, 1) * 255
    return shown.round().byte().permute(1, 2, 0).cpu().numpy()


def _stack(pictures: list[np.ndarray], axis: int) -> np.ndarray:
    """Join them with white gaps between."""
    parts = [pictures[0]]
    for picture in pictures[1:]:
        gap = list(picture.shape)
        gap[axis] = GAP
        parts += [np.full(gap, 255, np.uint8), picture]
    return np.concatenate(parts, axis)
