"""Draw the pictures of docs/method.md from the code that does the work.

    python scripts/plot_method.py docs/method [--photos DIR]

`schedules.png` and `states.png` need nothing but the repository. `tradeoff.png` is measured on the
held-out photos of training/tiny-x4-photos.csv, which --photos names, and takes minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated

import matplotlib
import numpy as np
import torch
import typer
from measure_colour import held_out_pairs
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from resshift_cli.diffusion import chain, noise
from resshift_cli.diffusion.chain import ChainState
from resshift_cli.diffusion.schedule import ShiftSchedule
from resshift_cli.restoration.quality import psnr_y, sharpness
from resshift_cli.restoration.resize import enlarge
from resshift_cli.restoration.upscaler import Upscaler

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  # after the choice of what draws

KITTEN = Path(__file__).parent.parent / "examples" / "kitten.jpg"
TILE = (75, 64, 139, 128)  # of the kitten, in its pixels: what the chain is run on
EYE = (21, 22, 45, 44)  # of the tile: what is shown

CROP = 128  # side of the middle of a photo, in pixels

WIDTH, DPI = 8.6, 110  # inches, pixels per inch
LINE_WIDTH = 1.6


def schedule(steps: int = 15, kappa: float = 2.0, p: float = 0.3) -> ShiftSchedule:
    """The published one but for what is given."""
    return ShiftSchedule.geometric(steps=steps, kappa=kappa, p=p, min_noise=0.04, sqrt_eta_end=0.99)


def walk(
    upscaler: Upscaler, lq: Tensor, schedule: ShiftSchedule, *, temperature: float, seed: int = 0
) -> Iterator[ChainState[Tensor, Tensor]]:
    """The states of the chain on images that fit in one tile.

    Args:
        upscaler: the model, whose autoencoder is space-to-depth by its own factor.
        lq: (N, 3, h, w) in [-1, 1].
        schedule: the steps to walk, respaced if need be.
        temperature: what the noise of the steps is multiplied by.
        seed: of the noise, the same for all images.
    """
    y0 = upscaler.autoencoder.encode(enlarge(lq, upscaler.spec.scale))

    def draw(step: int) -> Tensor:
        channels, height, width = y0.shape[1:]
        return noise.field(seed, step, channels, top=0, left=0, height=height, width=width)

    def predict(x_t: Tensor, t: int) -> Tensor:
        steps = torch.full((len(lq),), t)
        return upscaler.denoiser(x_t, y0, lq, schedule, steps)

    sampler = chain.Ancestral(schedule, temperature, upscaler.spec.prior)
    step = partial(sampler.step, noise=draw)
    return chain.walk(sampler.start(y0, draw), predict, step, schedule.steps)


# Schedules


def draw_schedules(target: Path) -> None:
    """Curves of eta, alpha and the noise for several p and kappa."""
    figure, axes = pyplot.subplots(2, 2, figsize=(WIDTH, 6.0), dpi=DPI, layout="constrained")
    shape, step, spread, added = axes.flat
    for p in (0.1, 0.3, 1.0, 2.0):
        own = schedule(p=p)
        t = range(1, own.steps + 1)
        shape.plot(t, own.sqrt_eta, ".-", lw=LINE_WIDTH, label=f"p = {p:g}")
        alpha = [own.eta(i) - own.eta(i - 1) for i in t]
        step.plot(t, alpha, ".-", lw=LINE_WIDTH, label=f"p = {p:g}")
    four = schedule().respaced(4)
    kept = [i + 1 for i in four.timesteps]
    shape.plot(kept, four.sqrt_eta, "o", ms=9, mfc="none", mec="black", label="kept by 4 steps")
    shape.set_title(r"how far the chain is from sharp to blurry: $\sqrt{\eta_t}$", fontsize=10)
    step.set_title(r"what each step shifts: $\alpha_t = \eta_t - \eta_{t-1}$", fontsize=10)
    for kappa in (0.5, 1.0, 2.0, 4.0):
        own = schedule(kappa=kappa)
        t = range(1, own.steps + 1)
        spread.plot(
            t, [own.noise_std(i) for i in t], ".-", lw=LINE_WIDTH, label=rf"$\kappa$ = {kappa:g}"
        )
        added.plot(
            t, [own.posterior(i)[2] for i in t], ".-", lw=LINE_WIDTH, label=rf"$\kappa$ = {kappa:g}"
        )
    spread.set_title(r"noise in $x_t$ (p = 0.3): $\kappa\sqrt{\eta_t}$", fontsize=10)
    added.set_title(
        r"noise added on the way to $x_{t-1}$: $\kappa\sqrt{\alpha_t \eta_{t-1} / \eta_t}$",
        fontsize=10,
    )
    for plot in axes.flat:
        plot.set_xlabel("t")
        plot.set_xticks(range(1, 16, 2))
        plot.grid(alpha=0.3)
        plot.set_ylim(0, 1.25 * plot.get_ylim()[1])
        plot.legend(fontsize=8, loc="upper left", ncols=3 if plot is shape else 1)
    figure.savefig(target)
    pyplot.close(figure)


# States of the chain


def draw_states(target: Path, upscaler: Upscaler, columns: int = 8) -> None:
    """Every x_t and the x_0 predicted from it, for a part of the kitten; last, its bicubic."""
    with Image.open(KITTEN) as image:
        tile = np.array(image.convert("RGB").crop(TILE))
    lq = torch.from_numpy(tile).permute(2, 0, 1)[None] / 127.5 - 1
    states = list(
        walk(upscaler, lq, upscaler.spec.schedule.build(), temperature=upscaler.spec.temperature)
    )
    scale = upscaler.spec.scale
    left, top, right, bottom = (scale * side for side in EYE)

    def picture(image: Tensor) -> Image.Image:
        part = image[0, :, top:bottom, left:right].clamp(-1, 1)
        pixels = (part * 127.5 + 127.5).round().byte()
        return Image.fromarray(pixels.permute(1, 2, 0).numpy())

    decode = upscaler.autoencoder.decode
    cells = [(f"t = {state.t}", [decode(state.x_t), decode(state.x0)]) for state in states]
    cells.append(("bicubic", [enlarge(lq, scale)]))

    width, height, gap, line = right - left, bottom - top, 4, 16
    rows = -(-len(cells) // columns)
    block = line + 2 * (height + gap) + gap
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * block - gap), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for i, (label, images) in enumerate(cells):
        x, y = i % columns * (width + gap), i // columns * block
        draw.text((x + width / 2, y), label, "black", font, anchor="ma")
        for row, shown in enumerate(images):
            sheet.paste(picture(shown), (x, y + line + row * (height + gap)))
    # So few colours are hardly seen among noise, and keep the file small.
    sheet.quantize(64, dither=Image.Dither.NONE).save(target, optimize=True)


# Fidelity against realism


@dataclass(frozen=True, slots=True)
class Point:
    """Means over photos.

    Attributes:
        gain: PSNR-Y beyond bicubic, dB.
        sharpness: in units of the original's.
    """

    label: str
    gain: float
    sharpness: float


def measure_tradeoff(
    upscaler: Upscaler,
    pairs: list[tuple[Tensor, Tensor]],
    *,
    steps: tuple[int, ...] = (15, 8, 4, 2, 1),
    temperatures: tuple[float, ...] = (0.8, 0.88, 0.94, 1.0),
    kappas: tuple[float, ...] = (0.6, 0.85, 1.1, 1.3),
) -> dict[str, list[Point]]:
    """Vary one thing at a time, from what the model does by default.

    Args:
        upscaler: the model.
        pairs: images and their partners, all of one size, in [0, 1].
        steps: lengths of the chain.
        temperatures: for the whole chain.
        kappas: likewise; the network knows nothing of it.
    """
    own, usual = upscaler.spec.schedule.build(), upscaler.spec.temperature
    lq = torch.cat([small for _, small in pairs])
    base = [psnr_y(enlarge(small, upscaler.spec.scale), sharp) for sharp, small in pairs]

    @cache
    def measure(schedule: ShiftSchedule, temperature: float) -> tuple[float, float]:
        for state in walk(upscaler, lq * 2 - 1, schedule, temperature=temperature):
            latent = state.x0
        images = (upscaler.autoencoder.decode(latent) / 2 + 0.5).tensor_split(len(pairs))
        both = [(image, sharp) for image, (sharp, _) in zip(images, pairs, strict=True)]
        gain = np.mean([psnr_y(*pair) for pair in both]) - np.mean(base)
        detail = np.mean([sharpness(image) / sharpness(sharp) for image, sharp in both])
        return float(gain), float(detail)

    return {
        "steps": [Point(f"{n}", *measure(own.respaced(n), usual)) for n in steps],
        "temperature": [Point(f"{heat:g}", *measure(own, heat)) for heat in temperatures],
        "kappa": [Point(f"{k:g}", *measure(replace(own, kappa=k), usual)) for k in kappas],
    }


def draw_tradeoff(target: Path, curves: dict[str, list[Point]]) -> None:
    """A line per thing that was varied."""
    figure, plot = pyplot.subplots(figsize=(WIDTH, 4.4), dpi=DPI, layout="constrained")
    labels = {
        "steps": "number of steps",
        "temperature": "temperature, 15 steps",
        "kappa": r"$\kappa$ of the walk, 15 steps (trained with 1.3)",
    }
    places = ((4, 5), (-26, -7), (-3, -15))  # of labels, so that those of several lines keep apart
    for (name, points), marker, place in zip(curves.items(), "os^", places, strict=True):
        sharp, gain = [p.sharpness for p in points], [p.gain for p in points]
        plot.plot(sharp, gain, marker + "-", lw=LINE_WIDTH, label=labels[name], alpha=0.85)
        colour = plot.lines[-1].get_color()
        for point in points:
            plot.annotate(
                point.label,
                (point.sharpness, point.gain),
                xytext=place,
                textcoords="offset points",
                fontsize=8,
                color=colour,
            )
    plot.axhline(0, color="gray", lw=0.8)
    plot.margins(0.07)
    plot.set_xlabel("sharpness (original 1)")
    plot.set_ylabel("PSNR-Y beyond bicubic, dB")
    plot.grid(alpha=0.3)
    plot.legend(fontsize=9)
    figure.savefig(target)
    pyplot.close(figure)


@torch.no_grad()
def main(
    folder: Annotated[Path, typer.Argument(help="Where the pictures go.")],
    photos: Annotated[Path | None, typer.Option(help="Folder of the held-out photos.")] = None,
) -> None:
    """Draw the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    upscaler = Upscaler.from_pretrained("chain-x4", device="cpu")
    draw_schedules(folder / "schedules.png")
    draw_states(folder / "states.png", upscaler)
    if photos is not None:
        pairs = held_out_pairs(photos, scale=upscaler.spec.scale, crop=CROP)
        curves = measure_tradeoff(upscaler, pairs)
        for name, points in curves.items():
            for point in points:
                print(f"{name} {point.label}: {point.gain:+.2f} dB, {point.sharpness:.3f}")
        draw_tradeoff(folder / "tradeoff.png", curves)


if __name__ == "__main__":
    typer.run(main)
