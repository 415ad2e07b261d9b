"""Images in all the kinds that a caller may have them, and back to the kind that was given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from resshift_cli.errors import ImageArgumentError
from resshift_cli.imaging.decode import from_pil
from resshift_cli.imaging.encode import to_pil
from resshift_cli.imaging.picture import Pixels

LEVELS = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
"""The largest value of whole numbers that an array may have."""

DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
"""Modes of PIL images of 16 bits."""

SLACK = 1e-3  # by which floats may lie outside [0, 1]

ImageT = TypeVar("ImageT", Image.Image, NDArray[Any], Tensor)


def taken(image: ImageT) -> tuple[Pixels, Callable[[Pixels], ImageT]]:
    """The pixels of an image, and what makes an image of its kind of others.

    Raises:
        UnsupportedImageError: a PIL image of a mode that is not handled.
        ImageArgumentError: not an image of a kind that `Upscaler` takes, one without pixels, or
            with values outside [0, 1].
    """
    if isinstance(image, Image.Image):
        if image.mode in DEEP:
            levels = np.asarray(image).astype(np.uint16)
            back = partial(_like_array, like=levels)
            return _from_array(levels), lambda pixels: Image.fromarray(back(pixels))
        picture = from_pil(image)
        return picture.pixels, lambda pixels: to_pil(picture.with_pixels(pixels))
    if isinstance(image, np.ndarray):
        return _from_array(image), lambda pixels: _like_array(pixels, image)
    if isinstance(image, Tensor):
        return _from_tensor(image), lambda pixels: _like_tensor(pixels, image)
    raise _unexpected("a PIL image, a numpy array or a tensor", "of torch's", type(image))


def planes_of(pixels: Pixels) -> Tensor:
    """(n, W, 1 or 3) to (1, 3, n, W)."""
    planes = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
    return planes.expand(3, -1, -1)[None]


def pixels_of(planes: Tensor) -> Pixels:
    """(1, C, n, W) to (n, W, C) in [0, 1]."""
    pixels: Pixels = planes[0].permute(1, 2, 0).clamp(0, 1).numpy()
    return pixels


def channels_first(band: Pixels) -> Tensor:
    """(n, W, C) to (1, C, n, W)."""
    return torch.from_numpy(np.array(band)).permute(2, 0, 1)[None]


def channels_last(planes: Tensor) -> Pixels:
    """(1, C, n, W) to (n, W, C), whatever the values."""
    pixels: Pixels = planes[0].permute(1, 2, 0).numpy()
    return pixels


def _from_array(image: NDArray[Any]) -> Pixels:
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or not 1 <= channels <= 4 or image.size == 0:
        raise _unexpected("an array", "of (H, W) or (H, W, 1 to 4)", tuple(image.shape))
    pixels = image if image.ndim == 3 else image[..., None]
    if image.dtype in LEVELS:
        return pixels.astype(np.float32) / np.float32(LEVELS[image.dtype])
    if not np.issubdtype(image.dtype, np.floating):
        raise _unexpected("pixels", "of uint8, uint16 or floats", image.dtype)
    return _checked(pixels.astype(np.float32))


def _like_array(pixels: Pixels, like: NDArray[Any]) -> NDArray[Any]:
    pixels = pixels if like.ndim == 3 else pixels[..., 0]
    if like.dtype in LEVELS:
        return np.rint(pixels * LEVELS[like.dtype]).astype(like.dtype)
    return pixels.astype(like.dtype)


def _from_tensor(image: Tensor) -> Pixels:
    if tuple(image.shape[:-2]) not in ((3,), (1, 3)) or image.numel() == 0:
        raise _unexpected("a tensor", "of (3, H, W) or (1, 3, H, W)", tuple(image.shape))
    if not image.is_floating_point() and image.dtype != torch.uint8:
        raise _unexpected("pixels", "of uint8 or floats", image.dtype)
    planes = image.detach().reshape(image.shape[-3:]).permute(1, 2, 0).to("cpu", torch.float32)
    if image.dtype == torch.uint8:
        return (planes / 255).numpy()
    return _checked(planes.numpy())


def _like_tensor(pixels: Pixels, like: Tensor) -> Tensor:
    levels = np.rint(pixels * 255) if like.dtype == torch.uint8 else pixels
    planes = torch.from_numpy(levels).permute(2, 0, 1).to(like)
    return planes[None] if like.dim() == 4 else planes


def _checked(pixels: Pixels) -> Pixels:
    low, high = float(pixels.min()), float(pixels.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageArgumentError(
            "The image has values that are not finite, where floats in [0, 1] were expected.",
            hint="Replace them first, with numpy.nan_to_num for instance.",
        )
    if low < -SLACK or high > 1 + SLACK:
        raise ImageArgumentError(
            f"The image has values from {low:g} to {high:g}, where floats in [0, 1] were expected.",
            hint="Bring them there first: x / 255, or (x + 1) / 2; or give uint8.",
        )
    return pixels


def _unexpected(what: str, expected: str, got: object) -> ImageArgumentError:
    return ImageArgumentError(
        f"As an image {what} {expected} was expected, not {got}.",
        hint="Give a PIL image, an array (H, W, C) or a tensor (3, H, W).",
    )
