"""Window attention of the Swin U-Net, in the two conventions that published weights learned."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resshift_cli.diffusion.layers import normalisation
from resshift_cli.diffusion.specs import LATENT_SIDE, DenoiserSpec, Norm

SwinConvention = Literal["reference", "standard"]

MASKED = -100.0  # added to the scores; exp() of it vanishes in every precision


def relative_position_index(window: int) -> Tensor:
    """Row of the bias table for each (query, key) pair: int64 (window^2, window^2)."""
    axis = torch.arange(window)
    rows, columns = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    dy = rows[:, None] - rows[None, :] + window - 1
    dx = columns[:, None] - columns[None, :] + window - 1
    return dy * (2 * window - 1) + dx


def shift_mask(
    height: int,
    width: int,
    window: int,
    convention: SwinConvention,
    device: torch.device | None = None,
) -> Tensor:
    """Scores to add in a block shifted by half a window: 0 or -100.

    Args:
        height: rows of the map, a multiple of `window`.
        width: columns of the map, a multiple of `window`.
        window: side of a window.
        convention: `standard` separates, within each window, what the cyclic shift brought
            together from opposite borders, along both axes (Swin, arXiv:2103.14030, figure 4).
            `reference` is what the official ResShift weights learned: only the bottom row of
            windows is masked, and there the left half of a window is separated from the right.
        device: where to build it, by default the CPU.

    Returns:
        float32 (windows, window^2, window^2), windows in row-major order.
    """
    half = window // 2
    if convention == "standard":
        rows = _regions(height, window, half, device)[:, None]
        columns = _regions(width, window, half, device)[None, :]
        labels = rows * 3 + columns
    else:
        labels = torch.zeros(height, width, dtype=torch.long, device=device)
        position = torch.arange(width, device=device)
        labels[height - window :] = (position % window >= half).long()
    labels = labels.view(height // window, window, width // window, window)
    labels = labels.transpose(1, 2).reshape(-1, window * window)
    apart = labels[:, :, None] != labels[:, None, :]
    return apart.float() * MASKED


def convention_of(masks: Iterable[Tensor]) -> SwinConvention | None:
    """Whose masks these are, as `shift_mask` makes them for square maps of several windows.

    Only `standard` has something to separate in the last window of the first row.

    Returns:
        None if there are none.
    """
    for mask in masks:
        if mask.ndim == 3 and len(mask) >= 4:
            last = mask[math.isqrt(len(mask)) - 1]
            return "standard" if last.float().any() else "reference"
    return None


def _regions(length: int, window: int, half: int, device: torch.device | None) -> Tensor:
    """Along one axis: 0 before the last window, 1 and 2 for the halves of the last window."""
    position = torch.arange(length, device=device)
    return (position >= length - window).long() + (position >= length - half).long()


@lru_cache(maxsize=32)
def _cached_mask(
    height: int, width: int, window: int, convention: SwinConvention, device: torch.device
) -> Tensor:
    return shift_mask(height, width, window, convention, device)


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learned relative position bias."""

    relative_position_index: Tensor

    def __init__(self, dim: int, window: int, head_dim: int) -> None:
        super().__init__()
        self.heads = dim // head_dim
        self.relative_position_bias_table = nn.Parameter(
            torch.empty((2 * window - 1) ** 2, self.heads)
        )
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_position_index(window))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self._kept: tuple[tuple[object, ...], Tensor | None, Tensor] | None = None

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend within each window.

        Args:
            x: (images * windows, tokens, dim), the windows of an image adjacent.
            mask: (windows, tokens, tokens) to add to the scores, or None.
        """
        count, tokens, dim = x.shape
        qkv = self.qkv(x).view(count, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        bias = self.bias(mask, q.dtype)
        if mask is not None and count > len(mask):
            bias = bias.repeat(count // len(mask), 1, 1, 1)
        # Without gradients this is one fused kernel that keeps scores and softmax in float32.
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(x.transpose(1, 2).reshape(count, tokens, dim))

    def bias(self, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
        """What is added to the scores of one image: (windows, heads, tokens, tokens).

        It is kept for the next call, for as long as mask and table stay as they are.
        """
        table = self.relative_position_bias_table
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self._build_bias(mask, dtype)
        version = None if table.is_inference() else table._version  # counts changes in place
        key = (id(mask), dtype, table.data_ptr(), version)
        kept = self._kept  # once, since another thread may change it
        if kept is None or kept[0] != key:
            # The mask is kept too, so that no other one can get its id.
            kept = self._kept = (key, mask, self._build_bias(mask, dtype))
        return kept[2]

    def _build_bias(self, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
        bias = self.relative_position_bias_table[self.relative_position_index]
        bias = bias.permute(2, 0, 1)[None]
        return (bias if mask is None else bias + mask[:, None]).to(dtype).contiguous()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._kept = None
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's own


class Mlp(nn.Module):
    """Two 1x1 convolutions around the exact GELU."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, dim, H, W) to the same shape."""
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """Window attention, then an MLP; each normalised before and added to its input.

    Args:
        dim: channels.
        window: side of a window.
        head_dim: channels of one attention head.
        odd: the second block of a pair, which shifts by half a window where shifting is on.
        convention: see `shift_mask`; it also decides where shifting is on.
        resolution: the side of the map in the layout's table (64 for level 0). `reference`
            weights were trained with shifting decided by it, whatever the real size is.
    """

    attn_mask: Tensor

    def __init__(
        self,
        dim: int,
        *,
        window: int,
        head_dim: int,
        mlp_ratio: int,
        odd: bool,
        convention: SwinConvention,
        resolution: int,
        norm: Norm = "group",
    ) -> None:
        super().__init__()
        self.window = window
        self.odd = odd
        self.convention = convention
        self.resolution = resolution
        if odd and convention == "reference" and resolution > window:
            # Never read: it is here because the official state dicts have it.
            mask = shift_mask(resolution, resolution, window, convention)
            self.register_buffer("attn_mask", mask)
        self.norm1 = normalisation(dim, norm)
        self.attn = WindowAttention(dim, window, head_dim)
        self.norm2 = normalisation(dim, norm)
        self.mlp = Mlp(dim, dim * mlp_ratio)

    def shifts(self, height: int, width: int) -> bool:
        """Whether this block shifts its windows on a map of this size."""
        if self.convention == "reference":
            return self.odd and self.resolution > self.window
        return self.odd and min(height, width) > self.window

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, dim, H, W) to the same shape; H and W are multiples of the window."""
        _, _, height, width = x.shape
        shift = self.window // 2 if self.shifts(height, width) else 0
        mask = self.mask(height, width, x.device) if shift else None
        h = self.norm1(x)
        if shift:
            h = torch.roll(h, (-shift, -shift), (2, 3))
        h = self._from_windows(self.attn(self._to_windows(h), mask), height, width)
        if shift:
            h = torch.roll(h, (shift, shift), (2, 3))
        x = x + h
        return x + self.mlp(self.norm2(x))

    def mask(self, height: int, width: int, device: torch.device) -> Tensor:
        """The scores to add where windows are shifted, see `shift_mask`."""
        if torch.compiler.is_compiling():  # a constant of the compiled code
            return shift_mask(height, width, self.window, self.convention, device)
        return _cached_mask(height, width, self.window, self.convention, device)

    def _to_windows(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        w = self.window
        x = x.view(n, c, height // w, w, width // w, w).permute(0, 2, 4, 3, 5, 1)
        return x.reshape(-1, w * w, c)

    def _from_windows(self, x: Tensor, height: int, width: int) -> Tensor:
        w = self.window
        x = x.view(-1, height // w, width // w, w, w, x.shape[-1]).transpose(2, 3)
        return x.reshape(-1, height, width, x.shape[-1]).permute(0, 3, 1, 2)


class Projection(nn.Module):
    """A 1x1 convolution into or out of the attention width."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H, W)."""
        return self.proj(x)


class SwinLayer(nn.Module):
    """Projection, a few Swin blocks, projection; there is no residual around it.

    Args:
        spec: sizes of the blocks.
        channels: in and out.
        level: of the U-Net, 0 being the finest.
    """

    def __init__(self, spec: DenoiserSpec, channels: int, level: int) -> None:
        super().__init__()
        dim = spec.swin_embed_dim
        self.patch_embed = Projection(channels, dim)
        self.blocks = nn.ModuleList(
            SwinBlock(
                dim,
                window=spec.window,
                head_dim=spec.num_head_channels,
                mlp_ratio=spec.mlp_ratio,
                odd=i % 2 == 1,
                convention=spec.swin,
                resolution=LATENT_SIDE >> level,
                norm=spec.norm,
            )
            for i in range(spec.swin_depth)
        )
        self.patch_unembed = Projection(dim, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to the same shape; H and W are multiples of the window."""
        x = self.patch_embed(x)
        for block in self.blocks:
            x = block(x)
        return self.patch_unembed(x)
