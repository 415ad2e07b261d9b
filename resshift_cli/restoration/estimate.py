"""What a job will take on this machine, told from the model's table alone, before it is run.

Time is that of `resshift bench` where it has measured such networks on this machine, or else, as
memory, a rule of thumb with constants that were measured elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from resshift_cli.diffusion.specs import ModelSpec, VQSpec
from resshift_cli.restoration import counting, footprint, rates
from resshift_cli.restoration import settings as plan
from resshift_cli.restoration.rates import Machine
from resshift_cli.restoration.settings import Settings
from resshift_cli.restoration.tiling import Grid
from resshift_cli.system.device import tiles_at_once

# Share of the rate of matrix products that whole jobs reach, by bytes per number: networks whose
# layers are at least `_WIDE` channels wide, and narrower ones. Measured with one thread of an AMD
# EPYC 9004 (Zen 4, AVX-512): the published layouts reach 1.02 to 1.07 in float32 and 0.84 to 0.89
# in bfloat16, chain-x4 0.81 to 0.86 and 0.48 to 0.51; a little less is assumed for several threads.
# Float16 on such a CPU, which lacks it, is faster than estimated: convolutions go around what slows
# matrix products down.
_WIDE = 128
_SHARE = {4: (0.95, 0.75), 2: (0.8, 0.45)}
# A rough guess for GPUs: small tiles leave most of a large card idle.
_GPU_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job will take.

    Attributes:
        flops: floating-point operations of the networks in all.
        seconds: from the loaded model to the enlarged image; on GPUs a rough guess.
        bytes: peak memory of the process, the interpreter, torch and the weights included; on
            GPUs about what is taken there.
    """

    flops: float
    seconds: float
    bytes: int


class Parts(NamedTuple):
    """Of the denoiser, and of the autoencoder."""

    denoising: float
    coding: float


def estimate(
    spec: ModelSpec,
    machine: Machine,
    settings: Settings,
    *,
    height: int,
    width: int,
    batch: int | None = None,
) -> Estimate:
    """What it takes to enlarge one image, without a varying alpha channel, which doubles the time.

    Args:
        spec: the model; its weights need not be here.
        machine: see `rates.measure`.
        settings: how it is enlarged, see `settings.settings`.
        height: of the image, in pixels.
        width: of the image, in pixels.
        batch: tiles per call of a network, by default as `Upscaler` takes them.
    """
    sizes = plan.pass_sizes(spec, height, width, settings.scale)
    grids = [plan.grid(spec, *size, settings) for size in sizes]
    batch = tiles_at_once(machine.device) if batch is None else batch
    flops, seconds = 0.0, 0.0
    for grid in grids:
        part, rate = _work(spec, grid, settings.calls), _rates(spec, machine, grid, batch)
        flops += part.denoising + part.coding
        seconds += part.denoising / rate.denoising + part.coding / rate.coding
    peak = max(
        footprint.peak_bytes(
            spec,
            grid,
            batch=batch,
            steps=settings.steps,
            dtype=machine.dtype,
            device=machine.device,
            held="y" in settings.wrap,
        )
        for grid in grids
    )
    return Estimate(flops, seconds, peak)


def work(spec: ModelSpec, settings: Settings, height: int, width: int) -> Parts:
    """Floating-point operations that it takes to enlarge one image."""
    sizes = plan.pass_sizes(spec, height, width, settings.scale)
    passes = [_work(spec, plan.grid(spec, *size, settings), settings.calls) for size in sizes]
    return Parts(sum(p.denoising for p in passes), sum(p.coding for p in passes))


def _work(spec: ModelSpec, grid: Grid, calls: int) -> Parts:
    """The same of one pass, with so many calls of the denoiser for a tile."""
    area, tiles = grid.rows.size * grid.columns.size, len(grid)
    inner, outer = counting.denoiser(spec.denoiser), counting.autoencoder(spec.autoencoder)
    denoising = calls * inner.call.of(area) + inner.features.of(area)
    return Parts(tiles * denoising, tiles * (outer.encode.of(area) + outer.decode.of(area)))


def _rates(spec: ModelSpec, machine: Machine, grid: Grid, batch: int) -> Parts:
    """Floating-point operations per second."""
    measured = machine.rates.get(rates.layout(spec))
    if measured:
        side = math.sqrt(grid.rows.size * grid.columns.size) * spec.lq_pixels
        nearest = min(
            measured,
            key=lambda rate: (abs(math.log(rate.tile / side)), abs(math.log(rate.batch / batch))),
        )
        return Parts(nearest.denoising, nearest.coding or nearest.denoising)
    width = spec.denoiser.finest_width
    outer = spec.autoencoder.ch if isinstance(spec.autoencoder, VQSpec) else width
    return Parts(
        machine.flops * _share(width, machine.device, machine.dtype),
        machine.flops * _share(outer, machine.device, machine.dtype),
    )


def _share(width: int, device: torch.device, dtype: torch.dtype) -> float:
    if device.type != "cpu":
        return _GPU_SHARE
    wide, narrow = _SHARE[dtype.itemsize]
    return wide if width >= _WIDE else narrow
