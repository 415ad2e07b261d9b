"""How close a restored image is to the original, and how sharp: figures of tensors.

Images are (1, 3, H, W) in [0, 1]. They are clipped and rounded to 8 bits first, as files are, and
everything after that is computed on the CPU in double precision.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, WINDOW_STD = 11, 1.5  # SSIM's Gaussian window, in pixels (Wang et al. 2004)
PEAK = 255.0
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2  # of the same paper


def luma(image: Tensor) -> Tensor:
    """ITU-R BT.601 luma of (N, 3, H, W) in [0, 1], in the studio range 16..235, of 255."""
    weights = image.new_tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True) + 16.0


def levels(image: Tensor) -> Tensor:
    """An image in [0, 1] on the 256 levels that a file has, in double precision."""
    return (image.clamp(0, 1) * 255).round().cpu().double() / 255


def psnr_y(image: Tensor, reference: Tensor, border: int = 4) -> float:
    """Peak signal-to-noise ratio of the luma in dB, without `border` pixels at each side."""
    return _psnr(*_inside(border, luma(levels(image)), luma(levels(reference))))


def psnr_rgb(image: Tensor, reference: Tensor, border: int = 4) -> float:
    """The same of the three channels together."""
    return _psnr(*_inside(border, levels(image) * PEAK, levels(reference) * PEAK))


def ssim_y(image: Tensor, reference: Tensor, border: int = 4) -> float:
    """Structural similarity of the luma, 1 for equal images, without `border` pixels at each side.

    SSIM(a, b) = (2 m_a m_b + C1) (2 s_ab + C2) / ((m_a^2 + m_b^2 + C1) (s_a^2 + s_b^2 + C2))

    with means m, variances s^2 and covariance s_ab under a Gaussian window of 11 pixels and
    standard deviation 1.5 (Wang et al., IEEE TIP 13(4), 2004), averaged over every place where
    the window fits.

    Raises:
        ValueError: it fits nowhere.
    """
    return _ssim(*_inside(border, luma(levels(image)), luma(levels(reference))))


def ssim_rgb(image: Tensor, reference: Tensor, border: int = 4) -> float:
    """The same, averaged over the three channels.

    Raises:
        ValueError: the window fits nowhere.
    """
    return _ssim(*_inside(border, levels(image) * PEAK, levels(reference) * PEAK))


def sharpness(image: Tensor) -> float:
    """Root mean square of the luma's Laplacian."""
    y = luma(levels(image))
    kernel = y.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    return F.conv2d(y, kernel.view(1, 1, 3, 3)).square().mean().sqrt().item()


def relative_sharpness(image: Tensor, reference: Tensor) -> float:
    """Sharpness in units of the original's; not a number where that is flat."""
    own = sharpness(reference)
    # A flat image's luma differs by rounding alone.
    return sharpness(image) / own if own > 1e-9 else math.nan


def colour_shift(image: Tensor, reference: Tensor) -> float:
    """The largest difference of a channel's mean from the original's, in levels of 255."""
    shift = (levels(image).mean((2, 3)) - levels(reference).mean((2, 3))).abs().max()
    return shift.item() * PEAK


def _inside(border: int, *images: Tensor) -> list[Tensor]:
    height, width = images[0].shape[2:]
    return [x[..., border : height - border, border : width - border] for x in images]


def _psnr(a: Tensor, b: Tensor) -> float:
    mse = (a - b).square().mean().item()
    return math.inf if mse == 0 else 10 * math.log10(PEAK**2 / mse)


def _ssim(a: Tensor, b: Tensor) -> float:
    if min(a.shape[2:]) < WINDOW:
        raise ValueError(f"an image of {tuple(a.shape[2:])} has no room for SSIM's window")
    offsets = torch.arange(WINDOW, dtype=a.dtype, device=a.device) - WINDOW // 2
    line = torch.exp(-0.5 * (offsets / WINDOW_STD) ** 2)
    line = (line / line.sum()).expand(a.shape[1], 1, 1, -1)

    def mean(x: Tensor) -> Tensor:
        across = F.conv2d(x, line, groups=x.shape[1])
        return F.conv2d(across, line.transpose(2, 3), groups=x.shape[1])

    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    return (likeness / ((mean_a**2 + mean_b**2 + C1) * (variances + C2))).mean().item()
