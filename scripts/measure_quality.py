"""Measure a model on photos that it was not trained on, beside bicubic enlargement.

    python scripts/measure_quality.py --photos DIR [--weights FILE] [--steps 15 --steps 1]

The middle of each held-out photo of training/tiny-x4-photos.csv is reduced x4 by antialiased
bicubic (or degraded mildly with --realistic), enlarged again, and compared with the original.
Printed are means over photos: PSNR-Y in dB beyond bicubic (4 pixels of border left out),
root-mean-square Laplacian in units of the original's, and the largest shift of a channel's mean.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from resshift_cli.degrade import degrade, enlarge, shrink
from resshift_cli.evaluate import psnr_y, sharpness
from resshift_cli.train import read_config, to_tensor
from resshift_cli.upscaler import Upscaler

REPOSITORY = Path(__file__).parent.parent
CONFIG = REPOSITORY / "training" / "tiny-x4.toml"


def main(
    photos: Annotated[Path, typer.Option(help="Folder of the photos.")],
    weights: Annotated[Path | None, typer.Option(help="Weight file; default: tiny-x4.")] = None,
    steps: Annotated[list[int] | None, typer.Option(help="Chain lengths to try.")] = None,
    crop: Annotated[int, typer.Option(help="Side of the middle crop, in pixels.")] = 256,
    precision: str = "auto",
    tile: Annotated[int | None, typer.Option(help="As `resshift upscale` has it.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Likewise.")] = None,
    realistic: Annotated[bool, typer.Option(help="Blur, noise and JPEG as in training.")] = False,
) -> None:
    """Print the table."""
    if weights is None:
        upscaler = Upscaler.from_pretrained("tiny-x4", precision=precision)
    else:
        upscaler = Upscaler.from_file(weights, precision=precision)
    scale = upscaler.spec.scale
    spec = replace(read_config(CONFIG).train.degrade, share=1.0)
    with (REPOSITORY / "training" / "tiny-x4-photos.csv").open(encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file) if row["split"] == "held-out"]
    pairs = []
    for i, name in enumerate(names):
        with Image.open(photos / name) as image:
            side = min(crop, min(image.size) // scale * scale)
            left, top = ((length - side) // 2 for length in image.size)
            middle = image.convert("RGB").crop((left, top, left + side, top + side))
        sharp = to_tensor(np.array(middle))
        rng = np.random.default_rng(i)
        lq = degrade(sharp, scale, spec, rng) if realistic else shrink(sharp, scale)
        pairs.append((sharp, lq))

    bicubic = [enlarge(lq, scale).clamp(0, 1) for _, lq in pairs]
    base = np.array([psnr_y(b, sharp) for b, (sharp, _) in zip(bicubic, pairs, strict=True)])
    energy = np.array([sharpness(sharp) for sharp, _ in pairs])
    blurred = np.array([sharpness(b) for b in bicubic]) / energy
    print(f"{len(pairs)} photos, {crop} px, {upscaler.name}, {upscaler.dtype}")
    print(f" bicubic  {base.mean():6.2f} dB                  Laplacian {blurred.mean():.3f}")
    for count in steps or sorted({upscaler.spec.steps, 1}, reverse=True):
        restored = [
            upscaler(lq, steps=count, tile=tile, temperature=temperature) for _, lq in pairs
        ]
        both = list(zip(restored, pairs, strict=True))
        gain = np.array([psnr_y(r, sharp) for r, (sharp, _) in both]) - base
        detail = np.array([sharpness(r) for r in restored]) / energy
        shift = max((r.mean((2, 3)) - lq.mean((2, 3))).abs().max() for r, (_, lq) in both) * 255
        print(
            f"{count:2} steps  {gain.mean():+6.2f} dB (worst {gain.min():+.2f})  "
            f"Laplacian {detail.mean():.3f}  largest colour shift {shift:.2f} of 255"
        )


if __name__ == "__main__":
    typer.run(main)
