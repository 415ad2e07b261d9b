"""Fill holes in images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import ImageArgumentError, UsageError
from resshift_cli.imaging.masks import Hole, Unknown, light
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration import arrays, mending
from resshift_cli.restoration import settings as choosing
from resshift_cli.restoration.arrays import ImageT
from resshift_cli.restoration.model import Model, Progress
from resshift_cli.restoration.settings import Sampling, Settings
from resshift_cli.system import memory

MaskT = TypeVar("MaskT", Image.Image, NDArray[Any], Tensor)


class Inpainter(Model):
    """A model that fills holes; see `Model` for how it is made."""

    @staticmethod
    def check(spec: ModelSpec, name: str) -> None:
        """See `Model.check`."""
        if not spec.denoiser.lq_mask or spec.scale != 1:
            raise UsageError(
                f"'{name}' takes no mask, and can't fill holes.",
                hint="`resshift models list --task inpaint` shows the models that do.",
            )

    def __call__(
        self,
        image: ImageT,
        mask: MaskT,
        *,
        grow: int = 0,
        feather: int = 0,
        progress: Progress = None,
        **options: Unpack[Sampling],
    ) -> ImageT:
        """Fill the hole in an image.

        Args:
            image: as `Upscaler.__call__` takes it.
            mask: as large as the image: of booleans, true where it is unknown, (H, W); or an image
                of any kind that `Upscaler` takes, white, or half white and more, where it is.
            grow: see `masks.Hole.of`.
            feather: likewise.
            progress: see `Upscaler.__call__`.
            options: how, all of them by name, see `settings.Sampling`.

        Returns:
            The image, of the kind and type that was given; the same bit for bit where it is known.

        Raises:
            UsageError: an argument outside its range; `ImageArgumentError` if it is an image, the
                sizes differ, or the mask leaves nothing to be filled or nothing that is known.
            UnsupportedImageError: a PIL image of a mode that is not handled.
        """
        settings = self.settings(**options)
        pixels, like = arrays.taken(image)
        hole = Hole.of(_unknown(mask, pixels), grow=grow, feather=feather)
        bands = self.stream([pixels], pixels.shape, settings, hole, progress)
        return like(memory.collected(bands, pixels.shape))

    def stream(
        self,
        rows: Iterable[Pixels],
        shape: tuple[int, ...],
        settings: Settings,
        hole: Hole,
        progress: Progress = None,
    ) -> Iterator[Pixels]:
        """Fill a hole in an image that comes and goes in bands.

        Args:
            rows: bands, float32 (n, W, C) in [0, 1]; they are gone through again and again.
            shape: (H, W, C) of the image.
            settings: see `Inpainter.settings`.
            hole: what is to be filled, as large as the image.
            progress: see `Upscaler.__call__`.

        Yields:
            Bands of the result, float32 (n, W, C) in [0, 1].

        Raises:
            ResShiftError: the result is not finite.
            Exception: memory does not hold the smallest tile.
        """
        height, width, channels = shape
        job = self._job(settings, progress)
        yield from mending.fill(job, rows, (height, width, channels), hole)

    def filling(
        self,
        settings: Settings,
        hole_of: Callable[[Iterable[Pixels], tuple[int, int, int]], Hole | None],
    ) -> Callable[[Iterable[Pixels], tuple[int, int, int], Progress], Iterator[Pixels]]:
        """What `imaging.files.enlarge` is handed: `stream` with these settings.

        Args:
            settings: see `Inpainter.settings`.
            hole_of: finds the hole of an image, None where there is none, from its bands and shape.
        """

        def run(
            rows: Iterable[Pixels], shape: tuple[int, int, int], progress: Progress
        ) -> Iterator[Pixels]:
            hole = hole_of(rows, shape)
            return (
                iter(rows) if hole is None else self.stream(rows, shape, settings, hole, progress)
            )

        return run

    def settings(self, **options: Unpack[Sampling]) -> Settings:
        """Check the options of `__call__`, and fill in what the model says.

        Raises:
            UsageError: an argument outside its range.
        """
        choosing.refuse_unknown(options, Sampling)
        return choosing.settings(self.spec, name=self.name, **options, scale=1, color_fix="none")


def _unknown(mask: MaskT, image: Pixels) -> Unknown:
    """Where a mask says that an image is unknown.

    Raises:
        ImageArgumentError: it does not fit the image.
    """
    if isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.ndim == 2:
        unknown = mask
    else:
        unknown = light(arrays.taken(mask)[0])
    if unknown.shape != image.shape[:2]:
        raise ImageArgumentError(
            f"The mask is {unknown.shape[1]}x{unknown.shape[0]}, and the image "
            f"{image.shape[1]}x{image.shape[0]}.",
            hint="A mask has a pixel for every pixel of the image.",
        )
    if unknown.all() or not unknown.any():
        raise ImageArgumentError(
            f"The mask leaves nothing {'that is known' if unknown.all() else 'to be filled'}.",
            hint="It is true, or white, where pixels are unknown.",
        )
    return unknown
