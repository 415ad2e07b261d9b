"""Enlarge an image of 108 million pixels by four in bounded memory. Linux only.

    python scripts/measure_huge.py                          # 12,000x9,000, a TIFF
    python scripts/measure_huge.py --width 3000 --height 2250 --limit 3 tif png jpg

The photo of `examples` is laid out again and again, and `resshift upscale` enlarges it with a small
network of random weights, in a process of its own. The system limits the data of that process
(RLIMIT_DATA): what it allocates beyond that fails. A line per result tells the peak of its resident
memory, and what that was after a quarter of the time: it grows with the width of an image, and not
with its height. The first rows are compared with those of `Upscaler.stream`, and all are decoded.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from resshift_cli.diffusion.specs import (
    DenoiserSpec,
    ModelSpec,
    ScheduleSpec,
    SpaceToDepthSpec,
    TileSpec,
)
from resshift_cli.imaging import files, picture, vips
from resshift_cli.imaging.sources import Source
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.weights import checkpoint

PHOTO = Path(__file__).parents[1] / "examples" / "kitten.jpg"
SPEC = ModelSpec(
    scale=4,
    predict="residual",
    precondition=True,
    clip_lq=False,
    temperature=1.0,
    tile=TileSpec(size=64, overlap=16),
    schedule=ScheduleSpec(steps=2, kappa=2.0, p=0.3, min_noise=0.2, sqrt_eta_end=0.99),
    denoiser=DenoiserSpec(
        latent_channels=192,
        model_channels=32,
        channel_mult=(1,),
        num_res_blocks=1,
        swin_levels=(),
        swin_depth=2,
        swin_embed_dim=32,
        num_head_channels=32,
        window=8,
        mlp_ratio=1,
        swin="standard",
        lq_ratio=2,
        lq_mask=False,
        noise_channels=0,
    ),
    autoencoder=SpaceToDepthSpec(factor=8, latent_scale=8.0),
    max_steps=1,
)


def save_network(path: Path) -> None:
    """Write random weights."""
    torch.manual_seed(0)
    denoiser, _ = checkpoint.build(SPEC)
    checkpoint.save_model(path, SPEC, denoiser.network)


def save_photo(path: Path, width: int, height: int) -> None:
    """Write a TIFF of copies of the photo, each but the first shifted."""
    from resshift_cli.imaging import tiff_writing
    from resshift_cli.imaging.metadata import Description

    with Image.open(PHOTO) as image:
        photo = np.asarray(image.convert("RGB"))

    def rows() -> Iterator[NDArray[np.uint8]]:
        across = -(-width // photo.shape[1]) + 1
        for number, top in enumerate(range(0, height, len(photo))):
            wide = np.roll(np.tile(photo, (1, across, 1)), 37 * number, axis=1)
            yield wide[: height - top, :width]

    with path.open("xb") as file:
        tiff_writing.write(file, rows(), (height, width, 3), Description())


def run(command: list[str], limit: int) -> tuple[list[int], float]:
    """Peaks of resident memory in bytes up to every second, and seconds, of a limited process."""
    started = time.monotonic()
    process = subprocess.Popen(
        command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    )
    status, peaks = Path(f"/proc/{process.pid}/status"), []
    while process.poll() is None:
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):  # not there when it is just ending
                peaks.append(int(line.split()[1]) << 10)
        time.sleep(1)
    if process.returncode:
        raise SystemExit(process.returncode)
    return peaks, time.monotonic() - started


def check(photo: Path, result: Path, weights: Path) -> int:
    """Hold a result against what the library gives; returns how many of its rows were compared."""
    loaded = files.load(Source(photo), files.Handling(max_pixels=sys.maxsize))
    height, width = (4 * side for side in loaded.size)
    upscaler = Upscaler.from_file(weights, device="cpu", precision="fp32")
    expected = next(upscaler.stream(loaded.rows, loaded.shape, upscaler.settings()))
    tolerance = 40 if result.suffix == ".jpg" else 1
    done = 0
    with result.open("rb") as file:
        for band in vips.bands(file, (height, width, 3), 64, strict=True):
            wanted = picture.levels(expected[done : done + len(band)], 8).astype(int)
            if len(wanted) and np.abs(wanted - band[: len(wanted)]).max() > tolerance:
                raise SystemExit(f"{result}: rows from {done} on are others")
            done += len(band)
    if done != height:
        raise SystemExit(f"{result}: {done} rows instead of {height}")
    return len(expected)


def main() -> None:
    """Print a line per format."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("formats", nargs="*", default=["tif"], help="extensions of the results")
    parser.add_argument("--width", type=int, default=12_000)
    parser.add_argument("--height", type=int, default=9_000)
    parser.add_argument("--limit", type=float, default=6.0, help="GiB of data of the process")
    parser.add_argument("--folder", type=Path, help="for results; some of 5 GB")
    given = parser.parse_args()
    limit = int(given.limit * 2**30)
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        weights = folder / "small.safetensors"
        save_network(weights)
        photo = folder / "photo.tif"
        save_photo(photo, given.width, given.height)
        for suffix in given.formats:
            result = folder / f"large.{suffix}"
            command = [sys.executable, "-m", "resshift_cli", "upscale", str(photo)]
            command += ["-o", str(result), "--weights", str(weights), "--device", "cpu"]
            command += ["--precision", "fp32", "--max-pixels", str(2**40), "--quiet"]
            peaks, seconds = run(command, limit)
            print(
                f"{suffix} {4 * given.width}x{4 * given.height}: peak {peaks[-1] >> 20} MiB, "
                f"{peaks[len(peaks) // 4] >> 20} MiB after a quarter of the time, "
                f"{peaks[-1] / (16 * given.width * given.height):.2f} bytes per pixel of the "
                f"result, {seconds:.0f} s, {result.stat().st_size >> 20} MiB",
                flush=True,
            )
            rows = check(photo, result, weights)
            print(f"  the first {rows} rows are those of the library; all decode", flush=True)
            result.unlink()


if __name__ == "__main__":
    main()
