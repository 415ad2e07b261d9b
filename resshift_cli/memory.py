"""How large tiles and batches may be in the memory that is really free."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from resshift_cli import plan
from resshift_cli.device import free_memory, tiles_at_once
from resshift_cli.estimate import tile_bytes
from resshift_cli.plan import Settings
from resshift_cli.specs import ModelSpec

Pixels = NDArray[np.float32]

SHARE = 0.8  # of what is free: others want some, and allocators waste some
MOST_AT_ONCE = 16  # tiles per call; more gain nothing on any card


def room(device: torch.device, cap: int | None = None) -> int:
    """Bytes that may still be taken on a device.

    Args:
        device: where.
        cap: bytes that this process is to take there at most, what it has already included.
    """
    free = int(SHARE * free_memory(device))
    if cap is None:
        return free
    return max(min(free, cap - _taken(device)), 0)


def collected(bands: Iterable[Pixels], shape: tuple[int, int, int]) -> Pixels:
    """The image that comes in bands (n, W, C), whole.

    Args:
        bands: asked for only if the image can be held.
        shape: (H, W, C).

    Raises:
        MemoryError: it can't.
    """
    needed, free = 4 * math.prod(shape), free_memory(torch.device("cpu"))
    if needed > free:  # else the system might grant it, and end the process later
        raise MemoryError(f"the result takes {needed} bytes, and {free} are free")
    image = np.empty(shape, np.float32)
    top = 0
    for band in bands:
        image[top : top + len(band)] = band
        top += len(band)
    return image


def _taken(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return psutil.Process().memory_info().rss


def fitting(
    spec: ModelSpec, settings: Settings, dtype: torch.dtype, device: torch.device, room: int
) -> Settings:
    """The same settings, with tiles halved until one fits; the smallest even if it does not.

    Tiles that are not of the model's own size were chosen by somebody, and stay.
    """
    if settings.tile != plan.settings(spec, name="").tile:
        return settings
    while tile_bytes(spec, settings.tile, 1, dtype, device) > room:
        smaller = plan.smaller_tile(spec, settings)
        if smaller is None:
            break
        settings = smaller
    return settings


def batch(
    spec: ModelSpec, settings: Settings, dtype: torch.dtype, device: torch.device, room: int
) -> int:
    """Tiles per call that fit: one on a CPU, whose cores one fills."""
    count = tiles_at_once(device)
    if count == 1:
        return 1
    while 2 * count <= MOST_AT_ONCE and _fits(2 * count, spec, settings, dtype, device, room):
        count *= 2
    while count > 1 and not _fits(count, spec, settings, dtype, device, room):
        count //= 2
    return count


def _fits(
    count: int,
    spec: ModelSpec,
    settings: Settings,
    dtype: torch.dtype,
    device: torch.device,
    room: int,
) -> bool:
    return tile_bytes(spec, settings.tile, count, dtype, device) <= room
