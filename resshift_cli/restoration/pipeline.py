"""From low-quality rows to high-quality rows: encode, walk the chain, decode, all in tiles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from resshift_cli.diffusion import chain
from resshift_cli.diffusion.chain import Sampler
from resshift_cli.diffusion.noise import PLANES
from resshift_cli.restoration import bands
from resshift_cli.restoration.bands import Bands, Reader, Window
from resshift_cli.restoration.engine import Run
from resshift_cli.restoration.halo import BICUBIC_REACH, Halo, reduction_reach
from resshift_cli.restoration.resize import enlarge
from resshift_cli.restoration.settings import Settings, frame, grid
from resshift_cli.restoration.stages import (
    DECODE_UNITS,
    ENCODE_UNITS,
    Decode,
    Denoise,
    Encode,
    Source,
    Stage,
    tiled,
)
from resshift_cli.restoration.tiling import Blend, Box, Grid
from resshift_cli.restoration.turning import turns
from resshift_cli.restoration.wrapping import Ring
from resshift_cli.system.device import to_device


class Pipeline:
    """The stages for images of one size, enlarged by the model's own factor.

    Args:
        run: what is computed with.
        tiles: how the images are cut, within their frames.
        settings: see `settings.settings`; whatever `settings.scale` says.
        sampler: how the chain is walked, by default as the settings say.
        ring: where the image is among the tiles if it wraps, counted in latent positions.
        halo: what is computed for the rows that are wanted; by default all.

    Attributes:
        first: row of the result, within the frame, that `restore` begins with.
    """

    def __init__(
        self,
        run: Run,
        tiles: Grid,
        settings: Settings,
        sampler: Sampler | None = None,
        ring: Ring | None = None,
        halo: Halo | None = None,
    ) -> None:
        self.run = replace(run, detail=settings.detail)
        self.spec = run.engine.spec
        # Of a model with weights for the mean, the networks already are what was asked for.
        self.detail = 1.0 if self.spec.mean else settings.detail
        self.seed = settings.seed
        self.turns = turns(settings.tta)
        self.sampler = settings.sampler(self.spec) if sampler is None else sampler
        self.ring = ring
        self.field = run.field if ring is None else ring.field(run.field)
        self.latents = Blend(tiles)
        self.pixels = Blend(self.latents.grid, self.spec.autoencoder.factor)
        self.halo = halo or Halo.of(self.spec, tiles, self.sampler.schedule.steps)
        self.first = self.pixels.whole(self.halo.tiles[-1]).start
        self.run.begin(self.latents.grid.rows.size * self.latents.grid.columns.size)

    def restore(self, lq: Iterable[Tensor]) -> Bands:
        """Enlarge images with what is around them in their frames.

        Args:
            lq: bands of rows, float32 (N, 3, n, width) in [-1, 1], as wide as the tiles, and as
                high, or those rows that the halo says.
                Of a model that takes a mask (N, 4, n, width), too: the last plane is 1 where the
                image is unknown, and -1 where it is known, as all of it is without that plane.

        Returns:
            Bands of rows, float32 (N, 3, n, width * scale) in [-1, 1].
        """
        low, high = self._images(lq)
        encode, *steps, decode = self.halo.tiles
        y0 = self._blended(self._encode(high), encode)
        shown, ratio = self._condition(low, high, y0)

        def predict(x_t: Window, t: int) -> Window:
            planes = self._planes if self.spec.denoiser.noise_channels else None
            sources = Source(x_t.reader()), Source(y0.reader()), Source(shown.reader(), ratio)
            is_latent = self.spec.condition == "latent"
            schedule = self.sampler.schedule
            stage = Denoise(*sources, schedule, t, planes, is_latent, self.turns)
            return self._blended(stage, steps[-t])

        start = Window(self._started(y0.reader()), y0.first)
        states = list(chain.walk(start, predict, self._step, self.sampler.schedule.steps))
        latent = self._detailed(states[0].x0, states[-1].x0)
        # A map, unlike a generator, holds no band while the next one is not asked for.
        decoded = self._tiled(self._decode(latent), self.pixels, decode)
        return map(partial(torch.clamp, min=-1, max=1), decoded)

    def _images(self, lq: Iterable[Tensor]) -> tuple[Window, Window]:
        """The images on the device; and enlarged by bicubic interpolation."""
        height = self.latents.grid.rows.length * self.spec.lq_pixels
        first = self.halo.low.start
        shown = (to_device(self._masked(band), self.run.engine.device) for band in lq)
        low = Window(shown, first)

        def enlarged(image: Tensor) -> Tensor:
            large = enlarge(image[:, :3], self.spec.scale)
            return large.clamp(-1, 1) if self.spec.clip_lq else large

        reach, scale = BICUBIC_REACH, self.spec.scale
        large = bands.local(low.reader(), height, enlarged, reach=reach, up=scale, first=first)
        return low, Window(large, (first + reach) * scale if first else 0)

    def _masked(self, band: Tensor) -> Tensor:
        """What a model that takes a mask is shown of an image: without one, all is known."""
        if not self.spec.denoiser.lq_mask or band.shape[1] > 3:
            return band
        return F.pad(band, (0, 0, 0, 0, 0, 1), value=-1.0)

    def _condition(self, low: Window, high: Window, y0: Window) -> tuple[Window, int]:
        """What the denoiser is shown of the image, and how much finer than the latent that is."""
        if self.spec.condition == "latent":
            return y0, 1
        if self.spec.condition == "pixels":
            return low, self.spec.denoiser.lq_ratio
        factor = self.spec.autoencoder.factor

        def resized(image: Tensor) -> Tensor:
            size = [side // factor for side in image.shape[-2:]]
            return F.interpolate(image, size, mode="bicubic", align_corners=False).clamp(-1, 1)

        reach, first = reduction_reach(self.spec), high.first
        height = self.latents.grid.rows.length * factor
        reduced = bands.local(high.reader(), height, resized, reach=reach, down=factor, first=first)
        return Window(reduced, (first + reach) // factor if first else 0), 1

    def _encode(self, high: Window) -> Encode:
        outer = self.spec.autoencoder
        return Encode(Source(high.reader(), outer.factor), ENCODE_UNITS[outer.kind])

    def _decode(self, latent: Window) -> Decode:
        return Decode(Source(latent.reader()), DECODE_UNITS[self.spec.autoencoder.kind])

    def _blended(self, stage: Stage, rows: range) -> Window:
        """A stage's result for some rows of tiles, as latents."""
        first = self.latents.whole(rows).start
        return Window(self._tiled(stage, self.latents, rows), first)

    def _tiled(self, stage: Stage, blend: Blend, rows: range) -> Bands:
        result = tiled(stage, self.run, blend, rows)
        return result if self.ring is None else self.ring.scaled(blend.factor).closed(result)

    def _started(self, y0: Reader) -> Bands:
        top = y0.passed
        for band in y0:
            yield self.sampler.start(band, self._noise(band, top))
            top += band.shape[-2]

    def _detailed(self, mean: Window, result: Window) -> Window:
        """The latent between the first x_0 of the chain, which is a mean, and its last one."""
        if self.detail == 1:
            return result
        own = mean.reader(result.first)

        def between(band: Tensor) -> Tensor:
            bottom = own.passed + band.shape[-2]
            blended = torch.lerp(own.rows(own.passed, bottom), band, self.detail)
            own.forget(bottom)
            return blended

        return Window(map(between, result.reader()), result.first)

    def _step(self, x_t: Window, x0: Window, t: int) -> Window:
        own = x_t.reader(x0.first)

        def before(x0: Tensor) -> Tensor:
            top = own.passed
            bottom = top + x0.shape[-2]
            result = self.sampler.step(own.rows(top, bottom), x0, t, self._noise(x0, top))
            own.forget(bottom)
            return result

        return Window(map(before, x0.reader()), x0.first)

    def _noise(self, like: Tensor, top: int) -> chain.NoiseSource:
        """The noise of a band that begins at a row."""
        channels, height, width = like.shape[1:]
        return lambda draw: self._drawn(draw, channels, Box(0, 0, top, 0, height, width))

    def _planes(self, box: Box) -> Tensor:
        return self._drawn(PLANES, self.spec.denoiser.noise_channels, box)

    def _drawn(self, draw: int, channels: int, box: Box) -> Tensor:
        window = {"top": box.top, "left": box.left, "height": box.height, "width": box.width}
        noise = self.field(self.seed, draw, channels, **window)
        return to_device(noise, self.run.engine.device)


def restore(
    run: Run,
    lq: Iterable[Tensor],
    size: tuple[int, int],
    settings: Settings,
    sampler: Sampler | None = None,
) -> Bands:
    """Enlarge images of one size by the model's own factor: grown by their frame, and cut from it.

    Args:
        run: what is computed with.
        lq: bands of rows, float32 (N, 3, n, width) in [-1, 1].
        size: height and width of the images.
        settings: see `settings.settings`; whatever `settings.scale` says.
        sampler: how the chain is walked, by default as the settings say.

    Returns:
        Bands of rows, float32 (N, 3, n, width * scale) in [-1, 1].
    """
    spec = run.engine.spec
    around, ring = frame(spec, *size, settings), None
    if settings.wrap != "none":
        ring = Ring(around, *size).coarser(spec.lq_pixels)
    pipeline = Pipeline(run, grid(spec, *size, settings), settings, sampler, ring)
    pixels = pipeline.restore(bands.framed(lq, size[0], around))
    large = (size[0] * spec.scale, size[1] * spec.scale)
    return bands.unframed(pixels, large, around.scaled(spec.scale))
