"""One image in, one out, in all the kinds that a caller may have it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from resshift_cli.diffusion.autoencoder import Autoencoder
from resshift_cli.diffusion.denoiser import Denoiser
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import UsageError
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration import arrays, fitting, passes
from resshift_cli.restoration import settings as choosing
from resshift_cli.restoration.arrays import ImageT
from resshift_cli.restoration.engine import Engine, Networks
from resshift_cli.restoration.fitting import Budget
from resshift_cli.restoration.settings import Options, Settings, refuse_unknown
from resshift_cli.restoration.size import target_size
from resshift_cli.system import cache, memory
from resshift_cli.system.device import choose_device, choose_dtype, release_memory
from resshift_cli.system.progress import Bars, bars_of
from resshift_cli.weights import checkpoint, store
from resshift_cli.weights.registry import ModelEntry, find, models
from resshift_cli.weights.store import Files


class Resources(TypedDict, total=False):
    """Where and in what a model computes, and with how much memory.

    Attributes:
        device: see `device.choose_device`; `auto` by default.
        precision: see `device.choose_dtype`; `auto` by default.
        tile_batch: tiles per call of a network; by default 1 on a CPU, and what fits elsewhere.
        max_memory: bytes that the process is to take on the device at most; by default what is
            free. It bounds tiles, not the image itself.
        compiled: have the networks compiled, see `device.compile_parts`.
        tell: called with a sentence where something had to be done otherwise: memory ran out, or
            the values of half precision overflowed. By default a warning.
    """

    device: str
    precision: str
    tile_batch: int | None
    max_memory: int | None
    compiled: bool
    tell: Callable[[str], None]


Progress = Bars | Callable[[int, int], object] | bool | None
"""How a caller wants to see how far a job is, see `Upscaler.__call__`."""


class Upscaler:
    """A model, ready to run.

    Args:
        spec: the model's table.
        denoiser: its network.
        autoencoder: its way to the latent and back.
        name: for messages.
        resources: where to compute and with how much, see `Resources`.

    Raises:
        DeviceError: the device is not here, or what torch compiles with on it.
        UsageError: unknown device or precision, or a model that needs a mask beside the image.
    """

    def __init__(
        self,
        spec: ModelSpec,
        denoiser: Denoiser,
        autoencoder: Autoencoder,
        *,
        name: str,
        **resources: Unpack[Resources],
    ) -> None:
        refuse_unknown(resources, Resources)
        if spec.denoiser.lq_mask:
            raise UsageError(
                f"'{name}' fills holes: it needs a mask, and can't enlarge an image.",
                hint="`resshift models list` shows the models that enlarge.",
            )
        self.spec = spec
        self.name = name
        self.device = choose_device(resources.get("device", "auto"))
        self.dtype = choose_dtype(resources.get("precision", "auto"), self.device)
        self.denoiser = denoiser
        self.autoencoder = autoencoder
        compiled, tell = resources.get("compiled", False), resources.get("tell", warnings.warn)
        folder = cache.folder() / "compiled" if compiled else None
        networks = Networks(denoiser.eval(), autoencoder.eval())
        self.engine = Engine(spec, name, networks, self.device, self.dtype, folder, tell)
        self.chosen_batch = resources.get("tile_batch")
        self.max_memory = resources.get("max_memory")

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        registry: Path | None = None,
        offline: bool = False,
        **resources: Unpack[Resources],
    ) -> Upscaler:
        """Load a model by name, fetching its files if they are not here yet.

        Args:
            name: one of `resshift models list`.
            registry: a file like weights.toml, with more models.
            offline: touch no network.
            resources: see the class.

        Raises:
            UnknownModelError: there is no such model.
            ModelUnavailableError: its files can't be fetched, or are damaged.
            DeviceError, UsageError: as the class.
        """
        entry = find(name, registry)
        return cls.load(entry, store.obtain(entry, offline=offline), **resources)

    @classmethod
    def from_file(
        cls,
        path: Path | str,
        *,
        like: str | None = None,
        registry: Path | None = None,
        **resources: Unpack[Resources],
    ) -> Upscaler:
        """Load a weight file of your own.

        Args:
            path: safetensors file, as `resshift train` or `resshift models convert` writes it.
            like: the model whose networks it fits; needed where the file does not tell.
            registry: a file like weights.toml, with more models.
            resources: see the class.

        Raises:
            InputMissingError: there is no such file.
            ModelUnavailableError: it is damaged, or fits no model.
            DeviceError, UsageError: as the class; or it fits several models.
        """
        base = find(like, registry) if like is not None else None
        entry = store.own(Path(path), base, models(registry).values())
        return cls.load(entry, store.obtain(entry), **resources)

    @classmethod
    def load(cls, entry: ModelEntry, files: Files, **resources: Unpack[Resources]) -> Upscaler:
        """Load the files of a model, which `store.obtain` gives.

        Raises:
            ModelUnavailableError: they are damaged, or do not fit.
            DeviceError, UsageError: as the class.
        """
        spec = store.spec_of(entry, files.weights)
        networks = checkpoint.load(spec, files.weights, files.autoencoder)
        return cls(spec, *networks, name=entry.name, **resources)

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
        settings, tile_batch = self._fitted(settings)
        job = passes.Job(self.engine, tile_batch, settings, bars_of(progress))
        yield from passes.stream(job, rows, shape)

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

    def release_memory(self) -> None:
        """Give back what is held unused, as after an image that failed."""
        release_memory(self.device)

    def _fitted(self, settings: Settings) -> tuple[Settings, int]:
        """Smaller tiles where memory is short; and as many of them at a time as it holds."""
        budget = self._budget()
        fitted = budget.fit(settings)
        if fitted != settings:
            self.engine.tell(
                f"Memory is short: tiles of {fitted.tile} px instead of {settings.tile}."
            )
        if self.max_memory is not None and (need := budget.needs(fitted)) > self.max_memory:
            self.engine.tell(
                f"Tiles of {fitted.tile} px take about {need / 1e6:.0f} MB in all, which is more "
                "than allowed (--max-memory)."
            )
        return fitted, self.chosen_batch or budget.tiles_at_once(fitted.tile)

    def _budget(self) -> Budget:
        """What memory allows now."""
        memory = fitting.available(self.device, self.max_memory)
        return Budget(self.spec, self.dtype, self.device, memory)

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
