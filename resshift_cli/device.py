"""Names of devices and precisions -> torch's; the only room that asks what the machine has."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

from resshift_cli.errors import DeviceError, UsageError

Precision = Literal["auto", "fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """The device that a name like `auto`, `cpu`, `cuda`, `cuda:1` or `mps` stands for.

    `auto` is the first GPU that torch can use, or else the CPU.

    Raises:
        DeviceError: the device is not on this machine, or torch was built without it.
        UsageError: the name is none of these.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    kinds = ("cpu", "cuda", "mps")
    if device is None or device.type not in kinds or (device.index and device.type != "cuda"):
        raise UsageError(
            f"There is no device '{name}'.", hint="Use --device auto, cpu, cuda, cuda:N or mps."
        )
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            have = f"{count} CUDA device{'s' * (count != 1)}" if count else "no CUDA device"
            raise DeviceError(
                f"'{name}' was asked for, but torch {torch.__version__} finds {have} here.",
                hint="Use --device cpu, or install a driver and a CUDA build of torch.",
            )
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(
            "'mps' was asked for, but this is no Mac with a GPU that torch can use.",
            hint="Use --device cpu.",
        )
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is native, and so faster than float32, on this device."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    # A private name that torch 2.4 does not have yet.
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type that the networks compute in; `auto` is the fastest that is safe on the device.

    That is bfloat16 where the hardware has it, float16 on older NVIDIA cards, else float32.

    Raises:
        UsageError: the precision is none of `auto`, `fp32`, `bf16`, `fp16`.
    """
    if precision == "auto":
        if has_fast_bf16(device):
            return torch.bfloat16
        return torch.float16 if device.type == "cuda" else torch.float32
    if precision not in DTYPES:
        raise UsageError(
            f"There is no precision '{precision}'.",
            hint=f"Use --precision {', '.join(get_args(Precision))}.",
        )
    return DTYPES[precision]


def place(module: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
    """Move a network, in place, in the memory layout that convolutions are fastest in."""
    module.to(device, dtype)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stub


def tiles_at_once(device: torch.device) -> int:
    """Tiles per call of a network: one fills the cores of a CPU, but not a GPU."""
    return 1 if device.type == "cpu" else 4
