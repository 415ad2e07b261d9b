"""One image in, one out, in all the kinds that a caller may have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Unpack

from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import ResShiftError, UsageError
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration import arrays, cuts, fitting, passes
from resshift_cli.restoration import settings as choosing
from resshift_cli.restoration.arrays import ImageT
from resshift_cli.restoration.model import Model, Progress
from resshift_cli.restoration.settings import Options, Settings
from resshift_cli.restoration.size import target_size
from resshift_cli.system import memory
from resshift_cli.system.progress import bars_of


class Upscaler(Model):
    """A model that enlarges; see `Model` for how it is made."""

    @staticmethod
    def check(spec: ModelSpec, name: str) -> None:
        """See `Model.check`."""
        if spec.denoiser.lq_mask:
            raise UsageError(
                f"'{name}' fills holes: it needs a mask, and can't enlarge an image.",
                hint="`resshift models list` shows the models that enlarge.",
            )

    def __call__(
        self, image: ImageT, *, progress: Progress = None, **options: Unpack[Options]
    ) -> ImageT:
        """Enlarge an image.

        Args:
            image: a PIL image; a numpy array, uint8, uint16 or float in [0, 1], (H, W) or (H, W, C)
                with C = 1 gray, 2 gray and alpha, 3 RGB or 4 RGB and alpha; or a tensor, uint8 or
                float in [0, 1], (3, H, W) or (1, 3, H, W).
            progress: True for a bar of tqdm's, in a script or a notebook; a maker of such bars; or
                a function of units done and units in all, called after every tile.
            options: how, all of them by name, see `settings.Options`.

        Returns:
            The enlarged image, of the kind and type that was given; floats in [0, 1].

        Raises:
            UsageError: an argument outside its range; `ImageArgumentError` if it is the image.
            UnsupportedImageError: a PIL image of a mode that is not handled.
        """
        settings = self.settings(**options)
        pixels, like = arrays.taken(image)
        return like(self.enlarge(pixels, settings, progress))

    def enlarge(self, pixels: Pixels, settings: Settings, progress: Progress = None) -> Pixels:
        """Enlarge float32 (H, W, C) in [0, 1], C as in `__call__`.

        Raises:
            MemoryError: the result can't be held.
            ResShiftError, Exception: as `stream`.
        """
        height, width, channels = pixels.shape
        bands = self.stream([pixels], (height, width, channels), settings, progress)
        target = target_size(height, width, settings.scale)
        return memory.collected(bands, (*target, channels))

    def stream(
        self,
        rows: Iterable[Pixels],
        shape: tuple[int, int, int],
        settings: Settings,
        progress: Progress = None,
    ) -> Iterator[Pixels]:
        """Enlarge an image that comes and goes in bands, and is in memory whole only with alpha.

        Args:
            rows: bands, float32 (n, W, C) in [0, 1]; it may have to be gone through again.
            shape: (H, W, C) of the image, C as in `__call__`.
            settings: see `Upscaler.settings`.
            progress: see `__call__`.

        Yields:
            Bands of the result, float32 (n, W', C) in [0, 1].

        Raises:
            ResShiftError: the result is not finite.
            Exception: memory does not hold the smallest tile.
        """
        yield from passes.stream(self._job(settings, progress), rows, shape)

    def band(
        self,
        rows: Iterable[Pixels],
        shape: tuple[int, int, int],
        settings: Settings,
        wanted: range,
        progress: Progress = None,
    ) -> Iterator[Pixels]:
        """Enlarge some rows of an image as `stream` enlarges all, with the same bits.

        Args:
            rows: as `stream`; they are taken as far as need be.
            shape: (H, W, C) of the image.
            settings: see `Upscaler.settings`, so that `cuts.can_be_cut`.
            wanted: the rows.
            progress: see `__call__`.

        Yields:
            Bands of the result, float32 (n, W', C) in [0, 1].

        Raises:
            ResShiftError: the result is not finite, or memory is short for such tiles.
            Exception: memory does not hold a tile.
        """
        job = self._job(settings, progress)
        if job.settings != settings:
            raise ResShiftError(
                f"Memory is short for tiles of {settings.tile} px.",
                hint="Use smaller tiles (--tile).",
            )
        yield from cuts.enlarged(job, rows, shape, wanted)

    def at_once(self, size: tuple[int, int]) -> int:
        """How many images `together` is best given, padded to `settings.single_tile`.

        The same on all machines of a kind, whatever is free there.
        """
        return self.chosen_batch or fitting.images_at_once(
            self.spec, self.dtype, self.device, self.max_memory, size
        )

    def together(
        self, images: Sequence[Pixels], settings: Settings, count: int, progress: Progress = None
    ) -> list[Pixels]:
        """Enlarge images of a single tile each at a time.

        A result depends on `count`, by rounding, but neither on the other images nor on how many
        they are: the networks are given `count` in any case.

        Args:
            images: 1 to `count`, float32 (H, W, 1 or 3) in [0, 1], of one `single_tile`.
            settings: see `Upscaler.settings`.
            count: images per call of a network.
            progress: see `__call__`.

        Raises:
            ValueError: the images are others than those.
            ResShiftError: a result is not finite.
            Exception: memory does not hold so many.
        """
        job = passes.Job(self.engine, self.chosen_batch or 1, settings, bars_of(progress))
        return passes.together(job, images, count)

    def enlarging(
        self, settings: Settings
    ) -> Callable[[Iterable[Pixels], tuple[int, int, int], Progress], Iterator[Pixels]]:
        """What `imaging.files.enlarge` is handed: `stream` with these settings."""
        return lambda rows, shape, progress: self.stream(rows, shape, settings, progress)

    def settings(self, **options: Unpack[Options]) -> Settings:
        """Check the options of `__call__`, and fill in what the model says.

        Args:
            options: those of `__call__`, or some of them.

        Raises:
            UsageError: an argument outside its range.
        """
        return choosing.settings(self.spec, name=self.name, **options)
