"""One image in, one out: encode, walk the chain, decode, all in tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from resshift_cli import chain, checkpoint, noise, plan, store, tiling
from resshift_cli.alpha import fill_hidden
from resshift_cli.autoencoder import Autoencoder
from resshift_cli.degrade import enlarge
from resshift_cli.denoiser import Denoiser
from resshift_cli.device import choose_device, choose_dtype, place, tiles_at_once
from resshift_cli.errors import ResShiftError, UsageError
from resshift_cli.images import Picture
from resshift_cli.plan import Settings
from resshift_cli.registry import ModelEntry, find, models
from resshift_cli.specs import ModelSpec
from resshift_cli.store import Files
from resshift_cli.tiling import Box

Progress = Callable[[int, int], None]
"""(units done, units in all); a unit is about one call of the denoiser on one tile."""

ImageT = TypeVar("ImageT", Image.Image, NDArray[Any], Tensor)
Pixels = NDArray[np.float32]

# Work on one tile relative to a denoiser call, from the FLOP counts of the published layouts.
ENCODE_UNITS = {"vq": 3, "space-to-depth": 0}
DECODE_UNITS = {"vq": 7, "space-to-depth": 0}

# Which draw of the noise field is what; draw t > 0 belongs to step t of the chain.
PRIOR = 0
PLANES = 1 << 32


class Upscaler:
    """A model, ready to run.

    Args:
        spec: the model's table.
        denoiser: its network.
        autoencoder: its way to the latent and back.
        name: for messages.
        device: where to compute, see `device.choose_device`.
        precision: what to compute in, see `device.choose_dtype`.
        tile_batch: tiles per call of a network; by default 1 on a CPU and 4 elsewhere.

    Raises:
        DeviceError: the device is not here.
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
        self.schedule = spec.schedule.build()
        self.denoiser = denoiser.eval()
        self.autoencoder = autoencoder.eval()
        for network in (self.denoiser, self.autoencoder):
            place(network, self.device, self.dtype)
        self.tile_batch = tile_batch or tiles_at_once(self.device)

    @classmethod
    def from_pretrained(
        cls, name: str, *, registry: Path | None = None, offline: bool = False, **options: Any
    ) -> Upscaler:
        """Load a model by name, fetching its files if they are not here yet.

        Args:
            name: one of `resshift models list`.
            registry: a file like weights.toml, with more models.
            offline: touch no network.
            options: as the class's own arguments `device`, `precision` and `tile_batch`.

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
            options: as the class's own arguments `device`, `precision` and `tile_batch`.

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
        )
        run = partial(self.enlarge, settings=settings, progress=progress)
        if isinstance(image, Image.Image):
            picture = Picture.from_pil(image)
            return picture.with_pixels(run(picture.pixels)).to_pil()
        if isinstance(image, np.ndarray):
            return _like_array(run(_from_array(image)), image)
        if isinstance(image, Tensor):
            return _like_tensor(run(_from_tensor(image)), image)
        raise TypeError(f"expected a PIL image, a numpy array or a tensor, got {type(image)}")

    @torch.inference_mode()
    def enlarge(
        self, pixels: Pixels, settings: Settings, progress: Progress | None = None
    ) -> Pixels:
        """Enlarge float32 (H, W, C) in [0, 1], C as in `__call__`."""
        height, width, channels = pixels.shape
        target = plan.target_size(height, width, settings.scale)
        colour, alpha = (
            (pixels[..., :-1], pixels[..., -1:]) if channels % 2 == 0 else (pixels, None)
        )
        if alpha is not None:
            colour = fill_hidden(colour, alpha)
        layers = [np.broadcast_to(colour, (height, width, 3))]
        if alpha is not None and alpha.min() < alpha.max():
            layers.append(np.broadcast_to(alpha, (height, width, 3)))

        sizes = plan.pass_sizes(self.spec, height, width, settings.scale)
        units = settings.steps + ENCODE_UNITS[self.spec.autoencoder.kind]
        units += DECODE_UNITS[self.spec.autoencoder.kind]
        tiles = sum(len(plan.grid(self.spec, *size, settings).boxes) for size in sizes)
        done, total = 0, len(layers) * tiles * units

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        results = []
        for layer in layers:
            for number, size in enumerate(sizes):
                lq = _to_model(_resize(layer, size)).to(self.device)
                seed = (settings.seed + number) % 2**64
                layer = _from_model(self.restore(lq, replace(settings, seed=seed), advance))
            results.append(_resize(layer, target).clip(0.0, 1.0))
        restored = results[0]
        if colour.shape[-1] == 1:
            restored = restored.mean(axis=-1, keepdims=True)
        if alpha is None:
            return restored
        if len(results) == 2:
            return np.concatenate([restored, results[1].mean(axis=-1, keepdims=True)], axis=-1)
        return np.concatenate([restored, np.full((*target, 1), alpha.min(), np.float32)], axis=-1)

    def settings(self, **arguments: Any) -> Settings:
        """Check the arguments of `__call__`, and fill in what the model says.

        Args:
            arguments: `scale`, `steps`, `seed`, `tile`, `overlap` and `temperature`, or some.

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
            lq: float32 (1, 3, h, w) in [-1, 1], on the device.
            settings: see `Upscaler.settings`.
            advance: told how many units of work were done, after every tile.
            field: the noise; other than `noise.field` to repeat what was computed elsewhere.

        Returns:
            float32 (1, 3, h * scale, w * scale) in [-1, 1].

        Raises:
            ResShiftError: the result is not finite.
        """
        height, width = lq.shape[-2:]
        spec, factor, channels = self.spec, self.autoencoder.factor, self.autoencoder.channels
        grid = plan.grid(spec, height, width, settings)
        schedule = self.schedule.respaced(settings.steps)
        rows, columns = grid.rows.length, grid.columns.length
        lq = tiling.pad_by_reflection(lq, rows * spec.lq_pixels, columns * spec.lq_pixels)
        enlarged = enlarge(lq, spec.scale)
        if spec.clip_lq:
            enlarged = enlarged.clamp(-1, 1)

        def tiled(run: Callable[[Sequence[Box]], Tensor], units: int, **shape: int) -> Tensor:
            def tile_and_tell(boxes: Sequence[Box]) -> Tensor:
                result = run(boxes)
                if units:
                    advance(units * len(boxes))
                return result

            return grid.map(tile_and_tell, batch=self.tile_batch, device=self.device, **shape)

        def encode(boxes: Sequence[Box]) -> Tensor:
            return self.autoencoder.encode(_cut(boxes, enlarged, factor))

        def draw(step: int, channels: int) -> Tensor:
            window = {"top": 0, "left": 0, "height": rows, "width": columns}
            return field(settings.seed, step, channels, **window).to(self.device)

        y0 = tiled(encode, ENCODE_UNITS[spec.autoencoder.kind], channels=channels)
        shown = self._condition(lq, enlarged, y0)
        extra = spec.denoiser.noise_channels
        planes = draw(PLANES, extra) if extra else None

        def predict(x_t: Tensor, t: int) -> Tensor:
            def denoise(boxes: Sequence[Box]) -> Tensor:
                steps = torch.full((len(boxes),), t, device=self.device)
                return self.denoiser(
                    _cut(boxes, x_t),
                    _cut(boxes, y0),
                    _cut(boxes, shown, spec.denoiser.lq_ratio),
                    schedule,
                    steps,
                    None if planes is None else _cut(boxes, planes),
                )

            return tiled(denoise, 1, channels=channels)

        def step_noise(t: int) -> Tensor:
            return settings.temperature * draw(t, channels)

        start = chain.prior(y0, draw(PRIOR, channels), schedule, spec.prior)
        for state in chain.walk(start, predict, step_noise, schedule):
            latent = state.x0

        def decode(boxes: Sequence[Box]) -> Tensor:
            return self.autoencoder.decode(_cut(boxes, latent))

        hq = tiled(decode, DECODE_UNITS[spec.autoencoder.kind], channels=3, factor=factor)
        if not torch.isfinite(hq).all():
            raise ResShiftError(
                f"'{self.name}' gave values that are not finite in {self.dtype}.",
                hint="Use --precision fp32.",
            )
        return hq[..., : height * spec.scale, : width * spec.scale].clamp(-1, 1)

    def _condition(self, lq: Tensor, enlarged: Tensor, y0: Tensor) -> Tensor:
        """What the denoiser is shown of the image, `denoiser.lq_ratio` times the latent's size."""
        if self.spec.condition == "latent":
            return y0
        if self.spec.condition == "resized":
            size = y0.shape[-2:]
            small = F.interpolate(enlarged, size, mode="bicubic", align_corners=False)
            return small.clamp(-1, 1)
        return lq


def _cut(boxes: Sequence[Box], image: Tensor, factor: int = 1) -> Tensor:
    return torch.cat([box.cut(image, factor) for box in boxes])


def _resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Lanczos resize of float32 (H, W, C) to (height, width); may overshoot [0, 1]."""
    if pixels.shape[:2] == size:
        return pixels
    planes = [
        Image.fromarray(np.ascontiguousarray(pixels[..., c])).resize(
            size[::-1], Image.Resampling.LANCZOS
        )
        for c in range(pixels.shape[-1])
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _to_model(pixels: Pixels) -> Tensor:
    """(H, W, 3) in [0, 1] to (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None] * 2 - 1


def _from_model(image: Tensor) -> Pixels:
    """(1, 3, H, W) in [-1, 1] to (H, W, 3) in [0, 1]."""
    pixels: Pixels = (image[0].permute(1, 2, 0) / 2 + 0.5).cpu().numpy()
    return pixels


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
