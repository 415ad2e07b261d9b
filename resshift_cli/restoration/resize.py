"""Bicubic reduction and enlargement, as the models' low-quality images are made and prepared."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def shrink(image: Tensor, scale: int) -> Tensor:
    """Antialiased bicubic reduction of (N, C, H, W) in [0, 1]; rounded to 8 bits, as files are."""
    size = (image.shape[2] // scale, image.shape[3] // scale)
    small = F.interpolate(image, size, mode="bicubic", align_corners=False, antialias=True)
    return (small.clamp(0, 1) * 255).round() / 255


def enlarge(image: Tensor, scale: int) -> Tensor:
    """Bicubic x`scale` of (N, C, h, w), as ResShift prepares its input: no antialiasing."""
    return F.interpolate(image, scale_factor=scale, mode="bicubic", align_corners=False)
