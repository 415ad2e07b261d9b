"""Measure speed against this machine's own peak, and memory. Run it with nothing else running.

    python scripts/benchmark.py photo --photo examples/chiffchaff.jpg
    python scripts/benchmark.py published

`photo` runs the command line as a user would, on a 512x512 photo, and reports seconds, peak
memory and the share of the matrix-multiplication peak. `published` runs the networks of the
published 15-step models with random weights, from 64x64 to 256x256, in both precisions.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from resshift_cli import autoencoder
from resshift_cli.denoiser import Denoiser, SwinUNet
from resshift_cli.device import DTYPES
from resshift_cli.specs import DenoiserSpec, ModelSpec, ScheduleSpec, TileSpec, VQSpec
from resshift_cli.upscaler import Upscaler

app = typer.Typer(add_completion=False, no_args_is_help=True)

PUBLISHED = ModelSpec(
    scale=4,
    predict="x0",
    precondition=False,
    clip_lq=False,
    temperature=1.0,
    tile=TileSpec(128, 16),
    schedule=ScheduleSpec(steps=15, kappa=2.0, p=0.3, min_noise=0.04, sqrt_eta_end=0.99),
    denoiser=DenoiserSpec(
        latent_channels=3,
        model_channels=160,
        channel_mult=(1, 2, 2, 4),
        num_res_blocks=2,
        swin_levels=(0, 1, 2, 3),
        swin_depth=2,
        swin_embed_dim=192,
        num_head_channels=32,
        window=8,
        mlp_ratio=4,
        swin="reference",
        lq_ratio=1,
        lq_mask=False,
        noise_channels=0,
    ),
    autoencoder=VQSpec(
        ch=128,
        ch_mult=(1, 2, 4),
        num_res_blocks=(2, 2, 2),
        z_channels=3,
        codes=8192,
        quantize=True,
    ),
)


def gemm_peak(dtype: torch.dtype, side: int = 4096) -> float:
    """FLOP per second of a large matrix product, the best of a few."""
    a, b = torch.randn(2, side, side).to(dtype).unbind()
    a @ b
    return 2 * side**3 / min(seconds(lambda: a @ b) for _ in range(5))


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock time of a call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def flops(run: Callable[[], object]) -> int:
    """FLOP of convolutions, matrix products and attention in a call."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


@app.command()
def photo(
    photo: Annotated[Path, typer.Option(help="Any photo; resized to 512x512 first.")],
    model: str = "tiny-x4",
    precision: str = "auto",
) -> None:
    """Enlarge a 512x512 photo to 2048x2048 through the command line, with its defaults."""
    upscaler = Upscaler.from_pretrained(model, device="cpu", precision=precision)
    lq = torch.zeros(1, 3, 512, 512)
    one_step = upscaler.settings(steps=1)
    with torch.inference_mode():
        work = flops(lambda: upscaler.restore(lq, one_step))
    work *= upscaler.schedule.steps
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "photo.png"
        with Image.open(photo) as image:
            image.convert("RGB").resize((512, 512), Image.Resampling.LANCZOS).save(source)
        command = [sys.executable, "-m", "resshift_cli", "upscale", str(source), "--json"]
        command += ["--model", model, "--precision", precision, "--quiet", "--device", "cpu"]
        output = subprocess.run(command, check=True, capture_output=True).stdout
    result = json.loads(output)["results"][0]
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    peak = gemm_peak(upscaler.dtype)
    print(
        f"{model}, 512x512 -> 2048x2048, {upscaler.schedule.steps} steps, {upscaler.dtype}, "
        f"{torch.get_num_threads()} threads: {result['seconds']:.1f} s, {work / 1e12:.2f} TFLOP, "
        f"{100 * work / result['seconds'] / peak:.0f}% of a GEMM peak of {peak / 1e9:.0f} GFLOP/s, "
        f"peak memory {memory:.2f} GiB"
    )


@app.command()
def published(
    repeat: Annotated[int, typer.Option(help="Runs of each precision; the best counts.")] = 2,
) -> None:
    """15 steps of the published layout from 64x64 to 256x256, with random weights."""
    lq = torch.rand(1, 3, 64, 64) * 2 - 1
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        network = SwinUNet(PUBLISHED.denoiser)
        upscaler = Upscaler(
            PUBLISHED,
            Denoiser(network, predict="x0", precondition=False),
            autoencoder.build(PUBLISHED.autoencoder),
            name="published layout",
            device="cpu",
            precision=precision,
        )

        def run(upscaler: Upscaler = upscaler) -> None:
            with torch.inference_mode():
                upscaler.restore(lq, upscaler.settings())

        work = flops(run)  # also warms up
        best = min(seconds(run) for _ in range(repeat))
        peak = gemm_peak(DTYPES[precision])
        print(
            f"published layout, 64x64 -> 256x256, 15 steps, {precision}, "
            f"{torch.get_num_threads()} threads: {best:.1f} s, {work / 1e9:.0f} GFLOP, "
            f"GEMM peak {peak / 1e9:.0f} GFLOP/s, {100 * work / best / peak:.0f}% of it; "
            f"{best / (work / peak / 0.85):.2f} times (FLOP / peak) / 0.85"
        )


if __name__ == "__main__":
    app()
