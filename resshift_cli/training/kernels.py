"""Blur kernels of the realistic degradation: Gaussian, generalised, plateau-shaped and sinc.

The shapes are those of "Designing a Practical Degradation Model" (arXiv 2103.14006, section 3.1)
and of Real-ESRGAN (arXiv 2107.10833, sections 3.1 to 3.3). A kernel is (size, size), float64,
symmetric about its middle, and sums to 1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

Kernel = NDArray[np.float64]


def gaussian(size: int, sigmas: tuple[float, float], turn: float, beta: float = 1.0) -> Kernel:
    """exp(-d^beta / 2), where d is the squared distance in standard deviations.

    Args:
        size: odd side in pixels.
        sigmas: standard deviations along the two axes, in pixels.
        turn: angle from the horizontal to the first axis, in radians.
        beta: 1 for a Gaussian; less gives heavier tails, more a flatter top.
    """
    return _normalised(np.exp(-0.5 * _distance(size, sigmas, turn) ** beta))


def plateau(size: int, sigmas: tuple[float, float], turn: float, beta: float) -> Kernel:
    """1 / (1 + d^beta): flat in the middle, with long tails. Arguments as for `gaussian`."""
    return _normalised(1 / (1 + _distance(size, sigmas, turn) ** beta))


def sinc(size: int, cutoff: float) -> Kernel:
    """The ideal low pass with a circular cutoff, cut off at `size`: it rings at edges.

    Args:
        size: odd side in pixels.
        cutoff: in radians per pixel, up to pi.
    """
    x, y = _grid(size)
    radius = np.hypot(x, y)
    radius[size // 2, size // 2] = 1.0  # replaced below by the limit
    bessel = torch.special.bessel_j1(torch.from_numpy(cutoff * radius)).numpy()
    kernel: Kernel = cutoff * bessel / (2 * math.pi * radius)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    return _normalised(kernel)


def _grid(size: int) -> tuple[Kernel, Kernel]:
    y, x = np.mgrid[:size, :size].astype(np.float64) - size // 2
    return x, y


def _distance(size: int, sigmas: tuple[float, float], turn: float) -> Kernel:
    """Squared distance from the middle, in standard deviations."""
    x, y = _grid(size)
    along = (x * math.cos(turn) + y * math.sin(turn)) / sigmas[0]
    across = (y * math.cos(turn) - x * math.sin(turn)) / sigmas[1]
    return along**2 + across**2


def _normalised(kernel: Kernel) -> Kernel:
    return kernel / kernel.sum()
