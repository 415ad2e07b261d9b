"""What differs between a CPU, a card and a Mac; the only module that asks what is there.

What the networks compute in. float32 is IEEE float32 everywhere: TF32, which keeps 10 bits of a
factor, is off, so that `fp32` means the same on every device; bf16 and fp16 are there for speed.
Half-precision matrix products are summed in float32. Nothing runs under autocast: networks are
moved to their type as a whole, and what must stay in float32 (statistics, scores, distances) says
so where it is computed.

What is reproducible. cuDNN takes the algorithm that it deems best, and none by trial
(`cudnn.benchmark`): the choice by trial depends on timings, and with it the last bits of an image.

What Macs lack. MPS has no float64, so no tensor of it is moved there. bfloat16 needs macOS 14.
channels_last is not used. Operations that torch lacks there go to the CPU if
PYTORCH_ENABLE_MPS_FALLBACK=1 stands in the environment before torch is loaded; the networks need
none of them.

Intel's GPUs (XPU) are asked like NVIDIA's, where torch was built for them. Their use is written by
torch's documentation: nobody has tried it on such a card yet.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from resshift_cli.errors import DeviceError, UsageError
from resshift_cli.system import memory

Precision = Literal["auto", "fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def precision_name(dtype: torch.dtype) -> str:
    """What --precision calls a type."""
    return next(name for name, known in DTYPES.items() if known == dtype)


_CARDS = ("cuda", "xpu")
"""Kinds of GPUs of which there may be several, each with a memory of its own."""


def _cards(device: torch.device) -> Any:
    """What torch asks such a GPU with: both kinds have the same functions."""
    return torch.cuda if device.type == "cuda" else torch.xpu


def card_name(device: torch.device) -> str:
    """What a GPU's maker calls it; "" of anything else."""
    return str(_cards(device).get_device_name(device)) if device.type in _CARDS else ""


def choose_device(name: str = "auto") -> torch.device:
    """The device that a name like `auto`, `cpu`, `cuda`, `cuda:1`, `mps` or `xpu` stands for.

    `auto` is the first GPU that torch can use, or else the CPU.

    Raises:
        DeviceError: the device is not on this machine, or torch was built without it.
        UsageError: the name is none of these.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        if torch.xpu.is_available():
            return torch.device("xpu:0")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    numbered = device is not None and device.type in _CARDS
    if device is None or not (numbered or (device.type in ("cpu", "mps") and not device.index)):
        raise UsageError(
            f"There is no device '{name}'.",
            hint="A device (--device) is auto, cpu, cuda, cuda:N, mps or xpu.",
        )
    if device.type in _CARDS:
        cards, kind = _cards(device), device.type.upper()
        count = cards.device_count() if cards.is_available() else 0
        if (device.index or 0) >= count:
            have = f"{count} {kind} device{'s' * (count != 1)}" if count else f"no {kind} device"
            raise DeviceError(
                f"'{name}' was asked for, but torch {torch.__version__} finds {have} here.",
                hint="Use the CPU (--device cpu), or install a driver and torch's build for "
                f"{kind}.",
            )
        return torch.device(device.type, device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(
            "'mps' was asked for, but this is no Mac with a GPU that torch can use.",
            hint="Use the CPU (--device cpu).",
        )
    return device


def choose_devices(names: str) -> list[torch.device]:
    """The devices of a list with commas such as `cuda:0,cuda:1`, or `all` GPUs of this machine.

    Raises:
        DeviceError: one is not on this machine, or there is no GPU.
        UsageError: a name is none.
    """
    if names != "all":
        return [choose_device(name) for name in names.split(",")]
    first = choose_device()
    if first.type not in _CARDS:
        raise DeviceError(
            f"torch {torch.__version__} finds no GPUs here that could share the work.",
            hint="Name devices in place of all; cpu,cpu means two processes.",
        )
    return [torch.device(first.type, index) for index in range(_cards(first).device_count())]


def choose_elsewhere(name: str, precision: str) -> tuple[torch.device, torch.dtype]:
    """A device of other machines, and what is computed in there; this one need not have it.

    Raises:
        DeviceError, UsageError: as `choose_device` and `choose_dtype`; or the device is not here,
            so that it can't be told what is fast there.
    """
    try:
        device = choose_device(name)
    except DeviceError:
        device = torch.device(name)
        if device.type not in _CARDS:
            raise
        if precision == "auto":
            raise UsageError(
                f"There is no {device.type.upper()} device here to tell what is fast on such.",
                hint="Say what to compute in: --precision bf16, or fp16 on older cards.",
            ) from None
    return device, choose_dtype(precision, device)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is native, and so faster than float32, on this device."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "xpu":
        return bool(torch.xpu.get_device_properties(device).has_bfloat16_conversions)
    if device.type != "cpu":
        return False
    # A private name, which another torch may not have.
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def computes_in(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether convolutions are computed in a type, and not in float32 beside copies of all of it.

    A CPU is taken to do so in float32, and in bfloat16 if oneDNN has kernels for it.
    """
    if device.type != "cpu" or dtype == torch.float32:
        return True
    return dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type that the networks compute in; `auto` is the fastest that is safe on the device.

    That is bfloat16 where the hardware has it, float16 on older NVIDIA cards, else float32.

    Raises:
        DeviceError: bfloat16 was asked for on a Mac whose system is too old for it.
        UsageError: the precision is none of `auto`, `fp32`, `bf16`, `fp16`.
    """
    if precision == "auto":
        if has_fast_bf16(device):
            return torch.bfloat16
        return torch.float16 if device.type == "cuda" else torch.float32
    if precision not in DTYPES:
        raise UsageError(
            f"There is no precision '{precision}'.",
            hint=f"A precision (--precision) is {', '.join(get_args(Precision))}.",
        )
    if (
        precision == "bf16"
        and device.type == "mps"
        and not torch.backends.mps.is_macos_or_newer(14, 0)
    ):
        raise DeviceError(
            "bf16 needs macOS 14 or later on this device.",
            hint="Take another precision (--precision fp16 or fp32).",
        )
    return DTYPES[precision]


def memory_format(device: torch.device) -> torch.memory_format:
    """The layout of images that convolutions are fastest in; on MPS others are copied first."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def place(module: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
    """Move a network, in place, in the memory layout that convolutions are fastest in."""
    if device.type == "cuda":
        _keep_cuda_exact()
    elif device.type == "xpu":
        # What computes there is oneDNN, too.
        torch.backends.mkldnn.allow_tf32 = False  # type: ignore[assignment]  # not in the stub
    module.to(device, dtype)
    layout = memory_format(device)
    module.to(memory_format=layout)  # type: ignore[call-overload]  # not in the stub


def compile_parts(parts: Iterable[nn.Module], device: torch.device, cache: Path) -> None:
    """Compile networks, in place, for inputs of fixed sizes, each of which takes minutes once.

    Pointwise operations are fused into few kernels. On a CPU weights are packed for good, as by
    `pack`, which is not to be used too. On an NVIDIA card a call becomes a CUDA graph: one launch
    instead of hundreds. A graph writes its result to the same memory every time, so callers copy
    it before the next call.

    Args:
        parts: with tensors as inputs and outputs, see `Denoiser.parts` and `Autoencoder.parts`.
        device: where they lie.
        cache: folder in which what was compiled is kept for the next time.

    Raises:
        DeviceError: torch lacks what it compiles with on this device.
    """
    compiler = "a C++ compiler (g++ or clang)" if device.type == "cpu" else "Triton"
    there = _has_cpp_compiler() if device.type == "cpu" else _has_triton()
    if not there:
        raise DeviceError(
            f"Compiling for '{device}' needs {compiler}, which is not here.",
            hint="Go on without compiling (--compile), or install it.",
        )
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    # Every size is compiled, however many there are.
    torch._dynamo.config.recompile_limit = sys.maxsize
    torch._dynamo.config.accumulated_recompile_limit = sys.maxsize
    for part in parts:
        if device.type == "cuda":
            part.compile(fullgraph=True, dynamic=False, mode="reduce-overhead")
        elif device.type == "xpu":
            part.compile(fullgraph=True, dynamic=False)
        else:
            part.compile(fullgraph=True, dynamic=False, options={"freezing": True})


def _has_triton() -> bool:
    from torch.utils._triton import has_triton

    return has_triton()


def _has_cpp_compiler() -> bool:
    names = (os.environ.get("CXX"), "g++", "clang++", "cl")
    return any(name is not None and shutil.which(name) is not None for name in names)


def _keep_cuda_exact() -> None:
    """The policy that the module's docstring states."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cudnn.benchmark = False


def tiles_at_once(device: torch.device) -> int:
    """Tiles per call of a network: one fills the cores of a CPU, but not a GPU."""
    return 1 if device.type == "cpu" else 4


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Bring a tensor from the CPU to where it is used.

    To an NVIDIA card it goes from page-locked memory, while the CPU and the card go on with other
    work; the card's stream keeps the order, and torch keeps the locked memory until it was read.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it; the CPU always has."""
    if device.type in _CARDS:
        _cards(device).synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def taken_memory(device: torch.device) -> int:
    """Bytes that this process has on a device, those that torch holds unused included."""
    if device.type in _CARDS:
        return int(_cards(device).memory_reserved(device))
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return memory.taken()


def forget_peak(device: torch.device) -> None:
    """Have `peak_memory` begin anew, where the device can; it is one for the whole process."""
    if device.type in _CARDS:
        _cards(device).reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Bytes that this process has taken on a device at most so far; None where nobody counts."""
    if device.type in _CARDS:
        return int(_cards(device).max_memory_allocated(device))
    return memory.peak() if device.type == "cpu" else None


def release_memory(device: torch.device) -> None:
    """Give back what torch holds unused, so that an allocation that failed may be tried anew."""
    gc.collect()  # tracebacks hold frames, and these hold tensors
    if device.type in _CARDS:
        _cards(device).empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def free_memory(device: torch.device, root: Path = Path("/")) -> int:
    """Bytes that this process can still allocate on a device.

    On a CPU see `memory.free`. On a GPU also what torch's allocator holds unused.

    Args:
        device: as `choose_device` gives.
        root: where /proc and /sys are.
    """
    if device.type in _CARDS:
        cards = _cards(device)
        reserved = int(cards.memory_reserved(device))
        try:
            free = int(cards.mem_get_info(device)[0])
        except RuntimeError:  # some of Intel's can't tell it
            free = int(cards.get_device_properties(device).total_memory) - reserved
        return free + reserved - int(cards.memory_allocated(device))
    host = memory.free(root)
    if device.type == "mps":  # its memory is the system's
        torch.mps.empty_cache()
        room = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        host = min(host, room)
    return max(host, 0)
