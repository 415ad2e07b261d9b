"""Bicubic reduction and enlargement as the models know them, and Lanczos for every other size."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from resshift_cli.restoration.bands import Bands, Window, framed
from resshift_cli.restoration.tiling import Frame

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


def lanczos(
    bands: Iterable[Tensor], size: tuple[int, int], target: tuple[int, int], wrap: str = "none"
) -> Bands:
    """Resize an image; the result may overshoot.

    Args:
        bands: of the image, float32 (1, C, n, width) on the CPU.
        size: its height and width.
        target: those of the result.
        wrap: `x` or `y` or both, along which the image begins anew where it ends.

    Yields:
        Bands of the result; the ones that were given if the sizes are equal.
    """
    if size == target:
        yield from bands
        return
    ratio = size[0] / target[0]
    reach = math.ceil(LOBES * max(ratio, 1.0)) + 1
    above = reach if "y" in wrap else 0
    beside = math.ceil(LOBES * max(size[1] / target[1], 1.0)) + 1 if "x" in wrap else 0
    height = size[0] + 2 * above
    if above or beside:
        around = Frame(above, beside, height, size[1] + 2 * beside, wrap)
        bands = framed(bands, size[0], around)
    window = Window(bands)
    reader = window.reader()
    top = 0
    while window.take():
        bottom = target[0]
        if window.bottom < height:
            bottom = min(math.floor((window.bottom - above - reach) / ratio), target[0])
        if bottom > top:
            first = max(math.floor(top * ratio) + above - reach, 0)
            last = min(math.ceil(bottom * ratio) + above + reach, height)
            upper, lower = (row * ratio + above - first for row in (top, bottom))
            box = (float(beside), upper, float(beside + size[1]), lower)
            yield _resized(reader.rows(first, last), (bottom - top, target[1]), box)
            reader.forget(max(math.floor(bottom * ratio) + above - reach, 0))
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
