"""Measure what the corrections of `resshift_cli.restoration.colour` do to the results of a model.

    python scripts/measure_colour.py --photos DIR [--realistic] [--steps 15 --steps 4 --steps 1]

The middle of each held-out photo of training/tiny-x4-photos.csv is reduced x4 by antialiased
bicubic (or degraded mildly with --realistic), enlarged again, corrected and rounded to 8 bits.
Printed are means over photos: PSNR-Y in dB beyond bicubic and that of the worst photo, sharpness in
units of the original's; and, in levels of 255, what the reduced result differs from the input by:
the mean of a channel (mean and largest over photos), and the root mean square over pixels.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor

from resshift_cli.restoration import colour
from resshift_cli.restoration.colour import ColourFix
from resshift_cli.restoration.quality import levels, psnr_y, sharpness
from resshift_cli.restoration.resize import enlarge, reduced, shrink
from resshift_cli.restoration.upscaler import Upscaler
from resshift_cli.training.degradation import MildSpec, degrade

LIST = Path(__file__).parent.parent / "training" / "tiny-x4-photos.csv"
MILD = MildSpec(share=1.0, blur=1.0, noise=8.0, jpeg=(50, 95))
CORRECTIONS: tuple[tuple[ColourFix, float], ...] = (
    ("none", 0.0),
    ("wavelet", 0.0),
    ("adain", 0.0),
    ("none", 0.5),
    ("wavelet", 0.5),
    ("none", 1.0),
)


def held_out_pairs(
    photos: Path, *, scale: int, crop: int, realistic: bool = False
) -> list[tuple[Tensor, Tensor]]:
    """The middle of each held-out photo and its reduced partner, (1, 3, H, W) in [0, 1]."""
    with LIST.open(newline="", encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file) if row["split"] == "held-out"]
    pairs = []
    for i, name in enumerate(names):
        with Image.open(photos / name) as image:
            side = min(crop, min(image.size) // scale * scale)
            left, top = ((length - side) // 2 for length in image.size)
            middle = image.convert("RGB").crop((left, top, left + side, top + side))
        sharp = torch.from_numpy(np.array(middle)).permute(2, 0, 1)[None] / 255
        rng = np.random.default_rng(i)
        pairs.append(
            (sharp, degrade(sharp, scale, MILD, rng) if realistic else shrink(sharp, scale))
        )
    return pairs


def main(
    photos: Annotated[Path, typer.Option(help="Folder of the photos.")],
    model: str = "tiny-x4",
    steps: Annotated[list[int] | None, typer.Option(help="Chain lengths to try.")] = None,
    crop: Annotated[int, typer.Option(help="Side of the middle crop, in pixels.")] = 256,
    precision: str = "auto",
    realistic: Annotated[bool, typer.Option(help="Blur, noise and JPEG as in training.")] = False,
) -> None:
    """Print the table."""
    upscaler = Upscaler.from_pretrained(model, precision=precision)
    scale = upscaler.spec.scale
    pairs = held_out_pairs(photos, scale=scale, crop=crop, realistic=realistic)
    base = [psnr_y(enlarge(lq, scale), sharp) for sharp, lq in pairs]
    energy = [sharpness(sharp) for sharp, _ in pairs]
    print(f"{len(pairs)} photos, {crop} px, {model}, {upscaler.dtype}")
    print("steps  colour   consistency   gain (worst), dB  sharpness  mean (largest)  pixels")
    for count in steps or sorted({upscaler.spec.steps, 4, 1}, reverse=True):
        results = [upscaler(lq, steps=count, color_fix="none") * 2 - 1 for _, lq in pairs]
        for fix, consistency in CORRECTIONS:
            rows = []
            for i, (sharp, lq) in enumerate(pairs):
                image = colour.correct(results[i], lq * 2 - 1, fix=fix, consistency=consistency)
                image = levels(image / 2 + 0.5)
                difference = (reduced(image, scale) - lq) * 255
                rows.append(
                    (
                        psnr_y(image, sharp) - base[i],
                        sharpness(image) / energy[i],
                        difference.mean((2, 3)).abs().max().item(),
                        difference.square().mean().sqrt().item(),
                    )
                )
            gain, detail, shift, pixels = np.array(rows).T
            print(
                f"{count:5}  {fix:8} {consistency:11.1f}   {gain.mean():+.3f} ({gain.min():+.2f})  "
                f"   {detail.mean():9.3f}    {shift.mean():.3f} ({shift.max():.2f})  "
                f"{pixels.mean():6.3f}"
            )


if __name__ == "__main__":
    typer.run(main)
