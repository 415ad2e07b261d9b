"""Images mended at their own size: holes filled, or damage taken away; all else stays as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from resshift_cli.diffusion.noise import shifted
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.imaging.alpha import visible
from resshift_cli.imaging.masks import Hole
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration import bands, passes
from resshift_cli.restoration.arrays import pixels_of, planes_of
from resshift_cli.restoration.bands import Bands, Reader, Window
from resshift_cli.restoration.engine import Run
from resshift_cli.restoration.passes import UNIT, Job
from resshift_cli.restoration.pipeline import Pipeline
from resshift_cli.restoration.prefill import REACH, prefilled
from resshift_cli.restoration.settings import Settings, frame, grid
from resshift_cli.restoration.stages import units
from resshift_cli.restoration.tiling import Box, Frame, Grid


def fill(
    job: Job, rows: Iterable[Pixels], shape: tuple[int, int, int], hole: Hole
) -> Iterator[Pixels]:
    """Fill a hole in an image that comes in bands: only the tiles that touch it are computed.

    Args:
        job: how.
        rows: bands, float32 (n, W, C) in [0, 1]; they are gone through again and again.
        shape: (H, W, C) of the image.
        hole: what is to be filled.

    Yields:
        Bands of the result, float32 (n, W, C) in [0, 1], bit for bit as they were elsewhere.

    Raises:
        ResShiftError: the result is not finite.
        Exception: memory does not hold the smallest tile.
    """
    return passes.fitted(job, partial(_filled, rows=rows, shape=shape, hole=hole))


def mend(
    job: Job, rows: Iterable[Pixels], shape: tuple[int, int, int], strength: float
) -> Iterator[Pixels]:
    """Mend an image that comes in bands; alpha, and colours that it hides, stay as they are.

    Args:
        job: how.
        rows: as `fill`.
        shape: likewise.
        strength: how far the image is replaced, 0 to 1.

    Yields:
        Bands of the result, float32 (n, W, C) in [0, 1].

    Raises:
        ResShiftError, Exception: as `fill`.
    """
    height, width, channels = shape
    colours = 1 if channels < 3 else 3
    shown = visible(rows, channels)
    mended = Window(map(planes_of, passes.stream(job, shown, (height, width, colours)))).reader()
    top = 0
    for band in rows:
        bottom = top + len(band)
        result, share = band.copy(), np.float32(strength)
        new = pixels_of(mended.rows(top, bottom))[..., :colours]
        mixed = band[..., :colours] * (1 - share) + new * share
        if colours < channels:
            mixed = np.where(band[..., -1:] > 0, mixed, band[..., :colours])
        result[..., :colours] = mixed
        mended.forget(bottom)
        yield result
        top = bottom


@dataclass(frozen=True, slots=True)
class Part:
    """The tiles of an image that a hole touches.

    Attributes:
        tiles: they, counted in latent positions from the corner of what they cover.
        covered: where that is among all tiles, counted in latent positions.
        around: the frame that the image is grown to, in pixels.
    """

    tiles: Grid
    covered: Box
    around: Frame

    @classmethod
    def of(cls, spec: ModelSpec, settings: Settings, hole: Hole) -> Part:
        """Those of an image that is as large as the hole's arrays."""
        height, width = hole.unknown.shape
        around, pixels = frame(spec, height, width, settings), spec.lq_pixels

        def touched(box: Box) -> bool:
            top, left = box.top * pixels - around.top, box.left * pixels - around.left
            bottom, right = top + box.height * pixels, left + box.width * pixels
            return bool(hole.unknown[max(top, 0) : bottom, max(left, 0) : right].any())

        return cls(*grid(spec, height, width, settings).around(touched), around)

    def work(self, spec: ModelSpec, calls: int) -> int:
        """Units of it, with so many calls of the denoiser for a tile."""
        return len(self.tiles) * units(spec, calls)


def share_of_work(spec: ModelSpec, settings: Settings, hole: Hole) -> float:
    """The share of an image's tiles that a hole touches, 0 to 1."""
    height, width = hole.unknown.shape
    whole = grid(spec, height, width, settings)
    return len(Part.of(spec, settings, hole).tiles) / len(whole)


@torch.inference_mode()
def _filled(
    job: Job, rows: Iterable[Pixels], shape: tuple[int, int, int], hole: Hole
) -> Iterator[Pixels]:
    height, width, channels = shape
    spec, settings = job.engine.spec, job.settings
    part = Part.of(spec, settings, hole)
    with closing(job.bars(total=part.work(spec, settings.calls), unit=UNIT)) as bar:
        above, beside = part.covered.top, part.covered.left
        run = Run(job.engine, job.tile_batch, bar)
        run = replace(run, field=shifted(run.field, above, beside))
        shown = rows if hole.opaque else visible(rows, channels)
        lq = _masked(shown, hole)
        if spec.prefill:
            lq = bands.local(lq, height, _prefilled, reach=REACH)
        within, (top, left), size = _cut(part, lq, (height, width), spec)
        pixels = Pipeline(run, part.tiles, settings).restore(within)
        # What of the part's pixels shows the image itself.
        inner = (max(top, 0), max(left, 0))
        bottom, right = min(top + size[0], height), min(left + size[1], width)
        inset = Frame(inner[0] - top, inner[1] - left, *size)
        own = bands.unframed(pixels, (bottom - inner[0], right - inner[1]), inset)
        filling = Window((band / 2 + 0.5).cpu() for band in own).reader()
        yield from _put(rows, filling, hole, inner, bottom)


def _cut(
    part: Part, lq: Bands, image: tuple[int, int], spec: ModelSpec
) -> tuple[Bands, tuple[int, int], tuple[int, int]]:
    """What of an image a part covers, where in the image that begins, and its height and width."""
    pixels, box, around = spec.lq_pixels, part.covered, part.around
    top, left = box.top * pixels, box.left * pixels
    size = (box.height * pixels, box.width * pixels)
    place = Frame(top, left, around.height, around.width)
    within = bands.unframed(bands.framed(lq, image[0], around), size, place)
    return within, (top - around.top, left - around.left), size


def _masked(rows: Iterable[Pixels], hole: Hole) -> Bands:
    """Bands (1, 4, n, W) in [-1, 1]: colours, -1 where they are unknown, and 1 there else -1."""
    top = 0
    for band in rows:
        unknown = torch.from_numpy(hole.unknown[top : top + len(band)])[None, None]
        colours = planes_of(band[..., : 1 if band.shape[2] < 3 else 3]) * 2 - 1
        mask = unknown.float() * 2 - 1
        yield torch.cat([colours.masked_fill(unknown, -1.0), mask], dim=1)
        top += len(band)


def _prefilled(band: Tensor) -> Tensor:
    """A band as `_masked` makes them, with something in its holes."""
    colours, mask = band[:, :3], band[:, 3:]
    return torch.cat([prefilled(colours, mask > 0), mask], dim=1)


def _put(
    rows: Iterable[Pixels], filling: Reader, hole: Hole, corner: tuple[int, int], bottom: int
) -> Iterator[Pixels]:
    """An image's bands with what fills its hole in rows from the corner's to `bottom`."""
    (first, left), top = corner, 0
    for band in rows:
        start, end = max(top, first), min(top + len(band), bottom)
        if start < end:
            new = _like(filling.rows(start - first, end - first), band)
            filling.forget(end - first)
            result = band.copy()
            result[start - top : end - top] = hole.filled(
                band[start - top : end - top], start, left, new
            )
            yield result
        else:
            yield band
        top += len(band)


def _like(planes: Tensor, band: Pixels) -> Pixels:
    """Colours as many as a band has."""
    colours = pixels_of(planes)
    return colours if band.shape[2] >= 3 else colours.mean(axis=-1, keepdims=True)
