"""One image in, one out, in all the kinds that a caller may have it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from resshift_cli.diffusion import noise
from resshift_cli.diffusion.autoencoder import Autoencoder
from resshift_cli.diffusion.denoiser import Denoiser
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.errors import UsageError, out_of_memory
from resshift_cli.imaging.alpha import fill_hidden
from resshift_cli.imaging.decode import from_pil
from resshift_cli.imaging.encode import to_pil
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration import colour, fitting, resampling
from resshift_cli.restoration import settings as plan
from resshift_cli.restoration.bands import Bands, Window
from resshift_cli.restoration.colour import ColourFix
from resshift_cli.restoration.engine import DECODE_UNITS, ENCODE_UNITS, Engine, Networks
from resshift_cli.restoration.settings import Settings
from resshift_cli.restoration.tiling import pad_by_reflection
from resshift_cli.system import cache, memory
from resshift_cli.system.device import (
    choose_device,
    choose_dtype,
    release_memory,
    to_device,
)
from resshift_cli.weights import checkpoint, store
from resshift_cli.weights.registry import ModelEntry, find, models
from resshift_cli.weights.store import Files

Progress = Callable[[int, int], None]
"""(units done, units in all); a unit is about one call of the denoiser on one tile."""

ImageT = TypeVar("ImageT", Image.Image, NDArray[Any], Tensor)


class Upscaler:
    """A model, ready to run.

    Args:
        spec: the model's table.
        denoiser: its network.
        autoencoder: its way to the latent and back.
        name: for messages.
        device: where to compute, see `device.choose_device`.
        precision: what to compute in, see `device.choose_dtype`.
        tile_batch: tiles per call of a network; by default 1 on a CPU, and what fits elsewhere.
        max_memory: bytes that the process is to take on the device at most; by default what is
            free. It bounds tiles, not the image itself.
        compiled: have the networks compiled, see `device.compile_parts`.
        tell: called with a sentence where something had to be done otherwise: memory ran out, or
            the values of half precision overflowed.

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
        device: str = "auto",
        precision: str = "auto",
        tile_batch: int | None = None,
        max_memory: int | None = None,
        compiled: bool = False,
        tell: Callable[[str], None] = warnings.warn,
    ) -> None:
        if spec.denoiser.lq_mask:
            raise UsageError(
                f"'{name}' fills holes: it needs a mask, and can't enlarge an image.",
                hint="`resshift models list` shows the models that enlarge.",
            )
        self.spec = spec
        self.name = name
        self.device = choose_device(device)
        self.dtype = choose_dtype(precision, self.device)
        self.denoiser = denoiser
        self.autoencoder = autoencoder
        folder = cache.folder() / "compiled" if compiled else None
        networks = Networks(denoiser, autoencoder).placed(self.device, self.dtype, folder)
        self.engine = Engine(
            spec, name, networks, self.device, self.dtype, tile_batch or 1, compiled, tell
        )
        self.chosen_batch = tile_batch
        self.max_memory = max_memory

    @classmethod
    def from_pretrained(
        cls, name: str, *, registry: Path | None = None, offline: bool = False, **options: Any
    ) -> Upscaler:
        """Load a model by name, fetching its files if they are not here yet.

        Args:
            name: one of `resshift models list`.
            registry: a file like weights.toml, with more models.
            offline: touch no network.
            options: the class's own arguments, but for `name`.

        Raises:
            UnknownModelError: there is no such model.
            ModelUnavailableError: its files can't be fetched, or are damaged.
            DeviceError, UsageError: as the class.
        """
        entry = find(name, registry)
        return cls.load(entry, store.obtain(entry, offline=offline), **options)

    @classmethod
    def from_file(
        cls, path: Path, *, like: str | None = None, registry: Path | None = None, **options: Any
    ) -> Upscaler:
        """Load a weight file of your own.

        Args:
            path: safetensors file, as `resshift train` or `resshift models convert` writes it.
            like: the model whose networks it fits; needed where the file does not tell.
            registry: a file like weights.toml, with more models.
            options: the class's own arguments, but for `name`.

        Raises:
            InputMissingError: there is no such file.
            ModelUnavailableError: it is damaged, or fits no model.
            DeviceError, UsageError: as the class; or it fits several models.
        """
        base = find(like, registry) if like is not None else None
        entry = store.own(path, base, models(registry).values())
        return cls.load(entry, store.obtain(entry), **options)

    @classmethod
    def load(cls, entry: ModelEntry, files: Files, **options: Any) -> Upscaler:
        """Load the files of a model, which `store.obtain` gives.

        Raises:
            ModelUnavailableError: they are damaged, or do not fit.
            DeviceError, UsageError: as the class.
        """
        spec = store.spec_of(entry, files.weights)
        networks = checkpoint.load(spec, files.weights, files.autoencoder)
        return cls(spec, *networks, name=entry.name, **options)

    def __call__(
        self,
        image: ImageT,
        *,
        scale: float | None = None,
        steps: int | None = None,
        seed: int = 0,
        tile: int | None = None,
        overlap: int | None = None,
        temperature: float | None = None,
        color_fix: ColourFix = "wavelet",
        consistency: float = 0.0,
        progress: Progress | None = None,
    ) -> ImageT:
        """Enlarge an image.

        Args:
            image: a PIL image; a numpy array, uint8 or float in [0, 1], (H, W) or (H, W, C) with
                C = 1 gray, 2 gray and alpha, 3 RGB or 4 RGB and alpha; or a float tensor in
                [0, 1], (3, H, W) or (1, 3, H, W).
            scale: output size over input size, 1 to 16. By default the model's own factor.
                Smaller ones are reached by a Lanczos reduction, larger ones by further passes.
            steps: steps of the chain, 1 to the model's own number, which is the default.
            seed: 0 to 2^64 - 1; the same seed gives the same result.
            tile: largest side of a tile in input pixels, rounded down to what the network can
                take; a smaller one is used where it covers the image with less work.
            overlap: input pixels that neighbouring tiles share.
            temperature: what the noise of the chain's steps, but not of its start, is multiplied
                by, 0 to 1. At 1 the result is a draw of what the image may have been; below, it
                keeps to what is more likely, with less texture. By default as the model says.
            color_fix: `wavelet` gives the result the low frequencies of the image, and so its
                colours; `adain` matches mean and contrast around every pixel; `none`.
            consistency: how far the result is brought to where its reduction equals the image, 0
                to 1. It helps with clean images, and brings back the noise of others.
            progress: called after every tile.

        Returns:
            The enlarged image, of the kind and type that was given; floats in [0, 1].

        Raises:
            UsageError: an argument outside its range.
            UnsupportedImageError: a PIL image of a mode that is not handled.
            TypeError, ValueError: not an image of the kinds above, or one without pixels.
        """
        settings = self.settings(
            scale=scale,
            steps=steps,
            seed=seed,
            tile=tile,
            overlap=overlap,
            temperature=temperature,
            color_fix=color_fix,
            consistency=consistency,
        )
        run = partial(self.enlarge, settings=settings, progress=progress)
        if isinstance(image, Image.Image):
            picture = from_pil(image)
            return to_pil(picture.with_pixels(run(picture.pixels)))
        if isinstance(image, np.ndarray):
            return _like_array(run(_from_array(image)), image)
        if isinstance(image, Tensor):
            return _like_tensor(run(_from_tensor(image)), image)
        raise TypeError(f"expected a PIL image, a numpy array or a tensor, got {type(image)}")

    def enlarge(
        self, pixels: Pixels, settings: Settings, progress: Progress | None = None
    ) -> Pixels:
        """Enlarge float32 (H, W, C) in [0, 1], C as in `__call__`.

        Raises:
            MemoryError: the result can't be held.
            ResShiftError, Exception: as `stream`.
        """
        height, width, channels = pixels.shape
        bands = self.stream([pixels], (height, width, channels), settings, progress)
        target = plan.target_size(height, width, settings.scale)
        return memory.collected(bands, (*target, channels))

    def stream(
        self,
        rows: Iterable[Pixels],
        shape: tuple[int, int, int],
        settings: Settings,
        progress: Progress | None = None,
    ) -> Iterator[Pixels]:
        """Enlarge an image that comes and goes in bands of rows, and never is in memory whole.

        Only one with alpha is, since colours hidden under it are filled in from anywhere.

        Args:
            rows: bands, float32 (n, W, C) in [0, 1]; it may have to be gone through again.
            shape: (H, W, C) of the image, C as in `__call__`.
            settings: see `Upscaler.settings`.
            progress: called after every tile.

        Yields:
            Bands of the result, float32 (n, W', C) in [0, 1].

        Raises:
            ResShiftError: the result is not finite.
            Exception: memory does not hold the smallest tile.
        """
        settings = self._fitted(settings)
        while True:
            begun = False
            try:
                for band in self._stream(rows, shape, settings, progress):
                    begun = True
                    yield band
                return
            except Exception as error:
                smaller = plan.smaller_tile(self.spec, settings)
                if begun or smaller is None or not out_of_memory(error):
                    raise
            release_memory(self.device)
            settings = smaller
            self.engine.tell(f"Memory ran out: beginning anew with tiles of {settings.tile} px.")

    def at_once(self, size: tuple[int, int]) -> int:
        """How many images `together` is best given, that are padded to `plan.single_tile`."""
        if self.chosen_batch is not None:
            return self.chosen_batch
        room = fitting.room(self.device, self.max_memory)
        return fitting.group(self.spec, size, self.dtype, self.device, room)

    @torch.inference_mode()
    def together(
        self,
        images: Sequence[Pixels],
        settings: Settings,
        count: int,
        progress: Progress | None = None,
    ) -> list[Pixels]:
        """Enlarge images of a single tile each at a time.

        A result depends on `count`, by rounding, but neither on the other images nor on how many
        they are: the networks are given `count` in any case.

        Args:
            images: 1 to `count`, float32 (H, W, 1 or 3) in [0, 1], for all of which
                `plan.single_tile` is the same.
            settings: see `Upscaler.settings`.
            count: images per call of a network.
            progress: called after every call.

        Returns:
            As `enlarge`, of each.

        Raises:
            ValueError: the images are others than those.
            ResShiftError: a result is not finite.
            Exception: memory does not hold so many.
        """
        sizes = {
            plan.single_tile(self.spec, height, width, settings)
            for height, width, _ in (image.shape for image in images)
        }
        size = next(iter(sizes), None)
        odd = all(image.shape[2] in (1, 3) for image in images)
        if len(sizes) != 1 or size is None or not odd or len(images) > count:
            raise ValueError(f"not 1 to {count} images without alpha that one tile holds")
        done, total = 0, self._units(settings)

        def advance(units: int) -> None:
            nonlocal done
            done += units
            if progress is not None:
                progress(done, total)

        low = [_tensor(image) * 2 - 1 for image in images]
        padded = [pad_by_reflection(lq, *size) for lq in low]
        padded += padded[:1] * (count - len(padded))
        restored = self.restore(torch.cat(padded), settings, advance)
        results = []
        for image, lq, whole in zip(images, low, restored, strict=False):
            height, width, channels = image.shape
            target = plan.target_size(height, width, settings.scale)
            height, width = height * self.spec.scale, width * self.spec.scale
            shown = whole[None, :, :height, :width]
            shown = colour.correct(shown, to_device(lq, self.device), **settings.faithfulness)
            band = (shown / 2 + 0.5).cpu()
            bands = resampling.lanczos(iter([band]), (height, width), target)
            pixels = np.concatenate([_pixels(band) for band in bands])
            results.append(pixels if channels == 3 else pixels.mean(axis=-1, keepdims=True))
        return results

    def _units(self, settings: Settings) -> int:
        """Of work on one tile."""
        kind = self.spec.autoencoder.kind
        return settings.steps + ENCODE_UNITS[kind] + DECODE_UNITS[kind]

    def release_memory(self) -> None:
        """Give back what is held unused, as after an image that failed."""
        release_memory(self.device)

    def _fitted(self, settings: Settings) -> Settings:
        """Smaller tiles where memory is short; and as many of them at a time as it holds."""
        about = (self.dtype, self.device, fitting.room(self.device, self.max_memory))
        fitted = fitting.fitting(self.spec, settings, *about)
        if fitted != settings:
            self.engine.tell(
                f"Memory is short: tiles of {fitted.tile} px instead of {settings.tile}."
            )
        if self.chosen_batch is None:
            self.engine.tile_batch = fitting.batch(self.spec, fitted, *about)
        return fitted

    @torch.inference_mode()
    def _stream(
        self,
        rows: Iterable[Pixels],
        shape: tuple[int, int, int],
        settings: Settings,
        progress: Progress | None,
    ) -> Iterator[Pixels]:
        height, width, channels = shape
        target = plan.target_size(height, width, settings.scale)
        layers, opacity = _layers(rows, channels)
        sizes = plan.pass_sizes(self.spec, height, width, settings.scale)
        tiles = sum(len(plan.grid(self.spec, *size, settings).boxes) for size in sizes)
        done, total = 0, len(layers) * tiles * self._units(settings)

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        def enlarged(layer: Bands, settings: Settings) -> Bands:
            size = (height, width)
            for number, wanted in enumerate([*sizes, target]):
                layer = resampling.lanczos(layer, size, wanted)
                if number < len(sizes):
                    seed = (settings.seed + number) % 2**64
                    lq = (band * 2 - 1 for band in layer)
                    restored = self._restored(lq, wanted, replace(settings, seed=seed), advance)
                    layer = ((band / 2 + 0.5).cpu() for band in restored)
                    size = (wanted[0] * self.spec.scale, wanted[1] * self.spec.scale)
            return layer

        # What is opaque, or clear, has to stay so: opacity is projected on that of the image.
        exact = replace(settings, consistency=1.0)
        alpha = Window(enlarged(layers[1], exact)).reader() if len(layers) > 1 else None
        top = 0
        for band in enlarged(layers[0], settings):
            shown = _pixels(band)
            if channels < 3:
                shown = shown.mean(axis=-1, keepdims=True)
            if channels % 2 == 0:
                bottom = top + len(shown)
                if alpha is None:
                    veil = np.full((*shown.shape[:2], 1), opacity, np.float32)
                else:
                    veil = _pixels(alpha.rows(top, bottom)).mean(axis=-1, keepdims=True)
                    alpha.forget(bottom)
                shown, top = np.concatenate([shown, veil], axis=-1), bottom
            yield shown

    def _restored(
        self,
        lq: Bands,
        size: tuple[int, int],
        settings: Settings,
        advance: Callable[[int], None],
    ) -> Bands:
        """One pass, its result made true to `lq` as the settings want it."""
        scale, wanted = self.spec.scale, settings.faithfulness
        reach = colour.reach(scale, **wanted)
        if reach == 0:
            yield from self.engine.restore(lq, *size, settings, advance)
            return
        source = Window(lq)
        shown, own = source.reader(), source.reader()
        window = Window(self.engine.restore(shown, *size, settings, advance))
        result = window.reader()
        top, height = 0, size[0]
        while window.take():
            whole = window.bottom == height * scale
            bottom = height if whole else window.bottom // scale - reach
            if bottom > top:
                first, last = max(top - reach, 0), min(bottom + reach, height)
                rows = result.rows(first * scale, last * scale)
                fixed = colour.correct(
                    rows, to_device(own.rows(first, last), self.device), **wanted
                )
                yield fixed[..., (top - first) * scale : (bottom - first) * scale, :]
                result.forget(max(bottom - reach, 0) * scale)
                own.forget(max(bottom - reach, 0))
                top = bottom

    def enlarging(
        self, settings: Settings
    ) -> Callable[[Iterable[Pixels], tuple[int, int, int], Progress], Iterator[Pixels]]:
        """What `imaging.files.enlarge` is handed: `stream` with these settings."""
        return lambda rows, shape, progress: self.stream(rows, shape, settings, progress)

    def settings(self, **arguments: Any) -> Settings:
        """Check the arguments of `__call__`, and fill in what the model says.

        Args:
            arguments: those from `scale` to `consistency`, or some of them.

        Raises:
            UsageError: an argument outside its range.
        """
        return plan.settings(self.spec, name=self.name, **arguments)

    def restore(
        self,
        lq: Tensor,
        settings: Settings,
        advance: Callable[[int], None] = lambda count: None,
        field: noise.Field = noise.field,
    ) -> Tensor:
        """Enlarge by the model's own factor, once, whatever `settings.scale` says.

        Args:
            lq: float32 (N, 3, h, w) in [-1, 1].
            settings: see `Upscaler.settings`.
            advance: told how many units of work were done.
            field: the noise, see `Engine.restore`.

        Returns:
            float32 (N, 3, h * scale, w * scale) in [-1, 1], on the device.

        Raises:
            ResShiftError: the result is not finite.
        """
        height, width = lq.shape[-2:]
        return torch.cat(
            list(self.engine.restore([lq], height, width, settings, advance, field)), dim=-2
        )


def _layers(rows: Iterable[Pixels], channels: int) -> tuple[list[Bands], float]:
    """What has to go through the networks, as (1, 3, n, W); and the opacity if it is constant."""
    if channels % 2:
        return [(_tensor(band) for band in rows)], 1.0
    pixels = np.concatenate(list(rows))
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    layers = [fill_hidden(colour, alpha)]
    if alpha.min() < alpha.max():
        layers.append(alpha)
    return [iter([_tensor(layer)]) for layer in layers], float(alpha.min())


def _pixels(band: Tensor) -> Pixels:
    """(1, C, n, W) to (n, W, C) in [0, 1]."""
    pixels: Pixels = band[0].permute(1, 2, 0).clamp(0, 1).numpy()
    return pixels


def _tensor(pixels: Pixels) -> Tensor:
    """(n, W, 1 or 3) to (1, 3, n, W)."""
    planes = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
    return planes.expand(3, -1, -1)[None]


def _from_array(image: NDArray[Any]) -> Pixels:
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or not 1 <= channels <= 4 or image.size == 0:
        raise ValueError(f"expected an array of (H, W) or (H, W, 1 to 4), got {image.shape}")
    pixels = image if image.ndim == 3 else image[..., None]
    if image.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)
    if not np.issubdtype(image.dtype, np.floating):
        raise TypeError(f"expected uint8 or float pixels, got {image.dtype}")
    return pixels.astype(np.float32)


def _like_array(pixels: Pixels, like: NDArray[Any]) -> NDArray[Any]:
    pixels = pixels if like.ndim == 3 else pixels[..., 0]
    if like.dtype == np.uint8:
        return np.rint(pixels * 255).astype(np.uint8)
    return pixels.astype(like.dtype)


def _from_tensor(image: Tensor) -> Pixels:
    if tuple(image.shape[:-2]) not in ((3,), (1, 3)) or image.numel() == 0:
        raise ValueError(f"expected a tensor of (3, H, W) or (1, 3, H, W), got {image.shape}")
    if not image.is_floating_point():
        raise TypeError(f"expected float pixels in [0, 1], got {image.dtype}")
    planes = image.detach().reshape(image.shape[-3:]).permute(1, 2, 0)
    return planes.to("cpu", torch.float32).numpy()


def _like_tensor(pixels: Pixels, like: Tensor) -> Tensor:
    planes = torch.from_numpy(pixels).permute(2, 0, 1).to(like)
    return planes[None] if like.dim() == 4 else planes
