"""How real results look as a population: the kernel distance between patches of them and of photos.

Unlike a distance between pairs, it does not punish detail that is real but elsewhere.

Patches are 64x64 pixels, side by side. Of each there are the means and deviations of every channel
of `features.FeatureNetwork` at 1/2, 1/4 and 1/8 of the size, standardised by those of the
originals. The distance is the unbiased estimate of the squared maximum mean discrepancy with the
kernel (a.b / d + 1)^3 (KID: Binkowski et al., arXiv:1801.01401), added up over the three
resolutions. 0 is what cannot be told from the originals; as an estimate it may be a little below.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from resshift_cli.restoration.features import CHANNELS, FeatureNetwork

PATCH = 64  # pixels a side
RESOLUTIONS = 3
_SPREAD = 1e-6  # added to deviations, of which some may be 0
_AT_ONCE = 64  # patches that the network is shown
_ROWS = 1024  # of a table of kernels, which are held at a time

Patches = list[Tensor]
"""By resolution: float64 (patches, 2 C), means and deviations."""


def cut(images: Tensor) -> Tensor:
    """Whole patches, row by row, of (N, 3, H, W): (patches, 3, 64, 64)."""
    rows, columns = images.shape[2] // PATCH, images.shape[3] // PATCH
    whole = images[..., : rows * PATCH, : columns * PATCH]
    tiled = whole.reshape(len(images), 3, rows, PATCH, columns, PATCH)
    return tiled.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


@torch.inference_mode()
def describe(network: FeatureNetwork, patches: Tensor) -> Patches:
    """What the distance is told of patches (N, 3, 64, 64) in [0, 1]; N may be 0."""
    if len(patches) == 0:
        return [torch.zeros(0, 2 * width).double() for width in CHANNELS[:RESOLUTIONS]]
    return join([_described(network, part) for part in torch.split(patches, _AT_ONCE)])


def _described(network: FeatureNetwork, patches: Tensor) -> Patches:
    found = network(patches, stages=RESOLUTIONS)
    return [torch.cat([x.mean((2, 3)), x.std((2, 3))], 1).cpu().double() for x in found]


def join(parts: Sequence[Patches]) -> Patches:
    """Patches of several images as one population."""
    return [torch.cat(same) for same in zip(*parts, strict=True)]


def distance(results: Patches, originals: Patches) -> float:
    """See above.

    Args:
        results: at least two patches.
        originals: likewise; which patch belongs to which does not matter.
    """
    total = 0.0
    for found, real in zip(results, originals, strict=True):
        mean, deviation = real.mean(0), real.std(0) + _SPREAD
        total += _kernel_distance((found - mean) / deviation, (real - mean) / deviation)
    return total


def _kernel_distance(x: Tensor, y: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy between (n, d) and (m, d)."""
    n, m = len(x), len(y)
    within = _others(x) / (n * (n - 1)) + _others(y) / (m * (m - 1))
    return within - 2 * _sum_of_kernels(x, y) / (n * m)


def _others(x: Tensor) -> float:
    """Sum of kernels of different rows."""
    own = (x.square().sum(1) / x.shape[1] + 1) ** 3
    return _sum_of_kernels(x, x) - own.sum().item()


def _sum_of_kernels(x: Tensor, y: Tensor) -> float:
    return sum(((part @ y.T / x.shape[1] + 1) ** 3).sum().item() for part in torch.split(x, _ROWS))
