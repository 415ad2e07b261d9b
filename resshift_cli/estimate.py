"""What a job will take on this machine, told from the model's table alone, before it is run.

The floating-point operations of the networks are counted exactly, layer by layer as the networks
are built. Time and memory are rules of thumb with constants that were measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from resshift_cli import plan
from resshift_cli.device import tiles_at_once
from resshift_cli.specs import DenoiserSpec, ModelSpec, SpaceToDepthSpec, VQSpec
from resshift_cli.tiling import Grid

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
_SCRATCH = 0.2  # of the weights in float32: copies in the order that the kernels want
_DENOISER_MAPS = 13.0  # alive at once, as wide and as large as the finest level
_AUTOENCODER_MAPS = 6.5  # alive at once, `ch` wide and as large as the image
_IMAGE_COPIES = 5  # float32 RGB of the result's size, in `Upscaler`
_LATENT_COPIES = 3  # float32, beside the above

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
    """

    device: torch.device
    dtype: torch.dtype
    flops: float


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
    """Time matrix products for a fraction of a second, with as many threads as torch uses."""
    side = _SMALLEST
    while (seconds := _product_seconds(side, device, dtype)) < _LONG_ENOUGH and side < _LARGEST:
        side *= 2
    return Machine(device, dtype, 2 * side**3 / seconds)


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

    Raises:
        UsageError: what `Upscaler` refuses.
    """
    settings = plan.settings(
        spec, name="the model", scale=scale, steps=steps, tile=tile, overlap=overlap
    )
    sizes = plan.pass_sizes(spec, height, width, scale)
    grids = [plan.grid(spec, *size, settings) for size in sizes]
    tiles = [(len(grid.boxes), grid.rows.size * grid.columns.size) for grid in grids]
    denoising = sum(n * steps * denoiser(spec.denoiser, area).flops for n, area in tiles)
    coding = sum(
        n * (encoder(spec.autoencoder, area).flops + decoder(spec.autoencoder, area).flops)
        for n, area in tiles
    )
    seconds = denoising / (machine.flops * _share(_width(spec.denoiser), machine))
    if isinstance(spec.autoencoder, VQSpec):
        seconds += coding / (machine.flops * _share(spec.autoencoder.ch, machine))
    peak = max(_peak(spec, machine, grid) for grid in grids)
    return Estimate(denoising + coding, seconds, peak)


def _width(spec: DenoiserSpec) -> int:
    """Channels of the finest level, where most of the time goes."""
    return spec.model_channels * spec.channel_mult[0]


def _share(width: int, machine: Machine) -> float:
    if machine.device.type != "cpu":
        return _GPU_SHARE
    wide, narrow = _SHARE[machine.dtype.itemsize]
    return wide if width >= _WIDE else narrow


def _peak(spec: ModelSpec, machine: Machine, grid: Grid) -> int:
    """Bytes that one pass takes, or that loading takes if that is more."""
    area = grid.rows.size * grid.columns.size
    batch = min(len(grid.boxes), tiles_at_once(machine.device))
    parameters = denoiser(spec.denoiser, area).parameters
    maps = _DENOISER_MAPS * _width(spec.denoiser) * area
    if isinstance(spec.autoencoder, VQSpec):
        parameters += encoder(spec.autoencoder, area).parameters
        parameters += decoder(spec.autoencoder, area).parameters
        factor = spec.autoencoder.factor
        maps = max(maps, _AUTOENCODER_MAPS * spec.autoencoder.ch * area * factor**2)
    loading = 4 * parameters  # float32 at first
    running = machine.dtype.itemsize * (parameters + batch * maps) + _SCRATCH * 4 * parameters
    return _RUNTIME + int(max(loading, running + _buffers(spec, grid)))


def _buffers(spec: ModelSpec, grid: Grid) -> int:
    """Bytes that grow with the image, whatever its tiles are."""
    positions = grid.rows.length * grid.columns.length
    pixels = positions * spec.autoencoder.factor**2
    latent = positions * spec.autoencoder.channels
    return 4 * (_IMAGE_COPIES * 3 * pixels + _LATENT_COPIES * latent)


# What the networks cost. The order is that of `denoiser.SwinUNet` and `autoencoder.VQAutoencoder`.


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


def _denoiser(spec: DenoiserSpec, area: float) -> Iterator[Cost]:
    time_channels = 4 * spec.model_channels
    yield _linear(spec.model_channels, time_channels, 1)
    yield _linear(time_channels, time_channels, 1)
    lq_channels, lq_area = 4 if spec.lq_mask else 3, area * spec.lq_ratio**2
    for stage in range(spec.lq_ratio.bit_length() - 1):
        width = 16 << stage
        yield _conv(lq_channels, width, lq_area)
        lq_channels, lq_area = 2 * width, lq_area / 4
        yield _conv(width, lq_channels, lq_area)

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
