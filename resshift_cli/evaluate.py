"""How close a restored image is to the original, and how sharp."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def luma(image: Tensor) -> Tensor:
    """ITU-R BT.601 luma of (N, 3, H, W) in [0, 1], in the studio range 16..235, of 255."""
    weights = torch.tensor([65.481, 128.553, 24.966], device=image.device).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True) + 16.0


def psnr_y(image: Tensor, reference: Tensor, border: int = 4) -> float:
    """Peak signal-to-noise ratio of the luma in dB, without `border` pixels at each side.

    Both are (1, 3, H, W) in [0, 1], and rounded to 8 bits first, as files are.
    """
    height, width = reference.shape[2:]
    crop = (..., slice(border, height - border), slice(border, width - border))
    a, b = (luma((x.clamp(0, 1) * 255).round() / 255)[crop] for x in (image, reference))
    mse = torch.mean((a - b) ** 2).item()
    return float("inf") if mse == 0 else 10 * math.log10(255.0**2 / mse)


def sharpness(image: Tensor) -> float:
    """Root mean square of the luma's Laplacian; (1, 3, H, W) in [0, 1]."""
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    y = luma((image.clamp(0, 1) * 255).round() / 255)
    return F.conv2d(y, kernel.view(1, 1, 3, 3).to(image.device)).square().mean().sqrt().item()
