"""An image of any size by any scale: as many passes of the pipeline as it takes, with alpha."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import out_of_memory
from resshift_cli.imaging.alpha import fill_hidden
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration import colour
from resshift_cli.restoration.arrays import pixels_of, planes_of
from resshift_cli.restoration.bands import Bands, Reader, Window, framed, unframed
from resshift_cli.restoration.engine import Engine, Run
from resshift_cli.restoration.pipeline import Pipeline, restore
from resshift_cli.restoration.resize import lanczos
from resshift_cli.restoration.settings import (
    Settings,
    frame,
    grid,
    pass_sizes,
    single_tile,
    smaller_tile,
    uninvented,
    wrapped_size,
)
from resshift_cli.restoration.size import target_size
from resshift_cli.restoration.stages import units
from resshift_cli.restoration.tiling import Frame
from resshift_cli.system.device import release_memory, to_device
from resshift_cli.system.progress import Bars

UNIT = "tile step"
"""What bars count: about one call of the denoiser on one tile."""


@dataclass(frozen=True, slots=True)
class Job:
    """How images are to be enlarged.

    Attributes:
        engine: the model.
        tile_batch: tiles per call of a network.
        settings: see `settings.settings`.
        bars: for one bar.
    """

    engine: Engine
    tile_batch: int
    settings: Settings
    bars: Bars


def stream(job: Job, rows: Iterable[Pixels], shape: tuple[int, int, int]) -> Iterator[Pixels]:
    """Enlarge an image that comes in bands, in smaller tiles where memory does not hold one.

    Args:
        job: how.
        rows: bands, float32 (n, W, C) in [0, 1]; it may have to be gone through again.
        shape: (H, W, C) of the image.

    Yields:
        Bands of the result, float32 (n, W', C) in [0, 1].

    Raises:
        ResShiftError: the result is not finite.
        Exception: memory does not hold the smallest tile.
    """
    return fitted(job, lambda job: _enlarged(job, rows, shape))


def fitted(job: Job, run: Callable[[Job], Iterator[Pixels]]) -> Iterator[Pixels]:
    """Do a job, in smaller tiles where memory does not hold one.

    Args:
        job: it.
        run: does it, from the beginning every time.

    Yields:
        What that gives.

    Raises:
        Exception: as `run`, or memory does not hold the smallest tile.
    """
    while True:
        begun = False
        try:
            for band in run(job):
                begun = True
                yield band
            return
        except Exception as error:
            smaller = smaller_tile(job.engine.spec, job.settings)
            if begun or smaller is None or not out_of_memory(error):
                raise
        release_memory(job.engine.device)
        job = replace(job, tile_batch=1, settings=smaller)
        job.engine.tell(f"Memory ran out: beginning anew with tiles of {smaller.tile} px.")


@torch.inference_mode()
def _enlarged(job: Job, rows: Iterable[Pixels], shape: tuple[int, int, int]) -> Iterator[Pixels]:
    height, width, channels = shape
    layers, opacity = _layers(rows, channels, job.settings)
    total = len(layers) * _work(job.engine.spec, height, width, job.settings)
    with closing(job.bars(total=total, unit=UNIT)) as bar:
        passes = _Passes(Run(job.engine, job.tile_batch, bar), (height, width))
        # What is opaque, or clear, has to stay so: opacity is projected on that of the image.
        exact = uninvented(job.engine.spec, job.settings)
        alpha = Window(passes.enlarged(layers[1], exact)).reader() if len(layers) > 1 else None
        top = 0
        for band in passes.enlarged(layers[0], job.settings):
            shown = pixels_of(band)
            if channels < 3:
                shown = shown.mean(axis=-1, keepdims=True)
            if channels % 2 == 0:
                bottom = top + len(shown)
                veil = np.full((*shown.shape[:2], 1), opacity, np.float32)
                if alpha is not None:
                    veil = _taken(alpha, top, bottom)
                shown, top = np.concatenate([shown, veil], axis=-1), bottom
            yield shown


@torch.inference_mode()
def together(job: Job, images: Sequence[Pixels], count: int) -> list[Pixels]:
    """Enlarge images of a single tile each at a time, see `Upscaler.together`."""
    spec, settings = job.engine.spec, job.settings
    if not _alike(spec, images, settings) or len(images) > count:
        raise ValueError(f"not 1 to {count} images without alpha that one tile holds")
    low = [planes_of(image) * 2 - 1 for image in images]
    frames = [frame(spec, lq.shape[-2], lq.shape[-1], settings) for lq in low]
    padded = [around.pad(lq) for around, lq in zip(frames, low, strict=True)]
    padded += padded[:1] * (count - len(padded))
    with closing(job.bars(total=units(spec, settings.calls), unit=UNIT)) as bar:
        tiles = grid(spec, low[0].shape[-2], low[0].shape[-1], settings)
        pipeline = Pipeline(Run(job.engine, job.tile_batch, bar), tiles, settings)
        restored = torch.cat(list(pipeline.restore([torch.cat(padded)])), dim=-2)
    wanted = settings.faithfulness(spec)
    results = []
    for image, lq, around, whole in zip(images, low, frames, restored, strict=False):
        height, width, channels = image.shape
        target = target_size(height, width, settings.scale)
        height, width = height * spec.scale, width * spec.scale
        top, left = around.top * spec.scale, around.left * spec.scale
        shown = whole[None, :, top : top + height, left : left + width]
        shown = colour.correct(shown, to_device(lq, job.engine.device), **wanted)
        band = (shown / 2 + 0.5).cpu()
        bands = lanczos(iter([band]), (height, width), target)
        pixels = np.concatenate([pixels_of(band) for band in bands])
        results.append(pixels if channels == 3 else pixels.mean(axis=-1, keepdims=True))
    return results


@dataclass(frozen=True, slots=True)
class _Passes:
    """All passes over the layers of an image of one size, within one run."""

    run: Run
    size: tuple[int, int]

    def enlarged(self, layer: Bands, settings: Settings) -> Bands:
        """Bands (1, 3, n, W) in [0, 1], to bands of the target's size."""
        spec, size = self.run.engine.spec, self.size
        for number, wanted in enumerate(_sizes(spec, *size, settings)):
            own = replace(settings, seed=(settings.seed + number) % 2**64)
            layer = self._pass(lanczos(layer, size, wanted, settings.wrap), wanted, own)
            size = (wanted[0] * spec.scale, wanted[1] * spec.scale)
        return lanczos(layer, size, target_size(*self.size, settings.scale), settings.wrap)

    def _pass(self, layer: Bands, size: tuple[int, int], settings: Settings) -> Bands:
        """One pass, its result made true to the layer as the settings want it."""
        spec = self.run.engine.spec
        factor, wanted = spec.scale, settings.faithfulness(spec)
        large = (size[0] * factor, size[1] * factor)
        # What a correction looks at beyond a border that meets the other one is there.
        reach = colour.reach(factor, **wanted)
        above, beside = (reach if axis in settings.wrap else 0 for axis in "yx")
        height, width = size[0] + 2 * above, size[1] + 2 * beside
        around = Frame(above, beside, height, width, settings.wrap)

        def enlarged(lq: Iterable[Tensor]) -> Bands:
            restored = restore(self.run, unframed(lq, size, around), size, settings)
            wider = above or beside
            return framed(restored, large[0], around.scaled(factor)) if wider else restored

        lq: Bands = (band * 2 - 1 for band in layer)
        if above or beside:
            lq = framed(lq, size[0], around)
        faithful = colour.faithful(lq, enlarged, height, factor, **wanted)
        shown = unframed(faithful, large, around.scaled(factor))
        return ((band / 2 + 0.5).cpu() for band in shown)


def _work(spec: ModelSpec, height: int, width: int, settings: Settings) -> int:
    """Units of work on one layer."""
    sizes = _sizes(spec, height, width, settings)
    tiles = sum(len(grid(spec, *size, settings)) for size in sizes)
    return tiles * units(spec, settings.calls)


def _sizes(spec: ModelSpec, height: int, width: int, settings: Settings) -> list[tuple[int, int]]:
    """What goes into every pass: where it wraps, a whole number of latent positions."""
    sizes = pass_sizes(spec, height, width, settings.scale)
    return [wrapped_size(spec, *size, settings) for size in sizes]


def _layers(rows: Iterable[Pixels], channels: int, settings: Settings) -> tuple[list[Bands], float]:
    """What has to go through the networks, as (1, 3, n, W); and the opacity if it is constant."""
    if channels % 2:
        return [(planes_of(band) for band in rows)], 1.0
    pixels = np.concatenate(list(rows))
    colours, alpha = pixels[..., :-1], pixels[..., -1:]
    layers = [colours if settings.keep_hidden else _seen(colours, alpha, settings.wrap)]
    if alpha.min() < alpha.max():
        layers.append(alpha)
    return [iter([planes_of(layer)]) for layer in layers], float(alpha.min())


def _seen(colours: Pixels, alpha: Pixels, wrap: str) -> Pixels:
    """Colours of which none is hidden, also to those who look across borders that meet."""
    if wrap == "none":
        return fill_hidden(colours, alpha)
    height, width = alpha.shape[:2]
    top, left = height // 2 * ("y" in wrap), width // 2 * ("x" in wrap)
    padding = ((top, top), (left, left), (0, 0))
    filled = fill_hidden(*(np.pad(layer, padding, mode="wrap") for layer in (colours, alpha)))
    return filled[top : top + height, left : left + width]


def _taken(alpha: Reader, top: int, bottom: int) -> Pixels:
    """Rows of opacity, (n, W, 1), that nobody asks for again."""
    veil: Pixels = pixels_of(alpha.rows(top, bottom)).mean(axis=-1, keepdims=True)
    alpha.forget(bottom)
    return veil


def _alike(spec: ModelSpec, images: Sequence[Pixels], settings: Settings) -> bool:
    """Whether some images have no alpha, and each is grown to the same single tile."""
    if any(image.shape[2] not in (1, 3) for image in images):
        return False
    sizes = {single_tile(spec, image.shape[0], image.shape[1], settings) for image in images}
    return len(sizes) == 1 and None not in sizes
