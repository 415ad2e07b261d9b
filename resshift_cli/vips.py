"""Pixels by libvips, where Pillow does not do.

Pillow reduces 16-bit colour to 8 without a word, and what its decoder of compressed TIFF finds
wrong goes straight to the terminal. libvips holds 16-bit integers and floats, reads TIFF in all its
layouts, and comes in one wheel for every platform. It is loaded only when such a file turns up. Its
warnings stay off the screen, and nothing but pixels is taken from it.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

# libvips' warnings would else be printed by the logging of Python's last resort.
logging.getLogger("pyvips").addHandler(logging.NullHandler())


def decode(file: BinaryIO, size: tuple[int, int]) -> NDArray[Any]:
    """Pixels of a PNG or TIFF: uint8, uint16 or float32 (H, W, C), as they are in the file.

    Gray where 0 is white is turned round, and colours are divided by an alpha that they were
    multiplied by.

    Args:
        file: opened by the system, not in memory.
        size: (width, height) that were found in its header.

    Raises:
        Exception: nearly any, if the file is damaged.
        TypeError: samples that are neither of these, nor floats of 16 bits.
    """
    import pyvips  # type: ignore[import-untyped]

    file.seek(0)
    source = pyvips.Source.new_from_descriptor(file.fileno())
    image = pyvips.Image.new_from_source(source, "", fail_on="error", access="sequential")
    if image.format not in ("uchar", "ushort", "float"):
        raise TypeError(f"samples of type {image.format}")
    if (image.width, image.height) != size or image.bands > 4:
        raise ValueError(f"its header tells of {image.width}x{image.height}x{image.bands} too")
    pixels: NDArray[Any] = image.numpy()
    return pixels.reshape(image.height, image.width, image.bands)


def encode_png(levels: NDArray[np.uint16], *, like: bytes, compression: int = 6) -> bytes:
    """A PNG of 16 bits.

    Args:
        levels: (H, W, C), C as in `Picture`.
        like: any other PNG, whose profile, text and so on are taken over.
        compression: zlib's level.
    """
    import pyvips

    kind = "grey16" if levels.shape[2] < 3 else "rgb16"
    image = pyvips.Image.new_from_array(levels, interpretation=kind)
    plain = image.pngsave_buffer(bitdepth=16, compression=compression, filter="all", keep="none")
    parts = [plain[:8]]
    for name, chunk in _chunks(plain):
        if name in (b"IHDR", b"IDAT", b"IEND"):
            parts.append(chunk)
        if name == b"IHDR":
            parts += [other for name, other in _chunks(like) if name in _BESIDE]
    return b"".join(parts)


_BESIDE = (b"iCCP", b"pHYs", b"eXIf", b"tEXt", b"zTXt", b"iTXt")


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every chunk's name, and the whole of it."""
    start = 8
    while start < len(png):
        (length,) = struct.unpack_from(">I", png, start)
        end = start + length + 12
        yield png[start + 4 : start + 8], png[start:end]
        start = end
