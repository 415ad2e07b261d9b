"""What a job will take on this machine, told from the model's table alone, before it is run.

The floating-point operations of the networks are counted exactly, layer by layer as the networks
are built. Time is that of `resshift bench` where it has measured such networks on this machine, or
else, as memory, a rule of thumb with constants that were measured elsewhere.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from resshift_cli.diffusion.specs import DenoiserSpec, ModelSpec, SpaceToDepthSpec, VQSpec
from resshift_cli.restoration import rates
from resshift_cli.restoration import settings as plan
from resshift_cli.restoration.rates import Rates
from resshift_cli.restoration.settings import Settings
from resshift_cli.restoration.tiling import Grid
from resshift_cli.system.device import tiles_at_once

# Share of the rate of matrix products that whole jobs reach, by bytes per number: networks whose
# layers are at least `_WIDE` channels wide, and narrower ones. Measured with one thread of an AMD
# EPYC 9004 (Zen 4, AVX-512): the published layouts reach 1.02 to 1.07 in float32 and 0.84 to 0.89
# in bfloat16, tiny-x4 0.81 to 0.86 and 0.48 to 0.51; a little less is assumed for several threads.
# Float16 on such a CPU, which lacks it, is faster than estimated: convolutions go around what slows
# matrix products down.
_WIDE = 128
_SHARE = {4: (0.95, 0.75), 2: (0.8, 0.45)}
# A rough guess for GPUs: small tiles leave most of a large card idle.
_GPU_SHARE = 0.2

# Memory, fitted to the peaks of whole jobs on a CPU.
_RUNTIME = 250 << 20  # Python, torch and the other packages
_FINEST_MAPS = 1.5  # alive at once, as wide and as large as the finest level
_SWIN_MAPS = 2.1  # alive at once, of what a Swin block makes, see `_swin_numbers`
_LATENT_MAPS = 5.7  # alive at once, in float32
_AUTOENCODER_MAPS = 7.2  # alive at once, `ch` wide and as large as the image
# What is freed stays with the process in part, where the C library allocates no pages of their own.
_KEPT_SHARE, _KEPT_AT_MOST = 0.4, 48 << 20
# Bytes per number. Without float16 of its own, a CPU computes convolutions in float32 and keeps
# both.
_NUMBER = {torch.float32: 4.0, torch.bfloat16: 2.0, torch.float16: 5.2}
_IMAGE_COPIES = 5  # float32 RGB of the result's size, in `Upscaler`
_LATENT_BANDS = 3  # float32, beside one for each step
_LATENT_COPIES = 0.5  # of each, two rows of tiles high

_CPU = torch.device("cpu")

# Matrix products that take less are over too soon to tell the machine's rate.
_LONG_ENOUGH = 5e-3  # seconds
_SMALLEST, _LARGEST = 256, 4096  # sides of the matrices
_REPEATS = 5


@dataclass(frozen=True, slots=True)
class Machine:
    """What computes, and how fast.

    Attributes:
        device: where.
        dtype: what the networks compute in.
        flops: floating-point operations per second of large matrix products, measured here.
        rates: what whole jobs reached here, where `resshift bench` has measured it.
    """

    device: torch.device
    dtype: torch.dtype
    flops: float
    rates: Rates = field(default_factory=dict)


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


class Cost(NamedTuple):
    """Of one layer, or of one call of a network.

    Attributes:
        flops: of convolutions, matrix products and attention, a multiplication and an addition
            being two.
        parameters: weights, without biases and normalisations: a thousandth of them.
    """

    flops: float
    parameters: int


def measure(device: torch.device, dtype: torch.dtype) -> Machine:
    """Time matrix products for a fraction of a second, with as many threads as torch uses.

    What `resshift bench` has measured here before comes along.
    """
    side = _SMALLEST
    while (seconds := _product_seconds(side, device, dtype)) < _LONG_ENOUGH and side < _LARGEST:
        side *= 2
    return Machine(device, dtype, 2 * side**3 / seconds, rates.known(device, dtype))


def _product_seconds(side: int, device: torch.device, dtype: torch.dtype) -> float:
    """Median time of a product of square matrices, the first one not counted."""
    matrix = torch.linspace(-1, 1, side * side, device=device).view(side, side).to(dtype)
    times = []
    for _ in range(1 + _REPEATS):
        started = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for the device
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def estimate(
    spec: ModelSpec,
    machine: Machine,
    *,
    height: int,
    width: int,
    scale: float,
    steps: int,
    tile: int | None = None,
    overlap: int | None = None,
    batch: int | None = None,
) -> Estimate:
    """What it takes to enlarge one image, without a varying alpha channel, which doubles the time.

    Args:
        spec: the model; its weights need not be here.
        machine: see `measure`.
        height: of the image, in pixels.
        width: of the image, in pixels.
        scale: as `Upscaler` takes it.
        steps: as `Upscaler` takes it.
        tile: as `Upscaler` takes it, by default as the model says.
        overlap: as `Upscaler` takes it, by default as the model says.
        batch: tiles per call of a network, by default as `Upscaler` takes them.

    Raises:
        UsageError: what `Upscaler` refuses.
    """
    settings = plan.settings(
        spec, name="the model", scale=scale, steps=steps, tile=tile, overlap=overlap
    )
    sizes = plan.pass_sizes(spec, height, width, scale)
    grids = [plan.grid(spec, *size, settings) for size in sizes]
    batch = tiles_at_once(machine.device) if batch is None else batch
    flops, seconds = 0.0, 0.0
    for grid in grids:
        part, rate = _work(spec, grid, steps), _rates(spec, machine, grid, batch)
        flops += part.denoising + part.coding
        seconds += part.denoising / rate.denoising + part.coding / rate.coding
    peak = max(_peak(spec, machine, grid, batch, steps) for grid in grids)
    return Estimate(flops, seconds, peak)


def work(spec: ModelSpec, settings: Settings, height: int, width: int) -> Parts:
    """Floating-point operations that it takes to enlarge one image."""
    sizes = plan.pass_sizes(spec, height, width, settings.scale)
    passes = [_work(spec, plan.grid(spec, *size, settings), settings.steps) for size in sizes]
    return Parts(sum(p.denoising for p in passes), sum(p.coding for p in passes))


def _work(spec: ModelSpec, grid: Grid, steps: int) -> Parts:
    """The same of one pass."""
    area, tiles = grid.rows.size * grid.columns.size, len(grid.boxes)
    denoising = steps * denoiser(spec.denoiser, area).flops + features(spec.denoiser, area).flops
    coding = encoder(spec.autoencoder, area).flops + decoder(spec.autoencoder, area).flops
    return Parts(tiles * denoising, tiles * coding)


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
    width = _width(spec.denoiser)
    outer = spec.autoencoder.ch if isinstance(spec.autoencoder, VQSpec) else width
    return Parts(
        machine.flops * _share(width, machine.device, machine.dtype),
        machine.flops * _share(outer, machine.device, machine.dtype),
    )


def _width(spec: DenoiserSpec) -> int:
    """Channels of the finest level, where most of the time goes."""
    return spec.model_channels * spec.channel_mult[0]


def _share(width: int, device: torch.device, dtype: torch.dtype) -> float:
    if device.type != "cpu":
        return _GPU_SHARE
    wide, narrow = _SHARE[dtype.itemsize]
    return wide if width >= _WIDE else narrow


def _peak(spec: ModelSpec, machine: Machine, grid: Grid, batch: int, steps: int) -> int:
    """Bytes that one pass takes, or that loading takes if that is more."""
    area = grid.rows.size * grid.columns.size
    batch = min(len(grid.boxes), batch)
    parameters = denoiser(spec.denoiser, area).parameters
    parameters += features(spec.denoiser, area).parameters
    parameters += encoder(spec.autoencoder, area).parameters
    parameters += decoder(spec.autoencoder, area).parameters
    loading = 4 * parameters  # float32 at first
    call = _call_bytes(spec, area * batch, machine.dtype, machine.device)
    running = machine.dtype.itemsize * parameters + call
    return _RUNTIME + int(max(loading, running + _buffers(spec, grid, steps)))


def tile_bytes(
    spec: ModelSpec,
    tile: int,
    batch: int,
    dtype: torch.dtype,
    device: torch.device = _CPU,
) -> int:
    """Working memory of one call of the networks, without weights and without whole images.

    Fitted to calls in processes of their own on a CPU (torch 2.13, one thread, C library of GNU) of
    tiny-x4 with tiles of 64 to 512 pixels and of the published layouts with 64 to 128, one to four
    at a time, in float32 and bfloat16: 13 to 890 MiB. What was measured is 0.8 to 1.3 times this.
    Float16 rests on two measurements; GPUs were not measured. scripts/measure_memory.py repeats it.

    Args:
        spec: the model.
        tile: side of the tiles, in pixels of the input.
        batch: tiles per call.
        dtype: what the networks compute in.
        device: where.
    """
    return int(_call_bytes(spec, (tile / spec.lq_pixels) ** 2 * batch, dtype, device))


def _call_bytes(
    spec: ModelSpec, positions: float, dtype: torch.dtype, device: torch.device
) -> float:
    number = _NUMBER[dtype] if device.type == "cpu" else dtype.itemsize
    inner, outer = spec.denoiser, spec.autoencoder
    numbers = _FINEST_MAPS * _width(inner) + _SWIN_MAPS * _swin_numbers(inner)
    alive = positions * (number * numbers + 4 * _LATENT_MAPS * inner.latent_channels)
    if isinstance(outer, VQSpec):
        alive = max(alive, positions * outer.factor**2 * number * _AUTOENCODER_MAPS * outer.ch)
    return alive + (min(_KEPT_SHARE * alive, _KEPT_AT_MOST) if device.type == "cpu" else 0)


def _swin_numbers(spec: DenoiserSpec) -> float:
    """Numbers that the widest Swin block makes per position of the finest level."""
    finest = min((*spec.swin_levels, len(spec.channel_mult) - 1))  # the middle always has one
    return (4 + 2 * spec.mlp_ratio) * spec.swin_embed_dim / 4**finest


def _buffers(spec: ModelSpec, grid: Grid, steps: int) -> int:
    """Bytes that grow with the image, whatever its tiles are, and with the bands of latents."""
    pixels = grid.rows.length * grid.columns.length * spec.autoencoder.factor**2
    band = min(grid.rows.length, 2 * grid.rows.size) * grid.columns.length
    latents = _LATENT_COPIES * (steps + _LATENT_BANDS) * band * spec.autoencoder.channels
    return int(4 * (_IMAGE_COPIES * 3 * pixels + latents))


# What the networks cost. The order is that of `denoiser.SwinUNet` and `autoencoder.VQAutoencoder`.


def features(spec: DenoiserSpec, area: float) -> Cost:
    """What the denoiser is shown of the low-quality image, once for all steps."""
    layers = list(_features(spec, area))
    return _total(iter(layers)) if layers else Cost(0.0, 0)


def denoiser(spec: DenoiserSpec, area: float) -> Cost:
    """One call on a latent of `area` positions."""
    return _total(_denoiser(spec, area))


def encoder(spec: VQSpec | SpaceToDepthSpec, area: float) -> Cost:
    """Encoding pixels to a latent of `area` positions; attention makes it grow a bit faster."""
    return _total(_encoder(spec, area)) if isinstance(spec, VQSpec) else Cost(0.0, 0)


def decoder(spec: VQSpec | SpaceToDepthSpec, area: float) -> Cost:
    """Decoding a latent of `area` positions; attention makes it grow a bit faster."""
    return _total(_decoder(spec, area)) if isinstance(spec, VQSpec) else Cost(0.0, 0)


def _total(layers: Iterator[Cost]) -> Cost:
    flops, parameters = zip(*layers, strict=True)
    return Cost(sum(flops), sum(parameters))


def _features(spec: DenoiserSpec, area: float) -> Iterator[Cost]:
    channels, area = 4 if spec.lq_mask else 3, area * spec.lq_ratio**2
    for stage in range(spec.lq_ratio.bit_length() - 1):
        width = 16 << stage
        yield _conv(channels, width, area)
        channels, area = 2 * width, area / 4
        yield _conv(width, channels, area)


def _denoiser(spec: DenoiserSpec, area: float) -> Iterator[Cost]:
    time_channels = 4 * spec.model_channels
    yield _linear(spec.model_channels, time_channels, 1)
    yield _linear(time_channels, time_channels, 1)
    stages = spec.lq_ratio.bit_length() - 1
    lq_channels = 16 << stages if stages else 4 if spec.lq_mask else 3

    def block(inputs: int, outputs: int) -> Iterator[Cost]:
        yield from _res_block(inputs, outputs, area)
        yield _linear(time_channels, 2 * outputs, 1)

    levels = [(i, spec.model_channels * mult) for i, mult in enumerate(spec.channel_mult)]
    last, channels = levels[-1][0], levels[0][1]
    yield _conv(spec.latent_channels + lq_channels + spec.noise_channels, channels, area)
    skips = [channels]
    for level, width in levels:
        for i in range(spec.num_res_blocks):
            yield from block(channels, width)
            channels = width
            if i == 0 and level in spec.swin_levels:
                yield from _swin(spec, channels, area)
            skips.append(channels)
        if level != last:
            area /= 4
            yield _conv(channels, channels, area)
            skips.append(channels)
    yield from block(channels, channels)
    yield from _swin(spec, channels, area)
    yield from block(channels, channels)
    for level, width in reversed(levels):
        for i in range(spec.num_res_blocks + 1):
            yield from block(channels + skips.pop(), width)
            channels = width
            if i == 0 and level in spec.swin_levels:
                yield from _swin(spec, channels, area)
        if level > 0:
            area *= 4
            yield _conv(channels, channels, area)
    yield _conv(channels, spec.latent_channels, area)


def _swin(spec: DenoiserSpec, channels: int, area: float) -> Iterator[Cost]:
    dim, hidden = spec.swin_embed_dim, spec.swin_embed_dim * spec.mlp_ratio
    yield _linear(channels, dim, area)
    for _ in range(spec.swin_depth):
        yield _linear(dim, 3 * dim, area)
        yield _attention(dim, area, spec.window**2)
        yield _linear(dim, dim, area)
        yield _linear(dim, hidden, area)
        yield _linear(hidden, dim, area)
    yield _linear(dim, channels, area)


def _encoder(spec: VQSpec, area: float) -> Iterator[Cost]:
    area *= spec.factor**2
    channels = spec.ch
    yield _conv(3, channels, area)
    for level, (mult, blocks) in enumerate(zip(spec.ch_mult, spec.num_res_blocks, strict=True)):
        for _ in range(blocks):
            yield from _res_block(channels, spec.ch * mult, area)
            channels = spec.ch * mult
        if level < len(spec.ch_mult) - 1:
            area /= 4
            yield _conv(channels, channels, area)
    yield from _middle(channels, area)
    yield _conv(channels, spec.z_channels, area)
    yield _linear(spec.z_channels, spec.z_channels, area)


def _decoder(spec: VQSpec, area: float) -> Iterator[Cost]:
    levels = list(enumerate(zip(spec.ch_mult, spec.num_res_blocks, strict=True)))
    channels = spec.ch * spec.ch_mult[-1]
    yield _linear(spec.z_channels, spec.z_channels, area)
    yield _conv(spec.z_channels, channels, area)
    yield from _middle(channels, area)
    for level, (mult, blocks) in reversed(levels):
        for _ in range(blocks + 1):
            yield from _res_block(channels, spec.ch * mult, area)
            channels = spec.ch * mult
        if level > 0:
            area *= 4
            yield _conv(channels, channels, area)
    yield _conv(channels, 3, area)


def _middle(channels: int, area: float) -> Iterator[Cost]:
    yield from _res_block(channels, channels, area)
    for _ in range(4):  # to queries, keys and values, and back
        yield _linear(channels, channels, area)
    yield _attention(channels, area, area)
    yield from _res_block(channels, channels, area)


def _res_block(inputs: int, outputs: int, area: float) -> Iterator[Cost]:
    yield _conv(inputs, outputs, area)
    yield _conv(outputs, outputs, area)
    if inputs != outputs:
        yield _linear(inputs, outputs, area)


def _conv(inputs: int, outputs: int, area: float) -> Cost:
    """A 3x3 convolution with `area` positions of output."""
    return _linear(9 * inputs, outputs, area)


def _linear(inputs: int, outputs: int, area: float) -> Cost:
    """A matrix of weights at each of `area` positions: a linear layer, or a 1x1 convolution."""
    return Cost(2 * inputs * outputs * area, inputs * outputs)


def _attention(channels: int, queries: float, keys: float) -> Cost:
    """Scores of `keys` for each of `queries`, and the values so weighted."""
    return Cost(4 * channels * queries * keys, 0)
