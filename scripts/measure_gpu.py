"""Measure one device in one go, and print Markdown tables to paste. Run it with nothing else.

    python scripts/measure_gpu.py                          # an NVIDIA card: some minutes
    python scripts/measure_gpu.py --compile                # also compiled, with CUDA graphs
    python scripts/measure_gpu.py --device cpu --tile 32 --model tiny-x4   # does the script work?

Networks have the layouts of the models, with random weights: speed doesn't depend on them. A row is
one tile through the parts of a job. `error` is the largest difference of one denoiser call from the
same call in float32, in standard deviations; compiled or not, it has to be that of its precision.
"""

from __future__ import annotations

import copy
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
import typer
from torch import Tensor

from resshift_cli.diffusion import packing
from resshift_cli.diffusion.autoencoder import Autoencoder
from resshift_cli.diffusion.denoiser import Denoiser
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import out_of_memory
from resshift_cli.system import cache, device
from resshift_cli.system.device import DTYPES
from resshift_cli.weights import checkpoint, registry, store

LAYOUTS = ("realsr-x4-v2", "tiny-x4")
COLUMNS = ["layout", "precision", "mode", "tiles a call", "encode ms", "step ms", "decode ms"]
COLUMNS += ["job s", "GiB beside the weights", "error"]
MEGABYTES = 64  # of a copy


@dataclass(frozen=True, slots=True)
class Inputs:
    """A batch of tiles, float32 on the device."""

    pixels: Tensor
    latent: Tensor
    lq: Tensor
    planes: Tensor | None
    t: Tensor


def inputs(spec: ModelSpec, codec: Autoencoder, tile: int, batch: int, on: torch.device) -> Inputs:
    """Random tiles of `tile` low-quality pixels a side."""
    side = tile * spec.scale // codec.factor
    if side % spec.denoiser.size_multiple:
        multiple = spec.denoiser.size_multiple * codec.factor // spec.scale
        raise typer.BadParameter(f"tiles have to be multiples of {multiple} pixels")
    generator = torch.Generator().manual_seed(0)

    def random(channels: int, side: int) -> Tensor:
        drawn = torch.randn(batch, channels, side, side, generator=generator)
        return device.to_device(drawn, on)

    extra = spec.denoiser.noise_channels
    return Inputs(
        pixels=random(3, side * codec.factor).clamp(-1, 1),
        latent=random(codec.channels, side),
        lq=random(3, side * spec.denoiser.lq_ratio).clamp(-1, 1),
        planes=random(extra, side) if extra else None,
        t=torch.full((batch,), spec.steps),
    )


def seconds(run: Callable[[], object], on: torch.device, repeat: int) -> float:
    """Median time of a call, after two that warm up."""
    taken = []
    for number in range(repeat + 2):
        device.synchronize(on)
        started = time.perf_counter()
        run()
        device.synchronize(on)
        if number >= 2:
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def denoise(denoiser: Denoiser, spec: ModelSpec, given: Inputs) -> Tensor:
    """One call of the denoiser at the last step of the chain."""
    schedule = spec.schedule.build()
    x, planes = given.latent, given.planes
    return denoiser(x, 0.5 * x, given.lq, schedule, given.t, planes)


def rows(
    spec: ModelSpec, name: str, on: torch.device, tile: int, batches: list[int], modes: list[str]
) -> None:
    """Print the rows of a model's layout."""
    torch.manual_seed(0)
    original = checkpoint.build(spec)
    for network in original:
        device.place(network.eval().requires_grad_(False), on)
    for precision, dtype in DTYPES.items():
        for mode in modes:
            denoiser, codec = copy.deepcopy(original)
            for network in (denoiser, codec):
                device.place(network, on, dtype)
                if mode == "compiled":
                    device.compile_parts(network.parts, on, cache.folder() / "compiled")
                else:
                    packing.pack(network)
            for batch in batches:
                given = inputs(spec, codec, tile, batch, on)
                title = f"| {name} | {precision} | {mode} | {batch} |"
                try:
                    print(title, row(denoiser, original[0], codec, spec, given, on), flush=True)
                except Exception as error:
                    if not out_of_memory(error):
                        raise
                    print(title, "out of memory | | | | | |", flush=True)
                    device.release_memory(on)


def row(
    denoiser: Denoiser,
    exact: Denoiser,
    codec: Autoencoder,
    spec: ModelSpec,
    given: Inputs,
    on: torch.device,
) -> str:
    """What was measured, as the cells of a table."""
    batch = len(given.t)
    repeat = 3 if on.type == "cpu" else 10
    before = 0
    if on.type == "cuda":
        torch.cuda.reset_peak_memory_stats(on)
        before = torch.cuda.memory_allocated(on)
    taken = [
        seconds(run, on, repeat) / batch
        for run in (
            lambda: codec.encode(given.pixels),
            lambda: denoise(denoiser, spec, given),
            lambda: codec.decode(given.latent),
        )
    ]
    peak = torch.cuda.max_memory_allocated(on) - before if on.type == "cuda" else float("nan")
    job = taken[0] + spec.steps * taken[1] + taken[2]
    expected = denoise(exact, spec, given)
    error = (denoise(denoiser, spec, given) - expected).abs().max() / expected.std()
    cells = [*(f"{1e3 * part:.2f}" for part in taken), f"{job:.3f}"]
    return " | ".join([*cells, f"{peak / 2**30:.2f}", f"{error.item():.0e} |"])


def copies(on: torch.device) -> None:
    """Print how fast tensors come and go, and whether a copy lets the CPU go on."""
    host = torch.zeros(MEGABYTES << 18)
    there = device.to_device(host, on)
    ways: dict[str, Callable[[], object]] = {
        "to the device, as torch does it": lambda: host.to(on, copy=True),
        "to the device, page-locked": lambda: device.to_device(host, on),
        "to the CPU, as torch does it": lambda: there.cpu(),
    }
    print("\n| copy | GB/s |\n| --- | --- |")
    for name, run in ways.items():
        print(f"| {name} | {MEGABYTES * 2**20 / 1e9 / seconds(run, on, 10):.1f} |")


def main(
    on: Annotated[str, typer.Option("--device", help="As for `resshift upscale`.")] = "auto",
    models: Annotated[list[str] | None, typer.Option("--model", help="Layouts.")] = None,
    tile: Annotated[int, typer.Option(help="Side of a tile in low-quality pixels.")] = 64,
    batches: Annotated[list[int] | None, typer.Option("--batch", help="Tiles a call.")] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Also compiled; minutes for every size.")
    ] = False,
) -> None:
    """Measure a device."""
    where = device.choose_device(on)
    if where.type == "cuda":
        card = torch.cuda.get_device_properties(where)
        print(
            f"{card.name}, {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, ", end=""
        )
    else:
        print(f"{platform.machine()} {where}, {torch.get_num_threads()} threads, ", end="")
    free = device.free_memory(where) / 2**30
    print(
        f"torch {torch.__version__}, {free:.1f} GiB free; tiles of {tile} pixels, times per tile\n"
    )
    print(f"| {' | '.join(COLUMNS)} |")
    print(f"|{' --- |' * len(COLUMNS)}")
    modes = ["eager", "compiled"] if compiled else ["eager"]
    with torch.inference_mode():
        for name in models or LAYOUTS:
            entry = registry.find(name)
            spec = entry.spec or store.spec_of(entry, store.obtain(entry, offline=True).weights)
            rows(spec, name, where, tile, batches or [1, 4, 16], modes)
        copies(where)


if __name__ == "__main__":
    typer.run(main)
