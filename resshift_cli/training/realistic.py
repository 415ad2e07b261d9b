"""The two-stage degradation that the real-world models were trained with.

Blur, resize, noise and JPEG, then with some probability all but the JPEG again, then the final
size, a sinc filter and JPEG: "high-order degradation" of Real-ESRGAN (arXiv 2107.10833, section 3).
The numbers are, as we remember them, those of the ResShift models; they could not be compared. It
goes by one picture: each draws its own kernels, sizes and noise, and JPEG is a real encoder's.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from resshift_cli.training import kernels
from resshift_cli.training.kernels import Kernel

# Shapes of blur, in the order of `StageSpec.shapes`.
SHAPES = (
    "iso",
    "aniso",
    "generalised_iso",
    "generalised_aniso",
    "plateau_iso",
    "plateau_aniso",
)
FILTERS = ("area", "bilinear", "bicubic")  # of resizing, equally likely, without antialiasing

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One round of blur, resize and noise. Shares are probabilities, ranges are drawn evenly.

    Attributes:
        blur: share of pictures blurred.
        sizes: odd sides of the kernels, equally likely.
        sinc: share of sinc filters among the kernels.
        shapes: shares of the other kernels, in the order of `SHAPES`.
        sigma: range of standard deviations, in pixels.
        generalised_beta: range of the exponent of generalised Gaussians.
        plateau_beta: range of the exponent of plateaus.
        resize: shares of enlarging, reducing and keeping the size.
        resize_range: smallest and largest factor of the size.
        gaussian: share of Gaussian noise; the others get Poisson noise.
        noise: range of the standard deviation of Gaussian noise, in 8-bit levels.
        poisson: range of the strength of Poisson noise, see `add_poisson`.
        gray: share of noise that is the same in all channels.
    """

    blur: float
    sizes: tuple[int, ...]
    sinc: float
    shapes: tuple[float, float, float, float, float, float]
    sigma: Range
    generalised_beta: Range
    plateau_beta: Range
    resize: tuple[float, float, float]
    resize_range: Range
    gaussian: float
    noise: Range
    poisson: Range
    gray: float

    def problems(self) -> Iterator[str]:
        """What is wrong with the numbers."""
        yield from self._wrong_shares()
        yield from self._wrong_ranges()
        if not self.resize_range[0] <= 1 <= self.resize_range[1]:
            yield "resize_range must hold 1"
        if not self.sizes or any(size < 1 or size % 2 == 0 for size in self.sizes):
            yield "sizes must be odd"

    def _wrong_shares(self) -> Iterator[str]:
        for name in ("blur", "sinc", "gaussian", "gray"):
            if not 0 <= getattr(self, name) <= 1:
                yield f"{name} must be within 0..1"
        for name in ("shapes", "resize"):
            shares = getattr(self, name)
            if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
                yield f"{name} must be shares that sum to 1"

    def _wrong_ranges(self) -> Iterator[str]:
        for name in ("noise", "poisson"):
            if not 0 <= getattr(self, name)[0] <= getattr(self, name)[1]:
                yield f"{name} must be two rising numbers from 0 on"
        for name in ("sigma", "generalised_beta", "plateau_beta", "resize_range"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                yield f"{name} must be two rising numbers above 0"


FIRST = StageSpec(
    blur=1.0,
    sizes=(3, 5, 7, 9, 11, 13, 15, 17, 19),
    sinc=0.1,
    shapes=(0.45, 0.25, 0.12, 0.03, 0.12, 0.03),
    sigma=(0.2, 3.0),
    generalised_beta=(0.5, 4.0),
    plateau_beta=(1.0, 2.0),
    resize=(0.2, 0.7, 0.1),
    resize_range=(0.15, 1.5),
    gaussian=0.5,
    noise=(1.0, 30.0),
    poisson=(0.05, 3.0),
    gray=0.4,
)
SECOND = StageSpec(
    blur=0.8,
    sizes=(3, 5, 7, 9, 11, 13),
    sinc=0.1,
    shapes=FIRST.shapes,
    sigma=(0.2, 1.5),
    generalised_beta=(0.5, 4.0),
    plateau_beta=(1.0, 2.0),
    resize=(0.3, 0.4, 0.3),
    resize_range=(0.3, 1.2),
    gaussian=0.5,
    noise=(1.0, 25.0),
    poisson=(0.05, 2.5),
    gray=0.4,
)


@dataclass(frozen=True, slots=True)
class RealisticSpec:
    """The whole pipeline; the defaults are those of the published models, as we remember them.

    Attributes:
        first: the first stage, which ends with a JPEG.
        second_share: share of pictures that go through the second stage.
        second: the second stage; its sizes are relative to the low-resolution picture.
        first_jpeg: lowest and highest quality of the first stage's JPEG.
        final_sinc: share of pictures that get a sinc filter at the end.
        final_sizes: odd sides of that filter, equally likely.
        final_jpeg: lowest and highest quality of the last JPEG.
    """

    first: StageSpec = FIRST
    second_share: float = 0.5
    second: StageSpec = SECOND
    first_jpeg: tuple[int, int] = (30, 95)
    final_sinc: float = 0.8
    final_sizes: tuple[int, ...] = (3, 5, 7, 9, 11, 13)
    final_jpeg: tuple[int, int] = (30, 95)
    kind: Literal["realistic"] = "realistic"

    @property
    def problem(self) -> str | None:
        """What is wrong with the numbers, if anything."""
        for name in ("first", "second"):
            for problem in getattr(self, name).problems():
                return f"degrade.{name}.{problem}"
        for name in ("second_share", "final_sinc"):
            if not 0 <= getattr(self, name) <= 1:
                return f"degrade.{name} must be within 0..1"
        for name in ("first_jpeg", "final_jpeg"):
            low, high = getattr(self, name)
            if not 1 <= low <= high <= 100:
                return f"degrade.{name} must be two rising qualities within 1..100"
        if not self.final_sizes or any(s < 1 or s % 2 == 0 for s in self.final_sizes):
            return "degrade.final_sizes must be odd"
        return None


# Gentler numbers, to measure with: no second stage.
TESTING = RealisticSpec(
    first=StageSpec(
        blur=1.0,
        sizes=(3, 5, 7, 9, 11),
        sinc=0.1,
        shapes=(0.6, 0.4, 0.0, 0.0, 0.0, 0.0),
        sigma=(0.2, 0.8),
        generalised_beta=(1.0, 1.5),
        plateau_beta=(1.0, 1.2),
        resize=(0.2, 0.7, 0.1),
        resize_range=(0.5, 1.5),
        gaussian=0.5,
        noise=(1.0, 15.0),
        poisson=(0.05, 0.3),
        gray=0.4,
    ),
    second_share=0.0,
    first_jpeg=(70, 95),
    final_sinc=0.2,
    final_sizes=(3, 5),
    final_jpeg=(80, 100),
)


def degrade(image: Tensor, scale: int, spec: RealisticSpec, rng: np.random.Generator) -> Tensor:
    """Degrade one picture.

    Args:
        image: (1, 3, H, W) in [0, 1].
        scale: reduction along each side.
        spec: how strong.
        rng: source of every random choice.

    Returns:
        (1, 3, H // scale, W // scale) in [0, 1], rounded to 8 bits.
    """
    height, width = image.shape[2:]
    final = (height // scale, width // scale)
    image = _stage(image, spec.first, (height, width), rng)
    image = jpeg(image, _quality(spec.first_jpeg, rng))
    if rng.random() < spec.second_share:
        image = _stage(image, spec.second, (height / scale, width / scale), rng)
    compressed_last = rng.random() < 0.5
    quality = _quality(spec.final_jpeg, rng)
    if not compressed_last:
        image = jpeg(image, quality)
    image = _resize(image, final, rng)
    if rng.random() < spec.final_sinc:
        size = int(rng.choice(spec.final_sizes))
        image = blur(image, kernels.sinc(size, rng.uniform(math.pi / 3, math.pi)))
    if compressed_last:
        image = jpeg(image, quality)
    return (image.clamp(0, 1) * 255).round() / 255


def _stage(
    image: Tensor, spec: StageSpec, size: tuple[float, float], rng: np.random.Generator
) -> Tensor:
    """Blur, resize to a random multiple of (height, width) `size`, and add noise."""
    if rng.random() < spec.blur:
        image = blur(image, draw_kernel(spec, rng))
    factor = draw_factor(spec, rng)
    image = _resize(image, (max(int(size[0] * factor), 1), max(int(size[1] * factor), 1)), rng)
    return _add_noise(image, spec, rng)


def draw_kernel(spec: StageSpec, rng: np.random.Generator) -> Kernel:
    """A kernel of random size, shape and width."""
    size = int(rng.choice(spec.sizes))
    if rng.random() < spec.sinc:
        return kernels.sinc(size, rng.uniform(math.pi / (3 if size < 13 else 5), math.pi))
    shape = SHAPES[int(rng.choice(len(SHAPES), p=spec.shapes))]
    sigma, turn = rng.uniform(*spec.sigma), 0.0
    sigmas = (sigma, sigma)
    if shape.endswith("aniso"):
        sigmas = (sigma, rng.uniform(*spec.sigma))
        turn = rng.uniform(-math.pi, math.pi)
    if shape.startswith("generalised"):
        return kernels.gaussian(size, sigmas, turn, draw_beta(spec.generalised_beta, rng))
    if shape.startswith("plateau"):
        return kernels.plateau(size, sigmas, turn, draw_beta(spec.plateau_beta, rng))
    return kernels.gaussian(size, sigmas, turn)


def draw_beta(limits: Range, rng: np.random.Generator) -> float:
    """An exponent as often below 1 as above it."""
    low, high = limits
    return rng.uniform(low, 1.0) if rng.random() < 0.5 else rng.uniform(1.0, high)


def draw_factor(spec: StageSpec, rng: np.random.Generator) -> float:
    """What the size is multiplied by."""
    kind = rng.choice(3, p=spec.resize)
    if kind == 0:
        return rng.uniform(1.0, spec.resize_range[1])
    return rng.uniform(spec.resize_range[0], 1.0) if kind == 1 else 1.0


def _quality(limits: tuple[int, int], rng: np.random.Generator) -> int:
    return int(rng.integers(limits[0], limits[1] + 1))


def _resize(image: Tensor, size: tuple[int, int], rng: np.random.Generator) -> Tensor:
    mode = str(rng.choice(FILTERS))
    if tuple(image.shape[2:]) == size:
        return image
    align_corners = None if mode == "area" else False
    return F.interpolate(image, size, mode=mode, align_corners=align_corners)


def blur(image: Tensor, kernel: Kernel) -> Tensor:
    """Filter each channel of (1, 3, H, W); the borders are reflected."""
    weight = torch.from_numpy(kernel).to(image)[None, None]
    radius = len(kernel) // 2
    rows, columns = (
        torch.from_numpy(np.pad(np.arange(side), radius, mode="reflect"))
        for side in image.shape[2:]  # unlike F.pad's, this reflection goes on beyond small pictures
    )
    padded = image[..., rows, :][..., columns]
    return F.conv2d(padded.transpose(0, 1), weight).transpose(0, 1)


def _add_noise(image: Tensor, spec: StageSpec, rng: np.random.Generator) -> Tensor:
    gray = rng.random() < spec.gray
    if rng.random() < spec.gaussian:
        return add_gaussian(image, rng.uniform(*spec.noise), gray=gray, rng=rng)
    return add_poisson(image, rng.uniform(*spec.poisson), gray=gray, rng=rng)


def add_gaussian(image: Tensor, std: float, *, gray: bool, rng: np.random.Generator) -> Tensor:
    """Add noise of one standard deviation everywhere, in 8-bit levels; clipped to [0, 1].

    Args:
        image: (1, 3, H, W).
        std: standard deviation.
        gray: the same noise in all channels.
        rng: source of the noise.
    """
    shape = (1, 1 if gray else 3, *image.shape[2:])
    noise = rng.standard_normal(shape, dtype=np.float32) * np.float32(std / 255)
    return (image + torch.from_numpy(noise)).clamp(0, 1)


def add_poisson(image: Tensor, strength: float, *, gray: bool, rng: np.random.Generator) -> Tensor:
    """Add the noise of counting 255 photons where the picture is 1, times `strength`.

    Arguments as for `add_gaussian`. Gray noise is that of the picture's luminance (BT.601).
    """
    source = image.clamp(0, 1)
    if gray:
        luminance = source.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        source = (source * luminance).sum(1, keepdim=True)
    levels = source.double().numpy() * 255
    noise = (rng.poisson(levels) - levels) * (strength / 255)
    return (image + torch.from_numpy(noise).to(image)).clamp(0, 1)


def jpeg(image: Tensor, quality: int, *, full_chroma: bool = False) -> Tensor:
    """What JPEG leaves of (1, 3, H, W) in [0, 1].

    Args:
        image: the picture.
        quality: 1 to 100.
        full_chroma: colour in full resolution, and not in half (4:2:0).
    """
    levels = (image[0].permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels).save(
        buffer, "JPEG", quality=quality, subsampling=0 if full_chroma else 2
    )
    with Image.open(buffer) as decoded:
        return torch.from_numpy(np.array(decoded)).permute(2, 0, 1)[None].float() / 255
