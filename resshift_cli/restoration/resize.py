"""Bicubic reduction and enlargement, as the models' low-quality images are made and prepared."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


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
