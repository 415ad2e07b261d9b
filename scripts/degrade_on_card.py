"""Crops and the mild degradation computed where the photos lie, on a card: no CPU is waited for.

Drawn as `resshift_cli.training` draws them, but from other generators, and JPEG is computed here
instead of encoded: blocks of 8x8, quantised by the tables of the standard's annex K.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from resshift_cli.imaging.read import read_rgb8
from resshift_cli.restoration.resize import shrink
from resshift_cli.training import crops, dataset
from resshift_cli.training.dataset import DataSpec
from resshift_cli.training.degradation import MildSpec

BLOCK = 8
# fmt: off
LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)
CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    *(99,) * 32,
)
# fmt: on
TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def load(paths: Sequence[Path], device: torch.device) -> list[Tensor]:
    """Decode pictures to a device, uint8 (3, H, W)."""
    with ThreadPoolExecutor() as pool:
        return [
            torch.from_numpy(picture).to(device).permute(2, 0, 1)
            for picture in pool.map(read_rgb8, paths)
        ]


class Photos:
    """Batches made of pictures on a device.

    Args:
        pictures: see `load`; what is too small for a crop is left out.
        spec: what batches are made of; degraded mildly, without grain of their own.
        device: where all of it happens.
        seed: of everything random.
    """

    def __init__(
        self, pictures: Sequence[Tensor], spec: DataSpec, device: torch.device, seed: int = 0
    ) -> None:
        self.spec, self.device = spec, device
        assert isinstance(spec.degrade, MildSpec) and not spec.grain
        self.mild = spec.degrade
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.pictures = [x for x in pictures if min(x.shape[1:]) >= spec.patch]

    def batch(self) -> tuple[Tensor, Tensor]:
        """As `dataset.make_batch`, on the device."""
        spec, scale = self.spec, self.spec.scale
        patches = self._patches()
        small = self._degraded(patches)
        side = spec.crop // scale
        y, x = (int(n) for n in self.rng.integers(dataset.MARGIN + 1, size=2))
        sharp = patches[..., y * scale :, x * scale :][..., : spec.crop, : spec.crop]
        return sharp, small[..., y : y + side, x : x + side]

    def _patches(self) -> Tensor:
        """(N, 3, patch, patch) in [0, 1], each the most detailed of a few."""
        tries = self.spec.crop_tries
        drawn = torch.stack([self._patch() for _ in range(self.spec.batch * tries)])
        green = drawn[:, 1, ::2, ::2]
        detail = green.diff(dim=1).abs().mean((1, 2)) + green.diff(dim=2).abs().mean((1, 2))
        best = detail.view(self.spec.batch, tries).argmax(1)
        rows = torch.arange(self.spec.batch, device=self.device) * tries + best
        chosen = drawn[rows]
        for number in range(self.spec.batch):
            if self.rng.random() < self.spec.flat:
                made = torch.from_numpy(crops.flat(self.spec.patch, self.rng))
                chosen[number] = made.to(self.device).permute(2, 0, 1) / 255
        return chosen

    def _patch(self) -> Tensor:
        """A random patch of a random picture, half of them reduced, flipped and turned."""
        size = self.spec.patch
        picture = self.pictures[self.rng.integers(len(self.pictures))]
        side = size
        if self.rng.random() < 0.5:
            most = min(self.spec.reduce, min(picture.shape[1:]) / size)
            side = int(size * most ** self.rng.random())
        y, x = (int(self.rng.integers(length - side + 1)) for length in picture.shape[1:])
        patch = picture[:, y : y + side, x : x + side].float() / 255
        if side != size:
            patch = F.interpolate(patch[None], (size, size), mode="bicubic", antialias=True)[0]
        patch = torch.rot90(patch.clamp(0, 1), int(self.rng.integers(4)), (1, 2))
        return patch.flip(2) if self.rng.random() < 0.5 else patch

    def _degraded(self, patches: Tensor) -> Tensor:
        """Low-resolution partners on the levels of a file; a share of them is damaged."""
        count, mild = len(patches), self.mild
        clean = shrink(patches, self.spec.scale)
        small = shrink(self._blurred(patches, self._uniform(mild.blur, count)), self.spec.scale)
        noise = torch.randn(small.shape, generator=self.generator, device=self.device)
        gray = self._chosen(0.3, count)
        noise = torch.where(gray, noise[:, :1], noise)
        std = mild.faintest + self._uniform(mild.noise - mild.faintest, count)
        std = std.view(-1, 1, 1, 1) / 255 * self._chosen(mild.noisy, count)
        small = (small + std * noise).clamp(0, 1)
        low, high = mild.jpeg
        quality = torch.from_numpy(self.rng.integers(low, high + 1, count)).to(self.device)
        packed = jpeg(small, quality, self._chosen(0.5, count))
        small = torch.where(self._chosen(0.75, count), packed, small)
        return torch.where(self._chosen(mild.share, count), (small * 255).round() / 255, clean)

    def _blurred(self, images: Tensor, std: Tensor) -> Tensor:
        radius = int(3 * self.mild.blur) + 1
        offsets = torch.arange(-radius, radius + 1, device=self.device)
        kernels = torch.exp(-0.5 * (offsets / std.clamp_min(0.05)[:, None]) ** 2)
        kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(3, 0)
        planes = F.pad(images, (radius,) * 4, mode="reflect").flatten(0, 1)[None]
        planes = F.conv2d(planes, kernels[:, None, None, :], groups=len(kernels))
        planes = F.conv2d(planes, kernels[:, None, :, None], groups=len(kernels))
        return planes.view_as(images)

    def _uniform(self, most: float, count: int) -> Tensor:
        return torch.from_numpy(self.rng.uniform(0, most, count)).float().to(self.device)

    def _chosen(self, share: float, count: int) -> Tensor:
        """Which of a batch, (N, 1, 1, 1)."""
        return torch.from_numpy(self.rng.random(count) < share).to(self.device).view(-1, 1, 1, 1)


def jpeg(images: Tensor, quality: Tensor, full_chroma: Tensor) -> Tensor:
    """What JPEG leaves of (N, 3, H, W) in [0, 1].

    Args:
        images: sides of any length; blocks at the borders are filled up with what is there.
        quality: 1 to 100 each, (N,).
        full_chroma: for which colour is kept in full resolution, bool (N, 1, 1, 1).
    """
    weights = images.new_tensor(TO_YCBCR)
    colours = torch.einsum("ij,njhw->nihw", weights, (images * 255).round())
    y, chroma = colours[:, :1] - 128, colours[:, 1:]
    size = chroma.shape[2:]
    halved = _coded(F.avg_pool2d(chroma, 2, ceil_mode=True), quality, CHROMA)
    halved = F.interpolate(halved, scale_factor=2, mode="bilinear")[..., : size[0], : size[1]]
    chroma = torch.where(full_chroma, _coded(chroma, quality, CHROMA), halved)
    coded = torch.cat([_coded(y, quality, LUMA) + 128, chroma], 1)
    decoded = torch.einsum("ij,njhw->nihw", torch.linalg.inv(weights), coded)
    return decoded.round().clamp(0, 255) / 255


def _coded(planes: Tensor, quality: Tensor, table: Sequence[int]) -> Tensor:
    """Planes (N, C, H, W) around 0 after quantisation of their blocks' frequencies."""
    height, width = planes.shape[2:]
    padded = F.pad(planes, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    waves = _waves(planes.device)
    blocks = padded.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)
    frequencies = waves @ blocks @ waves.T
    scale = torch.where(quality < 50, 5000 / quality, 200.0 - 2 * quality).view(-1, 1, 1)
    base = planes.new_tensor(table).view(1, BLOCK, BLOCK)
    steps = ((base * scale + 50) / 100).floor().clamp(1, 255)[:, None, None, None]
    blocks = waves.T @ ((frequencies / steps).round() * steps) @ waves
    joined = blocks.permute(0, 1, 2, 4, 3, 5).reshape(padded.shape)
    return joined[..., :height, :width]


def _waves(device: torch.device) -> Tensor:
    """The discrete cosine transform as an orthogonal matrix (8, 8)."""
    k = torch.arange(BLOCK, device=device, dtype=torch.float32)
    waves = torch.cos(math.pi / BLOCK * k[:, None] * (k + 0.5)) * (2 / BLOCK) ** 0.5
    waves[0] /= 2**0.5
    return waves
