"""Bicubic reduction and enlargement as the models know them, and Lanczos for every other size."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from resshift_cli.restoration.bands import Bands, Window

LOBES = 3  # of Lanczos' kernel, on either side


def reduced(image: Tensor, factor: int) -> Tensor:
    """A(image), the antialiased bicubic reduction of (N, C, H, W), as it is computed."""
    size = [side // factor for side in image.shape[-2:]]
    return F.interpolate(image, size, mode="bicubic", align_corners=False, antialias=True)


def shrink(image: Tensor, factor: int) -> Tensor:
    """The reduction of (N, C, H, W) in [0, 1] clipped and rounded to 8 bits, as files are."""
    return (reduced(image, factor).clamp(0, 1) * 255).round() / 255


def enlarge(image: Tensor, scale: int) -> Tensor:
    """Bicubic x`scale` of (N, C, h, w), as ResShift prepares its input: no antialiasing."""
    return F.interpolate(image, scale_factor=scale, mode="bicubic", align_corners=False)


def lanczos(bands: Iterable[Tensor], size: tuple[int, int], target: tuple[int, int]) -> Bands:
    """Resize an image; the result may overshoot.

    Args:
        bands: of the image, float32 (1, C, n, width) on the CPU.
        size: its height and width.
        target: those of the result.

    Yields:
        Bands of the result; the ones that were given if the sizes are equal.
    """
    if size == target:
        yield from bands
        return
    window = Window(bands)
    reader = window.reader()
    ratio = size[0] / target[0]
    reach = math.ceil(LOBES * max(ratio, 1.0)) + 1
    top = 0
    while window.take():
        bottom = target[0]
        if window.bottom < size[0]:
            bottom = math.floor((window.bottom - reach) / ratio)
        if bottom > top:
            first = max(math.floor(top * ratio) - reach, 0)
            last = min(math.ceil(bottom * ratio) + reach, size[0])
            box = (0.0, top * ratio - first, float(size[1]), bottom * ratio - first)
            yield _resized(reader.rows(first, last), (bottom - top, target[1]), box)
            reader.forget(max(math.floor(bottom * ratio) - reach, 0))
            top = bottom


def _resized(
    image: Tensor, target: tuple[int, int], box: tuple[float, float, float, float]
) -> Tensor:
    """A box (left, top, right, bottom) of (1, C, H, W); what is around it counts at its borders."""
    planes = [
        Image.fromarray(plane).resize(target[::-1], Image.Resampling.LANCZOS, box)
        for plane in image[0].contiguous().numpy()
    ]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))[None]
