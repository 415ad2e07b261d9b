"""The memory that a job takes, by rules of thumb whose constants were measured."""

from __future__ import annotations

import torch

from resshift_cli.diffusion.specs import DenoiserSpec, ModelSpec, VQSpec
from resshift_cli.restoration import counting
from resshift_cli.restoration.tiling import Grid
from resshift_cli.system.device import computes_in

# Fitted to the peaks of whole jobs on a CPU.
_RUNTIME = 250 << 20  # Python, torch and the other packages
_FINEST_MAPS = 1.5  # alive at once, as wide and as large as the finest level
_OTHER_MAPS = 8.5  # likewise, without Swin layers: beside one for each residual block
_SWIN_MAPS = 2.1  # alive at once, of what a Swin block makes, see `_swin_numbers`
_LATENT_MAPS = 5.7  # alive at once, in float32
_AUTOENCODER_MAPS = 7.2  # alive at once, `ch` wide and as large as the image
# What is freed stays with the process in part, where the C library allocates no pages of their own.
_KEPT_SHARE, _KEPT_AT_MOST = 0.4, 48 << 20
_COPIED = 5.2  # bytes per number where convolutions are computed in float32, and both are kept
_IMAGE_COPIES = 5  # float32 RGB of the result's size, in `Upscaler`
_LATENT_BANDS = 3  # float32, beside one for each step
_LATENT_COPIES = 0.5  # of each, two rows of tiles high

_CPU = torch.device("cpu")


def peak_bytes(
    spec: ModelSpec,
    grid: Grid,
    *,
    batch: int,
    steps: int,
    dtype: torch.dtype,
    device: torch.device = _CPU,
    held: bool = False,
) -> int:
    """Memory of the process at most, the interpreter, torch and the weights included.

    Args:
        spec: the model.
        grid: the tiles of the image, counted in latent positions.
        batch: tiles per call.
        steps: of the chain.
        dtype: what the networks compute in.
        device: where; of a GPU it is about what is taken there.
        held: latents are so from top to bottom, as `wrapping` needs where these meet.
    """
    positions = grid.rows.size * grid.columns.size * min(len(grid), batch)
    network = counting.denoiser(spec.denoiser).parameters
    parameters = network + counting.autoencoder(spec.autoencoder).parameters
    kept = 4 * 2 * network if spec.mean else 0  # the sets that what runs is made of
    loading = max(4 * parameters, kept)  # float32 at first
    running = kept + dtype.itemsize * parameters + _call_bytes(spec, positions, dtype, device)
    return _RUNTIME + int(max(loading, running + _buffers(spec, grid, steps, held)))


def tile_bytes(
    spec: ModelSpec,
    tile: int,
    batch: int,
    dtype: torch.dtype,
    device: torch.device = _CPU,
) -> int:
    """Working memory of one call of the networks, without weights and without whole images.

    Fitted to calls in processes of their own on a CPU (torch 2.13, one thread, C library of GNU) of
    chain-x4 with tiles of 64 to 512 pixels, of the published layouts with 64 to 128, one to four at
    a time, in float32 and bfloat16, and of tiny-x4 with 64 to 256 in float32: 13 to 890 MiB. What
    was measured is 0.7 to 1.3 times this.
    Half precision on CPUs that lack it rests on few measurements, 0.8 to 1.5 times this; GPUs were
    not measured. scripts/measure_memory.py repeats it.

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
    number = dtype.itemsize if computes_in(dtype, device) else _COPIED
    inner, outer = spec.denoiser, spec.autoencoder
    alive = positions * (number * _numbers(inner) + 4 * _LATENT_MAPS * inner.latent_channels)
    if isinstance(outer, VQSpec):
        alive = max(alive, positions * outer.factor**2 * number * _AUTOENCODER_MAPS * outer.ch)
    return alive + (min(_KEPT_SHARE * alive, _KEPT_AT_MOST) if device.type == "cpu" else 0)


def _numbers(spec: DenoiserSpec) -> float:
    """Numbers alive at once per position of the finest level."""
    if spec.swin_depth:
        return _FINEST_MAPS * spec.finest_width + _SWIN_MAPS * _swin_numbers(spec)
    return (spec.num_res_blocks + 1 + _OTHER_MAPS) * spec.finest_width


def _swin_numbers(spec: DenoiserSpec) -> float:
    """Numbers that the widest Swin block makes per position of the finest level."""
    finest = min((*spec.swin_levels, len(spec.channel_mult) - 1))  # the middle always has one
    return (4 + 2 * spec.mlp_ratio) * spec.swin_embed_dim / 4**finest


def _buffers(spec: ModelSpec, grid: Grid, steps: int, held: bool) -> int:
    """Bytes that grow with the image, whatever its tiles are, and with the bands of latents."""
    pixels = grid.rows.length * grid.columns.length * spec.autoencoder.factor**2
    rows = grid.rows.length if held else min(grid.rows.length, 2 * grid.rows.size)
    band = rows * grid.columns.length
    latents = _LATENT_COPIES * (steps + _LATENT_BANDS) * band * spec.autoencoder.channels
    return int(4 * (_IMAGE_COPIES * 3 * pixels + latents))
