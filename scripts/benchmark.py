"""Measure speed and memory, and hold them against what `estimate` says. Run it with nothing else.

    python scripts/benchmark.py photo --photo examples/kitten.jpg
    python scripts/benchmark.py published

`photo` runs the command line as a user would, on a 512x512 photo, and reports seconds, peak
memory and the share of the rate of matrix products. `published` runs the networks of the published
15-step models with random weights, from 64x64 to 256x256, in both precisions.
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

from resshift_cli import checkpoint, registry
from resshift_cli.estimate import Estimate, Machine, estimate, measure
from resshift_cli.upscaler import Upscaler

app = typer.Typer(add_completion=False, no_args_is_help=True)

PUBLISHED = "realsr-x4-v2"


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock time of a call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def speed(taken: float, expected: Estimate, machine: Machine) -> str:
    """Time and rate in words."""
    return (
        f"{machine.dtype}, {torch.get_num_threads()} threads: {taken:.1f} s (estimated "
        f"{expected.seconds:.1f}), {expected.flops / 1e12:.2f} TFLOP, "
        f"{100 * expected.flops / taken / machine.flops:.0f}% of {machine.flops / 1e9:.0f} "
        "GFLOP/s in matrix products"
    )


@app.command()
def photo(
    photo: Annotated[Path, typer.Option(help="Any photo; resized to 512x512 first.")],
    model: str = "tiny-x4",
    precision: str = "auto",
) -> None:
    """Enlarge a 512x512 photo through the command line, with its defaults, on the CPU."""
    upscaler = Upscaler.from_pretrained(model, device="cpu", precision=precision)
    spec, machine = upscaler.spec, measure(upscaler.device, upscaler.dtype)
    expected = estimate(spec, machine, height=512, width=512, scale=spec.scale, steps=spec.steps)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "photo.png"
        with Image.open(photo) as image:
            image.convert("RGB").resize((512, 512), Image.Resampling.LANCZOS).save(source)
        command = [sys.executable, "-m", "resshift_cli", "upscale", str(source), "--json"]
        command += ["--model", model, "--precision", precision, "--quiet", "--device", "cpu"]
        output = subprocess.run(command, check=True, capture_output=True).stdout
    result = json.loads(output)["results"][0]
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(
        f"{model}, 512x512 x{spec.scale}, {spec.steps} steps, "
        f"{speed(result['seconds'], expected, machine)}, peak memory {memory:.2f} GiB "
        f"(estimated {expected.bytes / 2**30:.2f})"
    )


@app.command()
def published(
    repeat: Annotated[int, typer.Option(help="Runs of each precision; the best counts.")] = 2,
) -> None:
    """15 steps of the published layout from 64x64 to 256x256, with random weights."""
    spec = registry.find(PUBLISHED).spec
    assert spec is not None
    lq = torch.rand(1, 3, 64, 64) * 2 - 1
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        upscaler = Upscaler(
            spec,
            *checkpoint.build(spec),
            name="published layout",
            device="cpu",
            precision=precision,
        )

        def run(upscaler: Upscaler = upscaler) -> None:
            with torch.inference_mode():
                upscaler.restore(lq, upscaler.settings())

        run()  # warms up
        best = min(seconds(run) for _ in range(repeat))
        machine = measure(upscaler.device, upscaler.dtype)
        expected = estimate(spec, machine, height=64, width=64, scale=spec.scale, steps=spec.steps)
        print(f"published layout, 64x64 x4, {spec.steps} steps, {speed(best, expected, machine)}")


if __name__ == "__main__":
    app()
