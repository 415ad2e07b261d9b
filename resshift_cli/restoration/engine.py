"""From low-quality rows to high-quality rows: encode, walk the chain, decode, all in tiles.

Every stage is a stream of bands that pulls from the one before it: the encoder, each step of the
chain, the decoder. A step is computed for a row of tiles as soon as the step before it has made the
rows that those tiles see, so that of a large image only a few rows of tiles per step are in memory,
and the result is that of all stages on the whole image.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from resshift_cli.diffusion import chain, noise
from resshift_cli.diffusion.autoencoder import Autoencoder
from resshift_cli.diffusion.denoiser import Denoiser
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import ResShiftError, out_of_memory
from resshift_cli.restoration import bands
from resshift_cli.restoration import settings as plan
from resshift_cli.restoration.bands import Bands, Reader, Window
from resshift_cli.restoration.resize import enlarge
from resshift_cli.restoration.settings import Settings
from resshift_cli.restoration.tiling import Box
from resshift_cli.system.device import compile_parts, pack, place, release_memory, to_device

# Work on one tile relative to a denoiser call, from the FLOP counts of the published layouts.
ENCODE_UNITS = {"vq": 3, "space-to-depth": 0}
DECODE_UNITS = {"vq": 7, "space-to-depth": 0}

# Which draw of the noise field is what; draw t > 0 belongs to step t of the chain.
PRIOR = 0
PLANES = 1 << 32

BICUBIC_REACH = 2  # input pixels that bicubic enlargement looks at on either side


@dataclass(frozen=True, slots=True)
class Networks:
    """A denoiser and its way to the latent and back."""

    denoiser: Denoiser
    autoencoder: Autoencoder

    def placed(
        self, device: torch.device, dtype: torch.dtype, compiled: Path | None = None
    ) -> Networks:
        """The same networks, moved in place, and packed, or compiled into a folder.

        Raises:
            DeviceError: as `compile_parts`.
        """
        for network in (self.denoiser.eval(), self.autoencoder.eval()):
            place(network, device, dtype)
            if compiled is None:
                pack(network)
            else:
                compile_parts(network.parts, device, compiled)
        return self


Compute = Callable[[Networks, Sequence[Box]], Tensor]


@dataclass(slots=True)
class Engine:
    """Networks on a device, that come to terms with too little memory and too small a range.

    Attributes:
        spec: the model's table.
        name: for messages.
        networks: on the device, in `dtype`.
        device: where to compute.
        dtype: what the networks compute in.
        tile_batch: tiles per call of a network; halved when memory runs out.
        whole_batches: never compute fewer, since the networks are compiled for so many.
        tell: called with a sentence about what had to be done otherwise.
    """

    spec: ModelSpec
    name: str
    networks: Networks
    device: torch.device
    dtype: torch.dtype
    tile_batch: int
    whole_batches: bool = False
    tell: Callable[[str], None] = warnings.warn
    _exact: Networks | None = field(default=None, init=False, repr=False)

    def run(self, compute: Compute, boxes: Sequence[Box]) -> Tensor:
        """Compute tiles, the tiles of N images box after box, all of them finite.

        Raises:
            ResShiftError: the values are not finite in float32 either.
            Exception: the device's memory does not hold a single tile.
        """
        return torch.cat(list(self._parts(compute, boxes)))

    def _parts(self, compute: Compute, boxes: Sequence[Box]) -> Iterator[Tensor]:
        done = 0
        while done < len(boxes):
            some = boxes[done : done + self.tile_batch]
            missing = self.tile_batch - len(some) if self.whole_batches else 0
            given = [*some, *[some[-1]] * missing]
            try:
                result = compute(self.networks, given)
            except Exception as error:
                if len(given) == 1 or not out_of_memory(error):
                    raise
                result = None
            if result is None:  # out here the failed call is over, and its memory free
                release_memory(self.device)
                self.tile_batch = len(given) // 2
                tiles = f"{self.tile_batch} tiles" if self.tile_batch > 1 else "one tile"
                self.tell(f"Memory ran out: going on with {tiles} at a time.")
                continue
            done += len(some)
            result = result[: len(result) // len(given) * len(some)]
            if torch.isfinite(result).all():
                yield result
            else:
                parts = zip(some, result.tensor_split(len(some)), strict=True)
                for box, part in parts:
                    yield part if torch.isfinite(part).all() else self._again(compute, box, part)

    def _again(self, compute: Compute, box: Box, part: Tensor) -> Tensor:
        """A tile that overflowed, in float32; of several images, only those in which it did."""
        if self.dtype is not torch.float32:
            if self._exact is None:
                self.tell(
                    f"'{self.name}' gave values that are not finite in {self.dtype}: those tiles "
                    "are computed in float32."
                )
                self._exact = copy.deepcopy(self.networks).placed(self.device, torch.float32)
            good = torch.isfinite(part).flatten(1).all(dim=1)[:, None, None, None]
            result = torch.where(good, part, compute(self._exact, [box]))
            if torch.isfinite(result).all():
                return result
        raise ResShiftError(
            f"'{self.name}' gave values that are not finite.",
            hint="Its weights may be damaged: `resshift models verify` tells.",
        )

    def restore(
        self,
        lq: Iterable[Tensor],
        height: int,
        width: int,
        settings: Settings,
        advance: Callable[[int], None] = lambda count: None,
        field: noise.Field = noise.field,
    ) -> Bands:
        """Enlarge images of one size by the model's own factor, whatever `settings.scale` says.

        Args:
            lq: bands of rows, float32 (N, 3, n, width) in [-1, 1].
            height: of the images.
            width: likewise.
            settings: see `plan.settings`.
            advance: told how many units of work were done, after every call of a network.
            field: the noise, the same for all images; other than `noise.field` to repeat what was
                computed elsewhere.

        Yields:
            Bands of rows, float32 (N, 3, n, width * scale) in [-1, 1].
        """
        spec, grid = self.spec, plan.grid(self.spec, height, width, settings)
        rows, columns = grid.rows.length, grid.columns.length
        schedule = spec.schedule.build().respaced(settings.steps)
        factor, kind = spec.autoencoder.factor, spec.autoencoder.kind

        def tiled(
            compute: Compute, units: int, *readers: tuple[Reader, int], factor: int = 1
        ) -> Bands:
            """All tiles; with readers of what they are cut from, and how much finer that is."""

            def tiles(boxes: Sequence[Box]) -> Tensor:
                # Before anything is computed here, since it is made by the stage before this one.
                for reader, ratio in readers:
                    reader.fetch((boxes[-1].top + boxes[-1].height) * ratio)
                result = self.run(compute, boxes)
                if units:
                    advance(units * len(boxes))
                return result

            done, at_once = 0, self.tile_batch
            # Noise is drawn in blocks, of which none should be drawn twice.
            multiple = noise.BLOCK if factor == 1 else 1

            def passed(band: Tensor) -> Tensor:
                nonlocal done
                done += band.shape[-2]
                for reader, ratio in readers:
                    reader.forget(done // factor * ratio)
                return band

            return map(passed, grid.blend(tiles, factor=factor, batch=at_once, multiple=multiple))

        def draw(step: int, channels: int, top: int, height: int, left: int, width: int) -> Tensor:
            window = {"top": top, "left": left, "height": height, "width": width}
            return to_device(field(settings.seed, step, channels, **window), self.device)

        def noise_like(latent: Tensor, step: int, top: int) -> Tensor:
            return draw(step, latent.shape[1], top, latent.shape[-2], 0, columns)

        low = Window(
            to_device(band, self.device)
            for band in bands.padded(lq, height, rows * spec.lq_pixels, columns * spec.lq_pixels)
        )
        high = Window(
            bands.local(
                low.reader(),
                rows * spec.lq_pixels,
                self._enlarged,
                reach=BICUBIC_REACH,
                up=spec.scale,
            )
        )
        encoded = high.reader()

        def encode(networks: Networks, boxes: Sequence[Box]) -> Tensor:
            return networks.autoencoder.encode(_cut(encoded, boxes, factor))

        latent = Window(tiled(encode, ENCODE_UNITS[kind], (encoded, factor)))
        shown, shown_ratio = self._condition(low, high, latent, rows * factor)

        def step(previous: Bands, t: int) -> Bands:
            state = Window(previous)
            x, own, y, seen = state.reader(), state.reader(), latent.reader(), shown.reader()

            def denoise(networks: Networks, boxes: Sequence[Box]) -> Tensor:
                x_t = _cut(x, boxes)
                planes = None
                if spec.denoiser.noise_channels:
                    planes = torch.cat([draw_planes(box, x_t, boxes) for box in boxes])
                steps = torch.full((len(x_t),), t)
                given = (_cut(y, boxes), _cut(seen, boxes, shown_ratio), schedule, steps, planes)
                return networks.denoiser(x_t, *given)

            def draw_planes(box: Box, x_t: Tensor, boxes: Sequence[Box]) -> Tensor:
                place = (box.top, box.height, box.left, box.width)
                planes = draw(PLANES, spec.denoiser.noise_channels, *place)
                return planes.expand(len(x_t) // len(boxes), -1, -1, -1)

            def before(x0: Tensor) -> Tensor:
                top = own.passed
                bottom = top + x0.shape[-2]
                if t > 1:
                    fresh = settings.temperature * noise_like(x0, t, top)
                    x0 = chain.step(own.rows(top, bottom), x0, fresh, schedule, t)
                own.forget(bottom)
                return x0

            # A map, unlike a generator, holds no band while the next one is not asked for.
            return map(before, tiled(denoise, 1, (x, 1), (y, 1), (seen, shown_ratio)))

        def start(y0: Iterable[Tensor]) -> Bands:
            top = 0
            for band in y0:
                yield chain.prior(band, noise_like(band, PRIOR, top), schedule, spec.prior)
                top += band.shape[-2]

        state = start(latent.reader())
        for t in range(schedule.steps, 0, -1):
            state = step(state, t)
        final = Window(state).reader()

        def decode(networks: Networks, boxes: Sequence[Box]) -> Tensor:
            return networks.autoencoder.decode(_cut(final, boxes))

        left = height * spec.scale

        def shown_part(band: Tensor) -> Tensor:
            nonlocal left
            kept = band[..., :left, : width * spec.scale].clamp(-1, 1)
            left -= kept.shape[-2]
            return kept

        pixels = tiled(decode, DECODE_UNITS[kind], (final, 1), factor=factor)
        yield from map(shown_part, pixels)

    def _enlarged(self, lq: Tensor) -> Tensor:
        enlarged = enlarge(lq, self.spec.scale)
        return enlarged.clamp(-1, 1) if self.spec.clip_lq else enlarged

    def _condition(
        self, low: Window, high: Window, latent: Window, height: int
    ) -> tuple[Window, int]:
        """What the denoiser is shown of the image, and how much finer than the latent that is."""
        if self.spec.condition == "latent":
            return latent, 1
        if self.spec.condition == "pixels":
            return low, self.spec.denoiser.lq_ratio
        factor = self.spec.autoencoder.factor

        def resized(image: Tensor) -> Tensor:
            size = [side // factor for side in image.shape[-2:]]
            return F.interpolate(image, size, mode="bicubic", align_corners=False).clamp(-1, 1)

        # Bicubic reduction without antialiasing looks less than two pixels around its own.
        reach = -(-2 // factor) * factor
        return Window(bands.local(high.reader(), height, resized, reach=reach, down=factor)), 1


def _cut(reader: Reader, boxes: Sequence[Box], factor: int = 1) -> Tensor:
    return torch.cat([reader.cut(box, factor) for box in boxes])
