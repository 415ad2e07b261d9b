"""Pixels <-> latent: the VQGAN of the published models, and the weightless space-to-depth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resshift_cli.diffusion.denoiser import Upsample
from resshift_cli.diffusion.layers import GroupNorm, silu
from resshift_cli.diffusion.specs import SpaceToDepthSpec, VQSpec

NORM_EPS = 1e-6  # the U-Net's is 1e-5
LOOKUP_BYTES = {"cpu": 1 << 20}  # of distances to the codebook held at a time: a cache's worth
LOOKUP_BYTES_ELSEWHERE = 32 << 20  # on a GPU


class Autoencoder(nn.Module, ABC):
    """What the chain needs to leave pixels and to come back.

    Attributes:
        factor: pixels per latent position, along each side.
        channels: channels of the latent.
    """

    factor: int
    channels: int

    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """Map an image to its continuous latent.

        Args:
            pixels: (N, 3, H, W) in [-1, 1]; H and W are multiples of `factor`.

        Returns:
            float32 (N, channels, H / factor, W / factor).

        Raises:
            ValueError: H or W is not a multiple of `factor`.
        """

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Map a latent (N, channels, h, w) to pixels.

        Returns:
            float32 (N, 3, h * factor, w * factor), about [-1, 1] but not clamped.
        """

    def rearranged(self, latent: Tensor, how: Callable[[Tensor], Tensor]) -> Tensor:
        """Turn or mirror the image of a latent (N, channels, h, w), as far as its latent shows.

        Args:
            latent: it.
            how: maps (N, C, H, W) to the image turned or mirrored, whatever its sides.
        """
        return how(latent)

    @property
    def parts(self) -> list[nn.Module]:
        """What can be compiled: modules with nothing but tensors as inputs and outputs."""
        return []

    def _check_sides(self, pixels: Tensor) -> None:
        height, width = pixels.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(f"{height}x{width} pixels are no multiple of {self.factor}")


def build(spec: VQSpec | SpaceToDepthSpec) -> Autoencoder:
    """The autoencoder that a model's table describes; a VQGAN has random weights."""
    return SpaceToDepth(spec) if isinstance(spec, SpaceToDepthSpec) else VQAutoencoder(spec)


class SpaceToDepth(Autoencoder):
    """Each latent position holds a square of `factor` x `factor` pixels.

    Nothing is lost but the rounding of float32. It has no weights, and so no dtype of its own:
    both directions compute in float32.
    """

    def __init__(self, spec: SpaceToDepthSpec) -> None:
        super().__init__()
        self.factor = spec.factor
        self.channels = 3 * spec.factor**2
        self.scale = spec.latent_scale

    def encode(self, pixels: Tensor) -> Tensor:
        """See `Autoencoder.encode`."""
        self._check_sides(pixels)
        return F.pixel_unshuffle(pixels.float(), self.factor) * self.scale

    def decode(self, latent: Tensor) -> Tensor:
        """See `Autoencoder.decode`."""
        return F.pixel_shuffle(latent.float(), self.factor) / self.scale

    def rearranged(self, latent: Tensor, how: Callable[[Tensor], Tensor]) -> Tensor:
        """See `Autoencoder.rearranged`: here the pixels of every position turn as well."""
        return F.pixel_unshuffle(how(F.pixel_shuffle(latent, self.factor)), self.factor)


class ResnetBlock(nn.Module):
    """Two convolutions, each after a normalisation and a swish."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(in_channels, eps=NORM_EPS)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = GroupNorm(out_channels, eps=NORM_EPS)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H, W)."""
        h = self.conv1(silu(self.norm1(x)))
        h = self.conv2(silu(self.norm2(h)))
        return self.nin_shortcut(x) + h


class Attention(nn.Module):
    """Single-head attention of every position to every other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(channels, eps=NORM_EPS)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        channels = x.shape[1]
        h = self.norm(x)
        # Scaled before the product, which unscaled leaves the range of float16. Fused kernels,
        # which keep scores in float32 and never the whole table, want contiguous channels.
        q, k, v = (
            part.flatten(2).transpose(1, 2).unsqueeze(1).contiguous()
            for part in (self.q(h) * channels**-0.5, self.k(h), self.v(h))
        )
        h = self.attend(q, k, v).squeeze(1).transpose(1, 2).reshape(x.shape)
        return x + self.proj_out(h)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q k^T) v of (N, 1, positions, C)."""
        return F.scaled_dot_product_attention(q, k, v, scale=1.0)


class Downsample(nn.Module):
    """Halve the sides by a strided convolution that looks one pixel beyond right and bottom."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H/2, W/2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Middle(nn.Module):
    """Two residual blocks around attention, at the coarsest level."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = Attention(channels)
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        return self.block_2(self.attn_1(self.block_1(x)))


def _blocks(in_channels: int, out_channels: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(
        ResnetBlock(in_channels if i == 0 else out_channels, out_channels) for i in range(count)
    )


class DownLevel(nn.Module):
    """Residual blocks, and on all but the coarsest level a `downsample` after them."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, *, last: bool) -> None:
        super().__init__()
        self.block = _blocks(in_channels, out_channels, blocks)
        self.downsample = nn.Identity() if last else Downsample(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H/2, W/2), or on the coarsest level (N, out, H, W)."""
        for block in self.block:
            x = block(x)
        return self.downsample(x)


class UpLevel(nn.Module):
    """Residual blocks, and on all but the finest level an `upsample` after them."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, *, last: bool) -> None:
        super().__init__()
        self.block = _blocks(in_channels, out_channels, blocks)
        self.upsample = nn.Identity() if last else Upsample(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, 2H, 2W), or on the finest level (N, out, H, W)."""
        for block in self.block:
            x = block(x)
        return self.upsample(x)


class Encoder(nn.Module):
    """Image to what `quant_conv` takes."""

    def __init__(self, spec: VQSpec) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, spec.ch, 3, padding=1)
        self.down = nn.ModuleList()
        channels = spec.ch
        for mult, blocks in zip(spec.ch_mult, spec.num_res_blocks, strict=True):
            last = len(self.down) == len(spec.ch_mult) - 1
            self.down.append(DownLevel(channels, spec.ch * mult, blocks, last=last))
            channels = spec.ch * mult
        self.mid = Middle(channels)
        self.norm_out = GroupNorm(channels, eps=NORM_EPS)
        self.conv_out = nn.Conv2d(channels, spec.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, z_channels, H / factor, W / factor)."""
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """What `post_quant_conv` gives to image; `up` counts levels from the finest, as `down` does."""

    def __init__(self, spec: VQSpec) -> None:
        super().__init__()
        widths = [spec.ch * mult for mult in spec.ch_mult]
        self.conv_in = nn.Conv2d(spec.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(
            UpLevel(coarser, width, blocks + 1, last=level == 0)
            for level, (width, coarser, blocks) in enumerate(
                zip(widths, [*widths[1:], widths[-1]], spec.num_res_blocks, strict=True)
            )
        )
        self.norm_out = GroupNorm(widths[0], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, z_channels, h, w) to (N, 3, h * factor, w * factor)."""
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(silu(self.norm_out(x)))


class Codebook(nn.Module):
    """The latents that a VQGAN's decoder was trained on.

    They stay in float32 in a network of half precision: rounded, they lie so far off that a
    hundredth of all positions finds another code.
    """

    def __init__(self, codes: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, channels)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = self.embedding.weight.data
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's own
        moved = self.embedding.weight
        if moved.element_size() < exact.element_size():
            moved.data = exact.to(moved.device)
        return self

    @torch.no_grad()
    def nearest(self, latent: Tensor) -> Tensor:
        """Index of the code nearest to each position: (N, C, h, w) to int64 (N, h, w)."""
        codes = self.embedding.weight.float()
        positions = latent.float().movedim(1, -1).reshape(-1, latent.shape[1])
        size = LOOKUP_BYTES.get(codes.device.type, LOOKUP_BYTES_ELSEWHERE)
        rows = max(1, size // (codes.element_size() * len(codes)))
        found = [_nearest(part, codes) for part in torch.split(positions, rows)]
        return torch.cat(found).view(latent.shape[0], *latent.shape[2:])

    def forward(self, latent: Tensor) -> Tensor:
        """Replace each position of (N, C, h, w) by its nearest code."""
        return self.embedding(self.nearest(latent)).movedim(-1, 1)


def _nearest(positions: Tensor, codes: Tensor) -> Tensor:
    """Rows of `codes` nearest to `positions`, float32 (n, C) and (codes, C): int64 (n,)."""
    # |z|^2 is the same for every code. A matrix product would be shorter, but autocast and TF32
    # round its factors to 8 or 11 bits, which scrambles colours.
    distances = codes.square().sum(1).repeat(len(positions), 1)
    for z, code in zip(positions.T, codes.T, strict=True):
        distances.addcmul_(z[:, None], code[None, :], value=-2.0)
    return distances.argmin(1)


class VQAutoencoder(Autoencoder):
    """A VQGAN; names as in the published files.

    Works in the dtype of its weights, while statistics, attention scores and codebook distances
    are float32 in every case.
    """

    def __init__(self, spec: VQSpec) -> None:
        super().__init__()
        self.factor = spec.factor
        self.channels = spec.z_channels
        self.snap = spec.quantize
        self.encoder = Encoder(spec)
        self.decoder = Decoder(spec)
        self.quantize = Codebook(spec.codes, spec.z_channels)
        self.quant_conv = nn.Conv2d(spec.z_channels, spec.z_channels, 1)
        self.post_quant_conv = nn.Conv2d(spec.z_channels, spec.z_channels, 1)

    @property
    def parts(self) -> list[nn.Module]:
        """See `Autoencoder.parts`."""
        return [self.encoder, self.decoder]

    @property
    def _dtype(self) -> torch.dtype:
        """What the network computes in."""
        return self.quant_conv.get_parameter("bias").dtype

    def encode(self, pixels: Tensor) -> Tensor:
        """See `Autoencoder.encode`."""
        self._check_sides(pixels)
        latent: Tensor = self.quant_conv(self.encoder(pixels.to(self._dtype)))
        return latent.float()

    def decode(self, latent: Tensor) -> Tensor:
        """See `Autoencoder.decode`; the latent snaps to the nearest codes if `snap`."""
        if self.snap:
            latent = self.quantize(latent)
        pixels: Tensor = self.decoder(self.post_quant_conv(latent.to(self._dtype)))
        # A copy in every case, since a compiled decoder writes over its result in the next call.
        return pixels.to(torch.float32, copy=True)
