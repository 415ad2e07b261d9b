"""How large tiles and batches may be in the memory that is really free."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.restoration import settings as plan
from resshift_cli.restoration.footprint import tile_bytes
from resshift_cli.restoration.settings import Settings
from resshift_cli.system.device import free_memory, taken_memory
from resshift_cli.system.device import tiles_at_once as usual_count

SHARE = 0.8  # of what is free: others want some, and allocators waste some
MOST_AT_ONCE = 16  # tiles per call; more gain nothing on any card

# Small images at a time on a CPU, and the pixels up to which they are small. Measured with one
# thread of a CPU with AVX-512, chain-x4, CPU time of four against that of one after the other:
# 0.90 in float32 and 0.81 in bfloat16 with 64x64 pixels, 0.97 and 0.87 with 96x96.
CPU_GROUP, CPU_SMALL = 4, 96 * 96
GROUP_BYTES = 1 << 28  # of the results of a group, float32
# What a group of images may take on any machine, whatever is free there: results depend on how many
# are computed at a time, by rounding, and are to be the same wherever a part of a folder is done.
GROUP_MEMORY = 2 << 30


def available(device: torch.device, cap: int | None = None) -> int:
    """Bytes that may still be taken on a device.

    Args:
        device: where.
        cap: bytes that this process is to take there at most, what it has already included.
    """
    free = int(SHARE * free_memory(device))
    if cap is None:
        return free
    return max(min(free, cap - taken_memory(device)), 0)


def images_at_once(
    spec: ModelSpec,
    dtype: torch.dtype,
    device: torch.device,
    cap: int | None,
    size: tuple[int, int],
) -> int:
    """Images per call, as `Budget.images_at_once`, by what was asked for and not by what is free.

    Args:
        spec: the model.
        dtype: what the networks compute in.
        device: where, of which only the kind counts.
        cap: as `available`.
        size: as `Budget.images_at_once`.
    """
    memory = GROUP_MEMORY if cap is None else min(cap, GROUP_MEMORY)
    return Budget(spec, dtype, device, memory).images_at_once(size)


@dataclass(frozen=True, slots=True)
class Budget:
    """What calls of a model's networks may take.

    Attributes:
        spec: the model.
        dtype: what the networks compute in.
        device: where.
        memory: bytes, see `available`.
    """

    spec: ModelSpec
    dtype: torch.dtype
    device: torch.device
    memory: int

    def fit(self, settings: Settings) -> Settings:
        """The same settings, with tiles halved until one fits; the smallest even if it does not.

        Tiles that are not of the model's own size were chosen by somebody, and stay.
        """
        if settings.tile != plan.settings(self.spec, name="").tile:
            return settings
        while not self._holds(settings.tile, 1):
            smaller = plan.smaller_tile(self.spec, settings)
            if smaller is None:
                break
            settings = smaller
        return settings

    def needs(self, settings: Settings) -> int:
        """Bytes in all that this process takes with one tile of these settings at a time."""
        taken = taken_memory(self.device)
        return taken + tile_bytes(self.spec, settings.tile, 1, self.dtype, self.device)

    def tiles_at_once(self, tile: int) -> int:
        """Tiles of so many pixels a side per call that fit: one on a CPU, whose cores one fills."""
        count = usual_count(self.device)
        if count == 1:
            return 1
        while 2 * count <= MOST_AT_ONCE and self._holds(tile, 2 * count):
            count *= 2
        while count > 1 and not self._holds(tile, count):
            count //= 2
        return count

    def images_at_once(self, size: tuple[int, int]) -> int:
        """Images per call, of a single tile each, that fit and are faster than one by one.

        On a CPU that is one where the autoencoder is a network: with such layouts four at a time
        take four times the memory, and a denoiser's call 0.95 of the time.

        Args:
            size: what they are padded to, see `settings.single_tile`.
        """
        area = size[0] * size[1]
        count = MOST_AT_ONCE
        if self.device.type == "cpu":
            small = area <= CPU_SMALL and self.spec.autoencoder.kind == "space-to-depth"
            count = CPU_GROUP if small else 1
        side = math.ceil(math.sqrt(area))
        results = 12 * area * self.spec.scale**2
        while count > 1 and (not self._holds(side, count) or count * results > GROUP_BYTES):
            count //= 2
        return count

    def _holds(self, tile: int, count: int) -> bool:
        return tile_bytes(self.spec, tile, count, self.dtype, self.device) <= self.memory
