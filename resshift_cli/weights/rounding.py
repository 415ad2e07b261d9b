"""Weights in eight bits: whole numbers, and a scale for every output channel.

A file takes half of what half precision takes. Weights are rounded to within a 254th of the
largest of their channel; what computes gets them in float32 as ever.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = ".scale"  # follows the name of the tensor whose scales these are
_MOST = 127


def rounded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in eight bits with their scales, and vectors, such as biases, in half precision.

    Args:
        tensors: on the CPU, by name; the first dimension of weights is that of output channels.
    """
    result = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2:
            result[name] = tensor.to(torch.float16)
            continue
        values = tensor.float()
        scale = values.abs().flatten(1).amax(1) / _MOST
        beside = _beside(scale, values)
        steps = values / beside.where(beside > 0, 1.0)
        result[name] = steps.round().clamp(-_MOST, _MOST).to(torch.int8)
        result[name + SCALE] = scale
    return result


def restored(tensor: Tensor, scale: Tensor) -> Tensor:
    """The float32 weights that `rounded` made these of, to within half a step."""
    return tensor.float() * _beside(scale.float(), tensor)


def _beside(scale: Tensor, tensor: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (tensor.ndim - 1))
