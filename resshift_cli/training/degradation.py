"""Sharp images -> low-resolution partners, to train on and to measure with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from resshift_cli.restoration.resize import shrink
from resshift_cli.training import realistic
from resshift_cli.training.realistic import RealisticSpec, jpeg


@dataclass(frozen=True, slots=True)
class BicubicSpec:
    """Antialiased bicubic reduction alone."""

    kind: Literal["bicubic"] = "bicubic"

    @property
    def problem(self) -> str | None:
        """What is wrong with the numbers, if anything."""
        return None


@dataclass(frozen=True, slots=True)
class MildSpec:
    """A mildly realistic degradation; `share` of the pictures get it, the others stay clean.

    Attributes:
        share: fraction of pictures degraded beyond the bicubic reduction, 0..1.
        blur: largest Gaussian standard deviation, in high-resolution pixels.
        noise: largest noise standard deviation, in 8-bit levels of the low-resolution image.
        jpeg: lowest and highest JPEG quality.
        noisy: fraction of the degraded ones that get noise, 0..1; photos without any are as common
            as those with, and what is to be left alone has to be seen.
        faintest: least noise standard deviation; below it, good photos have noise of their own.
    """

    share: float
    blur: float
    noise: float
    jpeg: tuple[int, int]
    noisy: float = 1.0
    faintest: float = 0.0
    kind: Literal["mild"] = "mild"

    @property
    def problem(self) -> str | None:
        """What is wrong with the numbers, if anything."""
        if not 1 <= self.jpeg[0] <= self.jpeg[1] <= 100:
            return "degrade.jpeg must be two rising qualities within 1..100"
        if min(self.blur, self.noise) < 0:
            return "degrade.blur and degrade.noise can't be negative"
        if not 0 <= self.noisy <= 1:
            return "degrade.noisy must be within 0..1"
        if not 0 <= self.faintest <= self.noise:
            return "degrade.faintest must be within 0 and degrade.noise"
        return None


Degradation = BicubicSpec | MildSpec | RealisticSpec


def degrade(image: Tensor, scale: int, spec: Degradation, rng: np.random.Generator) -> Tensor:
    """Make the low-resolution partner of one picture.

    Args:
        image: (1, 3, H, W) in [0, 1].
        scale: reduction along each side; H and W are multiples of it.
        spec: the kind of degradation, and how strong it is.
        rng: source of every random choice.

    Returns:
        (1, 3, H // scale, W // scale) in [0, 1], rounded to 8 bits; the same for any number of
        threads.
    """
    with _one_thread():
        if isinstance(spec, BicubicSpec):
            return shrink(image, scale)
        if isinstance(spec, RealisticSpec):
            return realistic.degrade(image, scale, spec, rng)
        return _degrade_mildly(image, scale, spec, rng)


def grainy(image: Tensor, most: float, rng: np.random.Generator) -> Tensor:
    """Half of all pictures with faint noise of their own, as good photos have it.

    Some of it is gray, and neighbours are alike to some degree, as a camera leaves them.

    Args:
        image: (1, 3, H, W) in [0, 1].
        most: largest standard deviation of the noise, in 8-bit levels.
        rng: source of every random choice.

    Returns:
        Likewise, rounded to 8 bits.
    """
    if rng.random() < 0.5:
        return image
    noise = _noise(image.shape, 0.5, rng)
    with _one_thread():
        grain = _blur(noise, rng.uniform(0.0, 0.8))
        grain *= rng.uniform(0.0, most) / 255 / grain.std()
        return ((image + grain).clamp(0, 1) * 255).round() / 255


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread, since with more the results differ in their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _degrade_mildly(image: Tensor, scale: int, spec: MildSpec, rng: np.random.Generator) -> Tensor:
    """Blur, shrink, add noise and compress, each by a random amount."""
    if rng.random() >= spec.share:
        return shrink(image, scale)
    small = shrink(_blur(image, rng.uniform(0.0, spec.blur)), scale)
    std = rng.uniform(spec.faintest, spec.noise) / 255
    if spec.noisy < 1 and rng.random() >= spec.noisy:
        std = 0.0
    small = (small + std * _noise(small.shape, 0.3, rng)).clamp(0, 1)
    if rng.random() < 0.75:
        quality = int(rng.integers(spec.jpeg[0], spec.jpeg[1] + 1))
        small = jpeg(small, quality, full_chroma=rng.random() < 0.5)
    return (small * 255).round() / 255


def _noise(shape: tuple[int, ...], gray: float, rng: np.random.Generator) -> Tensor:
    """Gaussian noise of deviation 1; a share is of luminance alone, as in a gray scan."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    if rng.random() < gray:
        noise = np.broadcast_to(noise[:, :1], shape)
    return torch.from_numpy(np.ascontiguousarray(noise))


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
