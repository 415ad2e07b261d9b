"""Measure what one call of a network takes, and hold it against `footprint.tile_bytes`. Linux only.

    python scripts/measure_memory.py

Weights are random. Every call has a process of its own; that other work goes on does not matter.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from resshift_cli.commands import ready
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.restoration.footprint import tile_bytes
from resshift_cli.system import memory
from resshift_cli.system.device import DTYPES, place
from resshift_cli.weights import checkpoint, registry

CLEAR = Path("/proc/self/clear_refs")
TILES = {  # side and batch
    "tiny-x4": [(64, 1), (96, 1), (128, 1), (256, 1), (64, 4)],
    "chain-x4": [(64, 1), (128, 1), (256, 1), (512, 1), (64, 4), (128, 4)],
    "realsr-x4-v2": [(64, 1), (128, 1), (64, 2)],
}


def spec_of(model: str) -> ModelSpec:
    """The layout, which is known without weights."""
    spec = ready.known_spec(registry.find(model))
    assert spec is not None
    return spec


def taken(model: str, network: str, precision: str, tile: int, batch: int) -> int:
    """Bytes by which the memory of this process rises during one call."""
    spec, dtype = spec_of(model), DTYPES[precision]
    denoiser, codec = checkpoint.build(spec)
    for module in (denoiser, codec):
        place(module.eval(), torch.device("cpu"), dtype)
    schedule, inner = spec.schedule.build(), spec.denoiser

    def call(side: int, count: int) -> None:
        latent = torch.randn(count, inner.latent_channels, side, side)
        with torch.inference_mode():
            if network == "decoder":
                codec.decode(latent)
            else:
                lq = torch.randn(count, 3, side * inner.lq_ratio, side * inner.lq_ratio)
                planes = torch.randn(count, inner.noise_channels, side, side)
                noise = planes if inner.noise_channels else None
                first = torch.ones(count, dtype=torch.long)
                denoiser(latent, latent, lq, schedule, first, noise)

    call(inner.size_multiple, 1)  # what is allocated once
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5")  # the peak starts anew
    before = memory.taken()
    call(tile // spec.lq_pixels, batch)
    return memory.peak() - before


def main() -> None:
    """Print a line per model, precision and tile: the larger one of its networks."""
    spawn = multiprocessing.get_context("spawn")
    for model, tiles in TILES.items():
        spec = spec_of(model)
        networks = ["denoiser"] + ["decoder"] * (spec.autoencoder.kind == "vq")
        for precision, dtype in DTYPES.items():
            for tile, batch in tiles:
                peaks = []
                for network in networks:
                    with ProcessPoolExecutor(1, spawn) as alone:
                        job = alone.submit(taken, model, network, precision, tile, batch)
                        peaks.append(job.result())
                expected = tile_bytes(spec, tile, batch, dtype)
                print(
                    f"{model} {precision} {batch} x {tile} px: {max(peaks) >> 20} MiB, estimated "
                    f"{expected >> 20}, {max(peaks) / expected:.2f} times",
                    flush=True,
                )


if __name__ == "__main__":
    main()
