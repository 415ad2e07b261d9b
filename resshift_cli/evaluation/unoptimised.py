"""Networks as they would be without anything done for speed: the yardstick of `resshift bench`.

float32 in planes, convolutions as torch's eager mode has them, attention written out with its whole
table of scores, and masks and biases built anew in every call.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resshift_cli.diffusion.autoencoder import Attention
from resshift_cli.diffusion.packing import unpack
from resshift_cli.diffusion.swin import SwinBlock, WindowAttention, shift_mask


def unoptimise(module: nn.Module) -> None:
    """Turn a network, in place, into the slow one; it gives the same but for rounding."""
    unpack(module)
    module.float()
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # not in the stub
    for part in module.modules():
        for fast, slow in _INSTEAD.items():
            if type(part) is fast:
                part.__class__ = slow  # the same parameters with other methods


class _WindowAttention(WindowAttention):
    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        count, tokens, dim = x.shape
        qkv = self.qkv(x).view(count, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = q * (dim // self.heads) ** -0.5 @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index]
        scores = scores + bias.permute(2, 0, 1)
        if mask is not None:
            windows = scores.view(-1, len(mask), self.heads, tokens, tokens)
            scores = (windows + mask[:, None]).view(scores.shape)
        x = scores.softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(count, tokens, dim))


class _SwinBlock(SwinBlock):
    def mask(self, height: int, width: int, device: torch.device) -> Tensor:
        return shift_mask(height, width, self.window, self.convention, device)


class _Attention(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-2, -1)).softmax(-1) @ v


_INSTEAD: dict[type[nn.Module], type[nn.Module]] = {
    WindowAttention: _WindowAttention,
    SwinBlock: _SwinBlock,
    Attention: _Attention,
}
