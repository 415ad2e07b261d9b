"""Images in all the kinds that a caller may have them, and back to the kind that was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from resshift_cli.imaging.decode import from_pil
from resshift_cli.imaging.encode import to_pil
from resshift_cli.imaging.picture import Pixels

ImageT = TypeVar("ImageT", Image.Image, NDArray[Any], Tensor)


def taken(image: ImageT) -> tuple[Pixels, Callable[[Pixels], ImageT]]:
    """The pixels of an image, and what makes an image of its kind of others.

    Raises:
        UnsupportedImageError: a PIL image of a mode that is not handled.
        TypeError, ValueError: not an image of a kind that `Upscaler` takes, or one without pixels.
    """
    if isinstance(image, Image.Image):
        picture = from_pil(image)
        return picture.pixels, lambda pixels: to_pil(picture.with_pixels(pixels))
    if isinstance(image, np.ndarray):
        return _from_array(image), lambda pixels: _like_array(pixels, image)
    if isinstance(image, Tensor):
        return _from_tensor(image), lambda pixels: _like_tensor(pixels, image)
    raise TypeError(f"expected a PIL image, a numpy array or a tensor, got {type(image)}")


def planes_of(pixels: Pixels) -> Tensor:
    """(n, W, 1 or 3) to (1, 3, n, W)."""
    planes = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
    return planes.expand(3, -1, -1)[None]


def pixels_of(planes: Tensor) -> Pixels:
    """(1, C, n, W) to (n, W, C) in [0, 1]."""
    pixels: Pixels = planes[0].permute(1, 2, 0).clamp(0, 1).numpy()
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
