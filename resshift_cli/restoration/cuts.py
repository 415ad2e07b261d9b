"""A large image cut into bands of rows that are enlarged one by one, with the bits of the whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

import torch

from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration import colour
from resshift_cli.restoration.arrays import pixels_of, planes_of
from resshift_cli.restoration.bands import Reader, Window, framed, unframed
from resshift_cli.restoration.engine import Run
from resshift_cli.restoration.halo import Halo
from resshift_cli.restoration.passes import UNIT, Job
from resshift_cli.restoration.pipeline import Pipeline
from resshift_cli.restoration.settings import Settings, frame, grid, pass_sizes
from resshift_cli.restoration.size import target_size
from resshift_cli.restoration.tiling import Frame, Grid

MOST_HALO = 0.5
"""Work that bands may take beside that of the whole image, in shares of it."""


@dataclass(frozen=True)
class Part:
    """Some rows of an image, and what their enlargement depends on.

    Attributes:
        spec: the model.
        settings: how the image is enlarged; `can_be_cut` says which will do.
        size: height and width of the image.
        rows: those of the image.
        batch: tiles per call of a network.
    """

    spec: ModelSpec
    settings: Settings
    size: tuple[int, int]
    rows: range
    batch: int = 1

    @property
    def frame(self) -> Frame:
        """What is around the image."""
        return frame(self.spec, *self.size, self.settings)

    @property
    def grid(self) -> Grid:
        """Its tiles."""
        return grid(self.spec, *self.size, self.settings)

    @cached_property
    def seen(self) -> range:
        """Rows whose enlargement the correction of colours looks at."""
        around = colour.reach(self.spec.scale, **self.settings.faithfulness(self.spec))
        return range(max(self.rows.start - around, 0), min(self.rows.stop + around, self.size[0]))

    @cached_property
    def halo(self) -> Halo:
        """What is computed for those."""
        pixels, top = self.spec.lq_pixels, self.frame.top
        latent = range((self.seen.start + top) // pixels, -(-(self.seen.stop + top) // pixels))
        return Halo.of(self.spec, self.grid, self.settings.steps, latent, self.batch)

    @property
    def source(self) -> range:
        """Rows of the image that all of it is made of."""
        low = self.halo.low
        shown = self.frame.rows(self.size[0])[low.start : low.stop]
        first, last = int(shown.min()), int(shown.max()) + 1
        return range(min(first, self.seen.start), max(last, self.seen.stop))

    @property
    def units(self) -> int:
        """Work on it."""
        return self.halo.units(self.spec, self.settings.views) * len(self.grid.columns.starts)


def can_be_cut(spec: ModelSpec, size: tuple[int, int], channels: int, settings: Settings) -> bool:
    """Whether bands of an image have the bits of the whole: it takes one pass, and no alpha.

    Args:
        spec: the model.
        size: height and width of the image.
        channels: of the image.
        settings: how it is enlarged.
    """
    factor = spec.scale
    enlarged = (size[0] * factor, size[1] * factor)
    is_one_pass = len(pass_sizes(spec, *size, settings.scale)) == 1
    is_exact = factor & (factor - 1) == 0  # whose multiples are no matter of rounding
    is_as_made = target_size(*size, settings.scale) == enlarged and settings.wrap == "none"
    return is_one_pass and is_exact and is_as_made and channels % 2 == 1


def cuts(spec: ModelSpec, size: tuple[int, int], settings: Settings) -> list[range]:
    """Rows of the bands of an image: as many as take no more than `MOST_HALO` beside the whole.

    Args:
        spec: the model.
        size: height and width of the image.
        settings: how it is enlarged, so that it `can_be_cut`.
    """
    most = (1 + MOST_HALO) * Part(spec, settings, size, range(size[0])).units

    def work(count: int) -> int:
        return sum(Part(spec, settings, size, rows).units for rows in even(size[0], count))

    least, beyond = 1, len(grid(spec, *size, settings).rows.starts) + 1
    while beyond - least > 1:
        count = (least + beyond) // 2
        least, beyond = (count, beyond) if work(count) <= most else (least, count)
    return even(size[0], least)


def even(height: int, count: int) -> list[range]:
    """So many bands of rows, as high as each other."""
    ends = [height * number // count for number in range(count + 1)]
    return [range(first, last) for first, last in zip(ends[:-1], ends[1:], strict=True)]


@torch.inference_mode()
def enlarged(
    job: Job, rows: Iterable[Pixels], shape: tuple[int, int, int], wanted: range
) -> Iterator[Pixels]:
    """Enlarge some rows of an image that comes in bands.

    Args:
        job: how.
        rows: all of the image, float32 (n, W, C) in [0, 1]; they are taken as far as need be.
        shape: (H, W, C) of it.
        wanted: the rows.

    Yields:
        Bands of the result, float32 (n, W', C) in [0, 1].

    Raises:
        ResShiftError: the result is not finite.
        Exception: memory does not hold a tile.
    """
    spec, settings, size = job.engine.spec, job.settings, shape[:2]
    tiles = grid(spec, *size, settings)
    batch = job.engine.at_most(job.tile_batch, tiles.rows.size * tiles.columns.size)
    part = Part(spec, settings, size, wanted, batch)
    with closing(job.bars(total=part.units, unit=UNIT)) as bar:
        planes = (planes_of(band) * 2 - 1 for band in _some(rows, part.source))
        source = Window(planes, part.source.start)
        shown, own = source.reader(), source.reader(part.seen.start)
        larger = _restored(Run(job.engine, batch, bar), part, shown)
        faithful = settings.faithfulness(spec)
        bands = colour.corrected(own, larger, size[0], spec.scale, wanted, **faithful)
        for band in bands:
            pixels = pixels_of((band / 2 + 0.5).cpu())
            yield pixels if shape[2] == 3 else pixels.mean(axis=-1, keepdims=True)


def _restored(run: Run, part: Part, shown: Reader) -> Window:
    """The enlarged rows that the correction of colours looks at, and some around them."""
    around, factor = part.frame, part.spec.scale
    pipeline = Pipeline(run, part.grid, part.settings, halo=part.halo)
    first = shown.passed
    lq = framed(shown, part.size[0], around, rows=part.halo.low, first=first)
    large, larger = (part.size[0] * factor, part.size[1] * factor), around.scaled(factor)
    pixels = unframed(pipeline.restore(lq), large, larger, first=pipeline.first)
    return Window(pixels, max(pipeline.first - larger.top, 0))


def _some(rows: Iterable[Pixels], wanted: range) -> Iterator[Pixels]:
    """Some rows of an image that comes in bands."""
    top = 0
    for band in rows:
        some = band[max(wanted.start - top, 0) : max(wanted.stop - top, 0)]
        top += len(band)
        if len(some):
            yield some
        if top >= wanted.stop:
            return
