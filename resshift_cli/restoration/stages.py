"""What is done to every tile, one stage after another: encode, each step of the chain, decode.

Every stage is a stream of bands that pulls from the one before it. A tile is computed as soon as
the stage before has made the rows that it sees, so that of a large image only a few rows of tiles
per stage are in memory, and the result is that of all stages on the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from resshift_cli.diffusion import noise
from resshift_cli.diffusion.schedule import ShiftSchedule
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.restoration.bands import Bands, Reader
from resshift_cli.restoration.engine import Networks, Run
from resshift_cli.restoration.tiling import Blend, Box
from resshift_cli.restoration.turning import STILL, Turn

# Work on one tile relative to a denoiser call, from the FLOP counts of the published layouts.
ENCODE_UNITS = {"vq": 3, "space-to-depth": 0}
DECODE_UNITS = {"vq": 7, "space-to-depth": 0}


def units(spec: ModelSpec, calls: int) -> int:
    """Units of work on one tile, from pixels to pixels, with so many calls of the denoiser."""
    kind = spec.autoencoder.kind
    return ENCODE_UNITS[kind] + calls + DECODE_UNITS[kind]


@dataclass(frozen=True, slots=True)
class Source:
    """What a stage's tiles are cut from: an image, and how much finer than the latent it is."""

    reader: Reader
    ratio: int = 1

    def cut(self, boxes: Sequence[Box]) -> Tensor:
        """Tiles, box after box."""
        return torch.cat([self.reader.cut(box, self.ratio) for box in boxes])


class Stage(Protocol):
    """A computation on tiles."""

    @property
    def sources(self) -> Sequence[Source]:
        """What its tiles are cut from."""

    @property
    def units(self) -> int:
        """Work on one tile, in calls of the denoiser."""

    def compute(self, networks: Networks, boxes: Sequence[Box]) -> Tensor:
        """The tiles of N images, box after box."""


@dataclass(frozen=True, slots=True)
class Encode:
    """Pixels to the latent."""

    pixels: Source
    units: int

    @property
    def sources(self) -> Sequence[Source]:
        """See `Stage`."""
        return [self.pixels]

    def compute(self, networks: Networks, boxes: Sequence[Box]) -> Tensor:
        """See `Stage`."""
        return networks.autoencoder.encode(self.pixels.cut(boxes))


@dataclass(frozen=True, slots=True)
class Denoise:
    """The sharp latent, as it is predicted from x_t.

    Attributes:
        x_t: latent at step t.
        y0: latent of the upsampled low-quality image.
        shown: what the denoiser is shown of that image.
        schedule: the steps that are walked.
        t: which of them.
        planes: the noise of a tile that the denoiser is shown, for models that want some.
        shows_latent: whether `shown` is of the latent, too.
        turns: the views of a tile whose predictions are averaged.
    """

    x_t: Source
    y0: Source
    shown: Source
    schedule: ShiftSchedule
    t: int
    planes: Callable[[Box], Tensor] | None
    shows_latent: bool = False
    turns: Sequence[Turn] = STILL

    @property
    def sources(self) -> Sequence[Source]:
        """See `Stage`."""
        return [self.x_t, self.y0, self.shown]

    @property
    def units(self) -> int:
        """See `Stage`."""
        return len(self.turns)

    def compute(self, networks: Networks, boxes: Sequence[Box]) -> Tensor:
        """See `Stage`."""
        x_t, y0, shown = (source.cut(boxes) for source in self.sources)
        steps = torch.full((len(x_t),), self.t)
        planes = None
        if self.planes is not None:
            images = len(x_t) // len(boxes)
            planes = torch.cat([self.planes(box).expand(images, -1, -1, -1) for box in boxes])

        if self.turns == STILL:  # all but always: nothing is to be copied then
            return networks.denoiser(x_t, y0, shown, self.schedule, steps, planes)

        def predicted(turn: Turn) -> Tensor:
            latent = partial(networks.autoencoder.rearranged, how=turn)
            result = networks.denoiser(
                latent(x_t),
                latent(y0),
                latent(shown) if self.shows_latent else turn(shown),
                self.schedule,
                steps,
                None if planes is None else turn(planes),
            )
            return networks.autoencoder.rearranged(result, turn.back)

        total = predicted(self.turns[0])
        for turn in self.turns[1:]:
            total = total + predicted(turn)
        return total / len(self.turns)


@dataclass(frozen=True, slots=True)
class Decode:
    """The latent to pixels."""

    latent: Source
    units: int

    @property
    def sources(self) -> Sequence[Source]:
        """See `Stage`."""
        return [self.latent]

    def compute(self, networks: Networks, boxes: Sequence[Box]) -> Tensor:
        """See `Stage`."""
        return networks.autoencoder.decode(self.latent.cut(boxes))


def tiled(stage: Stage, run: Run, blend: Blend, rows: range) -> Bands:
    """A stage's result, float32: its tiles are computed as bands are asked for, and blended.

    Args:
        stage: what computes them.
        run: what with.
        blend: how they are blended.
        rows: the rows of tiles that are computed; the result is what `blend.whole` says of them.

    Raises:
        ResShiftError: the values are not finite in float32 either.
        Exception: the device's memory does not hold a single tile.
    """
    tiles = _Tiles(stage, run, blend, blend.whole(rows).start)
    # Noise is drawn in blocks, of which none should be drawn twice.
    multiple = noise.BLOCK if blend.factor == 1 else 1
    bands = blend.bands(tiles, batch=run.tile_batch, multiple=multiple, rows=rows)
    # A map, unlike a generator, holds no band while the next one is not asked for.
    return map(tiles.passed, bands)


@dataclass(slots=True)
class _Tiles:
    """The tiles that a stage gives to be blended.

    What is not finite is computed again once a row of tiles is done, so that the host need not wait
    for the device after every call.
    """

    stage: Stage
    run: Run
    blend: Blend
    _done: int  # row up to which the result was handed on
    _finite: list[tuple[Box, Tensor]] = field(default_factory=list)

    def compute(self, boxes: Sequence[Box]) -> Tensor:
        """Tiles, with zeros for those that are not finite."""
        for source in self.stage.sources:
            # Before anything is computed here, since it is made by the stage before this one.
            source.reader.fetch((boxes[-1].top + boxes[-1].height) * source.ratio)
        result = self.run.call(self.stage.compute, boxes)
        if self.stage.units:
            self.run.bar.update(self.stage.units * len(boxes))
        finite = torch.isfinite(result).flatten(1).all(dim=1)[:, None, None, None]
        self._finite.extend(zip(boxes, finite.tensor_split(len(boxes)), strict=True))
        return result.masked_fill_(~finite, 0.0)

    def mended(self) -> Iterator[tuple[Box, Tensor]]:
        """What is to be added after a row of tiles: those that were not finite, in float32.

        Of several images only those in which they were not; the others get zeros.
        """
        row, self._finite = self._finite, []
        if not row or torch.cat([finite for _, finite in row]).all():
            return
        for box, finite in row:
            if not finite.all():
                yield box, self.run.call_exactly(self.stage.compute, box).masked_fill_(finite, 0.0)

    def passed(self, band: Tensor) -> Tensor:
        """Let go of what is not needed after a band is handed on."""
        self._done += band.shape[-2]
        for source in self.stage.sources:
            source.reader.forget(self._done // self.blend.factor * source.ratio)
        return band
