"""Sharp images -> low-resolution partners, for training and evaluation."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DegradeSpec:
    """A mildly realistic degradation; `share` of the pictures get it, the others stay clean.

    Attributes:
        share: fraction of pictures degraded beyond the bicubic reduction, 0..1.
        blur: largest Gaussian standard deviation, in high-resolution pixels.
        noise: largest noise standard deviation, in 8-bit levels of the low-resolution image.
        jpeg: lowest and highest JPEG quality.
    """

    share: float
    blur: float
    noise: float
    jpeg: tuple[int, int]


def shrink(image: Tensor, scale: int) -> Tensor:
    """Antialiased bicubic reduction of (N, C, H, W) in [0, 1]; rounded to 8 bits, as files are."""
    size = (image.shape[2] // scale, image.shape[3] // scale)
    small = F.interpolate(image, size, mode="bicubic", align_corners=False, antialias=True)
    return (small.clamp(0, 1) * 255).round() / 255


def enlarge(image: Tensor, scale: int) -> Tensor:
    """Bicubic x`scale` of (N, C, h, w), as ResShift prepares its input: no antialiasing."""
    return F.interpolate(image, scale_factor=scale, mode="bicubic", align_corners=False)


def degrade(image: Tensor, scale: int, spec: DegradeSpec, rng: np.random.Generator) -> Tensor:
    """Blur, shrink, add noise and compress one picture, each by a random amount.

    Args:
        image: (1, 3, H, W) in [0, 1].
        scale: reduction along each side; H and W are multiples of it.
        spec: how strong.
        rng: source of every random choice.

    Returns:
        (1, 3, H / scale, W / scale) in [0, 1], rounded to 8 bits.
    """
    if rng.random() >= spec.share:
        return shrink(image, scale)
    small = shrink(_blur(image, rng.uniform(0.0, spec.blur)), scale)
    std = rng.uniform(0.0, spec.noise) / 255
    noise = rng.standard_normal(small.shape, dtype=np.float32)
    if rng.random() < 0.3:  # luminance noise, as in a gray scan
        noise = np.broadcast_to(noise[:, :1], small.shape)
    small = (small + std * torch.from_numpy(np.ascontiguousarray(noise))).clamp(0, 1)
    if rng.random() < 0.75:
        small = _jpeg(small, int(rng.integers(spec.jpeg[0], spec.jpeg[1] + 1)), rng.random() < 0.5)
    return (small * 255).round() / 255


def _blur(image: Tensor, std: float) -> Tensor:
    if std < 0.2:
        return image
    radius = int(3 * std) + 1
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / std) ** 2)
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, 1, -1)
    image = F.pad(image, (radius, radius, radius, radius), mode="reflect")
    image = F.conv2d(image, kernel, groups=image.shape[1])
    return F.conv2d(image, kernel.transpose(2, 3), groups=image.shape[1])


def _jpeg(image: Tensor, quality: int, full_chroma: bool) -> Tensor:
    levels = (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels).save(
        buffer, "JPEG", quality=quality, subsampling=0 if full_chroma else 2
    )
    with Image.open(buffer) as decoded:
        return torch.from_numpy(np.array(decoded)).permute(2, 0, 1)[None].float() / 255


def pick_crop(image: Pixels, size: int, tries: int, rng: np.random.Generator) -> Pixels:
    """The most detailed of a few random (size, size, 3) crops of (H, W, 3), flipped and turned.

    Most of a photo is sky and blur: detail is where a network has something to learn.
    """
    crops = []
    for _ in range(tries):
        y = rng.integers(image.shape[0] - size + 1)
        x = rng.integers(image.shape[1] - size + 1)
        crops.append(image[y : y + size, x : x + size])
    best = max(crops, key=_detail)
    best = np.rot90(best, int(rng.integers(4)))
    return best[:, ::-1] if rng.random() < 0.5 else best


def _detail(crop: Pixels) -> float:
    green = crop[::2, ::2, 1].astype(np.float32)
    return float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())
