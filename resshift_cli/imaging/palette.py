"""Palettes: taken out of an indexed image, and the pixels of a result brought back to one.

Every pixel takes the entry that is nearest to it as it is seen, without dithering: the differences
are those of colours multiplied by their opacity, and of opacity. Entries keep their places.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Palette = bytes
"""Entries of red, green, blue and opacity, 1 to 256, a byte each."""

_AT_ONCE = 1 << 16  # pixels that are compared with all entries


def of(image: Image.Image) -> Palette | None:
    """The palette of a decoded image; None if it is not indexed.

    Of a GIF or BMP whose palette is all shades of gray in their order, Pillow makes a gray image.
    """
    if image.mode in ("1", "L") and image.format in ("GIF", "BMP"):
        shades = (
            np.arange(256, dtype=np.uint8) if image.mode == "L" else np.array([0, 255], np.uint8)
        )
        opacity = np.full_like(shades, 255)
        clear = image.info.get("transparency")
        if isinstance(clear, int) and clear < len(opacity):
            opacity[clear] = 0
        return np.stack([shades, shades, shades, opacity], axis=1).tobytes()
    if image.mode != "P":
        return None
    own = image.copy()
    own.apply_transparency()
    return bytes(own.getpalette("RGBA") or b"") or None


def indexed(samples: NDArray[np.uint8], palette: Palette, *, levels_of_opacity: int) -> Image.Image:
    """An indexed image with the very entries of a palette.

    Args:
        samples: (H, W, C), C as of `Pixels`.
        palette: of which opacity counts only if the samples have some.
        levels_of_opacity: 2 where a format knows clear and opaque only, 256 where it knows all.
    """
    entries = np.frombuffer(palette, np.uint8).reshape(-1, 4).copy()
    if samples.shape[2] < 3:
        samples = samples[..., [0, 0, 0, 1][: 2 + samples.shape[2]]]
    height, width, channels = samples.shape
    if channels == 3:
        entries[:, 3] = 255
    elif levels_of_opacity == 2:
        entries[:, 3] = np.where(entries[:, 3] >= 128, 255, 0)
    seen = _seen(entries)
    lengths = (seen * seen).sum(axis=1)
    pixels = samples.reshape(-1, channels)
    nearest = np.empty(len(pixels), np.uint8)
    for first in range(0, len(pixels), _AT_ONCE):
        some = _seen(pixels[first : first + _AT_ONCE])
        nearest[first : first + _AT_ONCE] = (lengths - 2 * some @ seen.T).argmin(axis=1)
    image = Image.frombytes("P", (width, height), nearest.tobytes())
    if channels == 3 or levels_of_opacity == 2:
        image.putpalette(entries[:, :3].tobytes(), "RGB")
    else:
        image.putpalette(entries.tobytes(), "RGBA")
    clear = np.flatnonzero(entries[:, 3] == 0)
    if channels == 4 and levels_of_opacity == 2 and len(clear):
        image.info["transparency"] = int(clear[0])  # that all clear pixels are nearest to
    return image


def _seen(colours: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Red, green and blue times opacity, and opacity, which weighs as much as they do together."""
    opacity = np.ones((len(colours), 1), np.float32)
    if colours.shape[1] == 4:
        opacity = (colours[:, 3:] / np.float32(255)).astype(np.float32)
    weight = np.float32(255 * np.sqrt(3))
    return np.concatenate([colours[:, :3] * opacity, opacity * weight], axis=1, dtype=np.float32)
