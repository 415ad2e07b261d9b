"""Mend images at their own size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import SupportsFloat, Unpack

from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import UsageError
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration import arrays, mending
from resshift_cli.restoration import settings as choosing
from resshift_cli.restoration.arrays import ImageT
from resshift_cli.restoration.model import Model, Progress
from resshift_cli.restoration.settings import Settings, Tuning
from resshift_cli.system import memory


class Restorer(Model):
    """A model that takes damage away at an image's own size; see `Model` for how it is made."""

    @staticmethod
    def check(spec: ModelSpec, name: str) -> None:
        """See `Model.check`."""
        if spec.scale != 1:
            raise UsageError(
                f"'{name}' enlarges by {spec.scale}, and can't mend an image at its own size.",
                hint="`resshift models list --task restore` shows the models that do.",
            )

    def __call__(
        self,
        image: ImageT,
        *,
        strength: SupportsFloat = 1.0,
        progress: Progress = None,
        **options: Unpack[Tuning],
    ) -> ImageT:
        """Mend an image.

        Args:
            image: as `Upscaler.__call__` takes it.
            strength: how far the image is replaced by what the model makes of it, 0 to 1.
            progress: see `Upscaler.__call__`.
            options: how, all of them by name, see `settings.Tuning`.

        Returns:
            An image of the same size, of the kind and type that was given; its alpha is as it was.

        Raises:
            UsageError: an argument outside its range; `ImageArgumentError` if it is the image.
            UnsupportedImageError: a PIL image of a mode that is not handled.
        """
        settings, strength = self.settings(**options), choosing.strength(strength)
        pixels, like = arrays.taken(image)
        height, width, channels = pixels.shape
        shape = (height, width, channels)
        bands = self.stream([pixels], shape, settings, strength, progress)
        return like(memory.collected(bands, shape))

    def stream(
        self,
        rows: Iterable[Pixels],
        shape: tuple[int, int, int],
        settings: Settings,
        strength: float = 1.0,
        progress: Progress = None,
    ) -> Iterator[Pixels]:
        """Mend an image that comes and goes in bands.

        Args:
            rows: bands, float32 (n, W, C) in [0, 1]; they are gone through again and again.
            shape: (H, W, C) of the image.
            settings: see `Restorer.settings`.
            strength: see `__call__`.
            progress: see `Upscaler.__call__`.

        Yields:
            Bands of the result, float32 (n, W, C) in [0, 1].

        Raises:
            ResShiftError: the result is not finite.
            Exception: memory does not hold the smallest tile.
        """
        yield from mending.mend(self._job(settings, progress), rows, shape, strength)

    def restoring(
        self, settings: Settings, strength: float
    ) -> Callable[[Iterable[Pixels], tuple[int, int, int], Progress], Iterator[Pixels]]:
        """What `imaging.files.enlarge` is handed: `stream` with these settings."""
        return lambda rows, shape, progress: self.stream(rows, shape, settings, strength, progress)

    def settings(self, **options: Unpack[Tuning]) -> Settings:
        """Check the options of `__call__`, and fill in what the model says.

        Raises:
            UsageError: an argument outside its range.
        """
        choosing.refuse_unknown(options, Tuning)
        return choosing.settings(self.spec, name=self.name, **options, scale=1)
