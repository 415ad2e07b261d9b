"""Layers that the denoiser and the autoencoder share."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resshift_cli.diffusion.specs import Norm

GROUPS = 32

# Group normalisation on a CPU: positions of a map above which it is done in pieces, positions of a
# piece at most, and bytes of pieces at a time, which stay in the cache while they are gone through.
LARGE = 128 * 128
PIECE = 1024
CACHE = 2 << 20


class GroupNorm(nn.GroupNorm):
    """32 groups; mean and variance in float32 whatever the input is.

    torch's kernels accumulate half-precision inputs in float32, but only if the affine parameters
    have the input's type or float32, which holds for modules moved with `.to(dtype)` and for
    autocast alike. On a CPU they sum over all positions of a channels_last map in a row, which
    costs digits as the map grows: there large maps in float32 go through `_normalised`.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(GROUPS, channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        learning = torch.is_grad_enabled() or torch.compiler.is_compiling()
        if learning or x.device.type != "cpu" or not _is_large(x):
            return super().forward(x)
        parts = [self._normalised(image) for image in torch.split(x, 1)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _normalised(self, image: Tensor) -> Tensor:
        """One image (1, C, H, W), by the moments of its pieces, each summed by itself."""
        _, channels, height, width = image.shape
        piece = math.gcd(height * width, PIECE)
        pieces = image.permute(0, 2, 3, 1).view(-1, piece // 8, 8, channels).permute(0, 3, 1, 2)
        means, deviations = [], []
        at_once = max(1, CACHE // (piece * channels * image.element_size()))
        for some in torch.split(pieces, at_once):
            _, mean, inverse = torch.native_group_norm(
                some, None, None, len(some), channels, piece, GROUPS, self.eps
            )
            means.append(mean.double())
            deviations.append(inverse.double())
        own = torch.cat(means)
        mean = own.mean(0)
        within = torch.cat(deviations).pow(-2) - self.eps
        variance = (within + (own - mean).square()).mean(0).clamp(min=0)
        mean, variance = (m.float().repeat_interleave(channels // GROUPS) for m in (mean, variance))
        return torch.native_batch_norm(
            image, self.weight.float(), self.bias.float(), mean, variance, False, 0.0, self.eps
        )[0]


def _is_large(x: Tensor) -> bool:
    area = x.shape[-2] * x.shape[-1]
    return (
        x.dtype == torch.float32  # in half precision the result's rounding is far larger
        and area > LARGE
        and area % 8 == 0
        and x.is_contiguous(memory_format=torch.channels_last)
        and not x.is_contiguous()
    )


def normalisation(channels: int, kind: Norm) -> nn.Module:
    """What stands where a block normalises, which may be nothing."""
    return GroupNorm(channels) if kind == "group" else nn.Identity()


def silu(x: Tensor) -> Tensor:
    """The swish, x * sigmoid(x); in place where no gradient is wanted, since maps take the memory.

    For inputs that nothing else reads.
    """
    return F.silu(x, inplace=not torch.is_grad_enabled())


class SiLU(nn.SiLU):
    """`silu` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to the same."""
        return silu(x)
