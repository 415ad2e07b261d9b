"""How large tiles and batches may be in the memory that is really free."""

from __future__ import annotations

import math

import torch

from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.restoration import settings as plan
from resshift_cli.restoration.footprint import tile_bytes
from resshift_cli.restoration.settings import Settings
from resshift_cli.system.device import free_memory, taken_memory, tiles_at_once

SHARE = 0.8  # of what is free: others want some, and allocators waste some
MOST_AT_ONCE = 16  # tiles per call; more gain nothing on any card

# Small images at a time on a CPU, and the pixels up to which they are small. Measured with one
# thread of a CPU with AVX-512, tiny-x4, CPU time of four against that of one after the other:
# 0.90 in float32 and 0.81 in bfloat16 with 64x64 pixels, 0.97 and 0.87 with 96x96.
CPU_GROUP, CPU_SMALL = 4, 96 * 96
GROUP_BYTES = 1 << 28  # of the results of a group, float32


def room(device: torch.device, cap: int | None = None) -> int:
    """Bytes that may still be taken on a device.

    Args:
        device: where.
        cap: bytes that this process is to take there at most, what it has already included.
    """
    free = int(SHARE * free_memory(device))
    if cap is None:
        return free
    return max(min(free, cap - taken_memory(device)), 0)


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


def group(
    spec: ModelSpec,
    size: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
    room: int,
) -> int:
    """Images per call, of a single tile each, that fit and are faster than one after the other.

    On a CPU that is one where the autoencoder is a network: with such layouts four at a time take
    four times the memory, and a denoiser's call 0.95 of the time.

    Args:
        spec: the model.
        size: what they are padded to, see `plan.single_tile`.
        dtype: what the networks compute in.
        device: where.
        room: see `room`.
    """
    area = size[0] * size[1]
    count = MOST_AT_ONCE
    if device.type == "cpu":
        small = area <= CPU_SMALL and spec.autoencoder.kind == "space-to-depth"
        count = CPU_GROUP if small else 1
    side = math.ceil(math.sqrt(area))
    while count > 1 and (
        tile_bytes(spec, side, count, dtype, device) > room
        or 12 * count * area * spec.scale**2 > GROUP_BYTES
    ):
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
