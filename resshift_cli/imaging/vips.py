"""Pixels by libvips, where Pillow does not do.

Pillow reduces 16-bit colour to 8 without a word, and what its decoder of compressed TIFF finds
wrong goes straight to the terminal. libvips holds 16-bit integers and floats, reads TIFF in all its
layouts, and comes in one wheel for every platform. It also gives large images band by band. It is
loaded only when such a file turns up. Its warnings stay off the screen, and nothing but pixels is
taken from it.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 1 << 32
"""Of a file that is taken into memory whole: what offsets of an ordinary TIFF reach."""

_ROWS = 8  # that a damaged file is decoded by
_TYPES = {"uchar": np.uint8, "ushort": np.uint16, "float": np.float32}

# libvips' warnings would else be printed by the logging of Python's last resort.
logging.getLogger("pyvips").addHandler(logging.NullHandler())


def profile(name: str) -> bytes:
    """A colour profile that libvips comes with."""
    import pyvips  # type: ignore[import-untyped]

    return bytes(pyvips.Operation.call("profile_load", name))


def decode(
    file: BinaryIO, size: tuple[int, int], *, lenient: bool = False, missing: int = 0
) -> NDArray[Any]:
    """Pixels of a PNG or TIFF: uint8, uint16 or float32 (H, W, C), as they are in the file.

    Gray where 0 is white is turned round, and colours are divided by an alpha that they were
    multiplied by.

    Args:
        file: opened by the system, not in memory.
        size: (width, height) that were found in its header.
        lenient: leave blank what is missing.
        missing: bytes at the end of a TIFF that are taken for zeros then.

    Raises:
        Exception: nearly any, if the file is damaged.
        TypeError: samples that are neither of these, nor floats of 16 bits.
    """
    import pyvips

    if lenient:
        file.seek(0)
        content = file.read(MOST_BYTES)
        content = _mended(content) if content.startswith(b"\x89PNG") else content + bytes(missing)
        return _rows(_checked(pyvips.Source.new_from_memory(content), size, fail_on="none"))
    file.seek(0)
    # Of what it can't decode of a TIFF, libvips only warns; of a harmless profile in a PNG too.
    fail_on = "error" if file.read(4) == b"\x89PNG" else "warning"
    with _descriptor(file) as descriptor:
        image = _checked(pyvips.Source.new_from_descriptor(descriptor), size, fail_on=fail_on)
        pixels: NDArray[Any] = image.numpy()
    return pixels.reshape(image.height, image.width, image.bands)


def _checked(source: Any, size: tuple[int, int], *, fail_on: str) -> Any:
    """The image that libvips sees, if it is what the header told of."""
    import pyvips

    image = pyvips.Image.new_from_source(source, "", fail_on=fail_on, access="sequential")
    if image.format not in ("uchar", "ushort", "float"):
        raise TypeError(f"samples of type {image.format}")
    if (image.width, image.height) != size or image.bands > 4:
        raise ValueError(f"its header tells of {image.width}x{image.height}x{image.bands} too")
    return image


def decode_planes(planes: Iterable[bytes], size: tuple[int, int]) -> NDArray[Any]:
    """Pixels of files of one channel each, together, as `decode` gives them."""
    import pyvips

    def decoded(content: bytes) -> NDArray[Any]:
        source = pyvips.Source.new_from_memory(content)
        pixels: NDArray[Any] = _checked(source, size, fail_on="warning").numpy()
        return pixels.reshape(size[1], size[0])

    return np.stack([decoded(content) for content in planes], axis=-1)


@contextmanager
def _descriptor(file: BinaryIO) -> Iterator[int]:
    """What libvips reads a file by; where that stands, Python's buffer counts on afterwards."""
    file.seek(0)
    descriptor = file.fileno()
    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        yield descriptor
    finally:
        os.lseek(descriptor, before, os.SEEK_SET)


def bands(
    file: BinaryIO, shape: tuple[int, int, int], height: int, *, strict: bool
) -> Iterator[NDArray[Any]]:
    """Rows of a PNG, JPEG or TIFF from the top, as `decode` gives them; only a band is in memory.

    Args:
        file: opened by the system, not in memory.
        shape: (H, W, C) that were found in its header.
        height: rows of a band.
        strict: take what the decoder warns of for damage.

    Yields:
        uint8 or uint16 (n, W, C).

    Raises:
        Exception: nearly any, if the file is damaged, or is of another shape or type.
    """
    import pyvips

    file.seek(0)
    source = pyvips.Source.new_from_descriptor(file.fileno())
    fail_on = "warning" if strict else "error"
    image = pyvips.Image.new_from_source(source, "", fail_on=fail_on, access="sequential")
    if (image.height, image.width, image.bands) != shape or image.format not in ("uchar", "ushort"):
        raise ValueError(
            f"its header tells of {image.width}x{image.height}x{image.bands} of {image.format} too"
        )
    region = pyvips.Region.new(image)
    for top in range(0, image.height, height):
        rows = min(height, image.height - top)
        data = region.fetch(0, top, image.width, rows)
        yield np.frombuffer(data, _TYPES[image.format]).reshape(rows, image.width, image.bands)


def _rows(image: Any) -> NDArray[Any]:
    """The pixels from the top to where they can't be decoded, and zeros from there."""
    import pyvips

    kind = _TYPES[image.format]
    pixels = np.zeros((image.height, image.width, image.bands), kind)
    region = pyvips.Region.new(image)
    for top in range(0, image.height, _ROWS):
        part = pixels[top : top + _ROWS]
        try:
            data = region.fetch(0, top, image.width, part.shape[0])
        except pyvips.Error:
            if top == 0:  # nothing can be decoded
                raise
            break
        part[...] = np.frombuffer(data, kind).reshape(part.shape)
    return pixels


def _mended(png: bytes) -> bytes:
    """A PNG whose last chunk is whole, or it would be passed over."""
    parts = [png[:8]]
    start = 8
    while len(png) - start > 12:
        (length,) = struct.unpack_from(">I", png, start)
        name, body = png[start + 4 : start + 8], png[start + 8 : start + 8 + length]
        parts += [struct.pack(">I", len(body)), name, body]
        parts.append(struct.pack(">I", zlib.crc32(name + body)))
        start += length + 12
    return b"".join(parts)
