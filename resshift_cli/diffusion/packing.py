"""Convolutions whose weights lie as the CPU's kernels read them, for networks that only run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

_LOCK = threading.RLock()
"""Held while weights change from one form to the other, which takes milliseconds."""


class _Packed(NamedTuple):
    """Weights as oneDNN reads them, for inputs of one shape."""

    weight: Tensor
    shape: torch.Size


class PackedConv2d(nn.Conv2d):
    """A convolution for inference whose weights lie as oneDNN's kernels read them.

    torch's own rearranges its weights in every call, which on a small map takes longer than the
    convolution. The first call with a shape packs the weights, and whatever else looks at them (a
    copy, a move, a state dict) has them unpacked before. All of that may go on in several threads.
    """

    _packed: _Packed | None = None

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]  # typed as a tuple of any length
            conv.stride,  # type: ignore[arg-type]  # likewise
            conv.padding,  # type: ignore[arg-type]  # likewise
            bias=conv.bias is not None,
            device="meta",
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H', W')."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(x)
        packed = self._packed  # once, since another thread may change it
        if packed is None or packed.shape != x.shape:
            packed = self._pack(x.shape)
        if packed is None:
            return super().forward(x)
        return torch.ops.mkldnn._convolution_pointwise(
            x,
            packed.weight,
            self.bias,
            self.padding,
            self.stride,
            self.dilation,
            1,
            "none",
            [],
            "",
        )

    def plain(self) -> nn.Conv2d:
        """The convolution that this one was made of, with the same parameters."""
        conv = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,  # type: ignore[arg-type]  # as above
            self.stride,  # type: ignore[arg-type]  # as above
            self.padding,  # type: ignore[arg-type]  # as above
            bias=self.bias is not None,
            device="meta",
        )
        conv.weight, conv.bias = self.weight, self.bias
        return conv.train(self.training)

    def _pack(self, shape: torch.Size) -> _Packed | None:
        """Pack for inputs of a shape: the best order depends on it, and a wrong one is slow."""
        with _LOCK:
            packed = self._packed
            if packed is not None and packed.shape == shape:
                return packed
            weight = self.weight
            if not _packable(weight):
                return None
            reordered = torch.ops.aten.mkldnn_reorder_conv2d_weight(
                weight.detach().to_mkldnn(), self.padding, self.stride, self.dilation, 1, shape
            )
            packed = self._packed = _Packed(reordered, shape)
            del self.weight
            return packed

    def _unpack(self) -> None:
        if self._packed is not None:
            # Memory may run out here: until then the packed weights are the only ones.
            dense = self._packed.weight.to_dense().contiguous(memory_format=torch.channels_last)
            self._packed = None
            self.weight = nn.Parameter(dense, requires_grad=False)

    def __getattr__(self, name: str) -> Any:
        """`weight` while it is packed."""
        if name != "weight":
            return super().__getattr__(name)
        with _LOCK:
            self._unpack()
            return super().__getattr__(name)

    def __getstate__(self) -> dict[str, Any]:
        """For copies."""
        with _LOCK:
            self._unpack()
            return {**self.__dict__, "_parameters": dict(self._parameters)}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        with _LOCK:
            self._unpack()
            return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's own

    def _save_to_state_dict(self, *arguments: Any) -> None:
        with _LOCK:
            self._unpack()
            super()._save_to_state_dict(*arguments)


def _packable(weight: Tensor) -> bool:
    """Whether oneDNN computes with such weights here."""
    there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's own
    if weight.device.type != "cpu" or not there:
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def pack(module: nn.Module) -> None:
    """Replace a network's convolutions, in place, by those that are fastest in inference.

    On a CPU see `PackedConv2d`; elsewhere they stay as they are.
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Conv2d and child.groups == 1 and child.weight.device.type == "cpu":
                setattr(parent, name, PackedConv2d(child))


def unpack(module: nn.Module) -> None:
    """Undo `pack`."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, PackedConv2d):
                setattr(parent, name, child.plain())
