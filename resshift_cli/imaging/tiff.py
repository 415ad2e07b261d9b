"""TIFF: its first tags, and files without loss in 8 or 16 bits with everything that goes beside.

Pillow writes no 16-bit colour, and no EXIF into a compressed file; libvips writes no EXIF at all.
The tags themselves are Pillow's work.
"""

from __future__ import annotations

import ctypes
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, _imaging
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

# What Pillow's decoder of compressed files finds wrong would else go straight to the terminal.
# Where it is linked into Pillow, it can't be reached.
with suppress(OSError, AttributeError):
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES = 273, 277, 278, 279
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
PREDICTOR, COLOR_MAP, EXTRA_SAMPLES, SAMPLE_FORMAT = 317, 320, 338, 339
XMP, IPTC, ICC = 700, 33723, 34675

_BYTE, _LONG, _UNDEFINED, _LONG8 = 1, 4, 7, 16
_JPEG, _DEFLATE, _INCH, _CENTIMETRE = 7, 8, 2, 3
_STRIP = 1 << 20  # bytes of pixels in a strip
_ORDINARY_LIMIT = 2**32 - (1 << 20)  # bytes that offsets of 32 bits reach, with some for the tags


def first_tags(file: BinaryIO) -> tuple[ImageFileDirectory_v2, Image.Exif]:
    """The tags of the first page, `next` being where those of the second are, and its EXIF.

    Raises:
        Exception: nearly any, if the file is damaged.
    """
    file.seek(0)
    head = file.read(8)
    big = 43 in head[2:4]
    if big:
        head += file.read(8)
    tags = ImageFileDirectory_v2(head)
    offset = tags.next
    file.seek(offset)
    tags.load(file)
    exif = Image.Exif()
    exif.bigtiff, exif.endian = big, "<" if head[:2] == b"II" else ">"
    exif.load_from_fp(file, offset)
    return tags, exif


def bits(tags: ImageFileDirectory_v2) -> int:
    """Bits of the deepest channel."""
    return int(max(tags.get(BITS, (1,))))


def is_gray_or_rgb(tags: ImageFileDirectory_v2) -> bool:
    """Whether it is gray, RGB or JPEG's colours, with or without alpha, or has a palette."""
    photometric = tags.get(PHOTOMETRIC, -1)
    channels = {0: 1, 1: 1, 2: 3, 3: 1}.get(photometric)
    if photometric == 3 and COLOR_MAP not in tags:  # it was cut off
        return False
    if photometric == 6 and tags.get(COMPRESSION) == _JPEG:  # as RGB by the decoder
        channels = 3
    return channels is not None and tags.get(SAMPLES, 1) in (channels, channels + 1)


def dpi(tags: ImageFileDirectory_v2) -> tuple[float, float] | None:
    """Dots per inch, across and down."""
    unit = {_INCH: 1.0, _CENTIMETRE: 2.54}.get(tags.get(RESOLUTION_UNIT, _INCH))
    if unit is None or X_RESOLUTION not in tags or Y_RESOLUTION not in tags:
        return None
    return float(tags[X_RESOLUTION]) * unit, float(tags[Y_RESOLUTION]) * unit


def encode(levels: NDArray[np.uint8] | NDArray[np.uint16], **beside: Any) -> bytes:
    """A whole file; `write` says what goes beside the (H, W, C) levels."""
    file = io.BytesIO()
    write(file, [levels], levels.shape, depth=8 * levels.dtype.itemsize, **beside)
    return file.getvalue()


def write(
    file: BinaryIO,
    rows: Iterable[NDArray[np.uint8] | NDArray[np.uint16]],
    shape: tuple[int, ...],
    *,
    depth: int = 8,
    icc: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    iptc: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    compression: int = 0,
) -> None:
    """Write a file as its rows come: a BigTIFF where pixels of 4 GiB do not fit in an ordinary one.

    Args:
        file: new and seekable.
        rows: bands (n, W, C), C as in `Picture`.
        shape: (H, W, C) of all of them.
        depth: bits of each level, 8 or 16.
        icc: colour profile.
        exif: block as Pillow makes it; an ordinary file takes over its byte order, which text in
            it may depend on.
        xmp: XMP packet.
        iptc: IPTC records.
        dpi: dots per inch, across and down.
        compression: 0 for none, else zlib's level.
    """
    described = Image.Exif()
    if exif is not None:
        described.load(exif)
    height, width, channels = shape
    row_bytes = width * channels * depth // 8
    height_of_strip = max(1, _STRIP // row_bytes)
    count = -(-height // height_of_strip)
    beside = sum(len(block) for block in (icc, exif, xmp, iptc) if block)
    # Deflated data may be a little larger than the pixels.
    big = row_bytes * height * 1.001 + beside + 16 * count > _ORDINARY_LIMIT
    # Pillow makes no BigTIFF in the other order.
    order: Literal["<", ">"] = ">" if described.endian == ">" and not big else "<"
    head = b"II+\0\x08\0\0\0" if big else b"II*\0" if order == "<" else b"MM\0*"
    start = 16 if big else 8

    def tags(offsets: Sequence[int], sizes: Sequence[int]) -> bytes:
        """As long for all numbers. Offsets count from their own end."""
        tags = ImageFileDirectory_v2(head + bytes(start - len(head)))
        tags[WIDTH], tags[HEIGHT] = width, height
        tags[BITS] = (depth,) * channels
        tags[COMPRESSION] = _DEFLATE if compression else 1
        tags[PHOTOMETRIC] = 2 if channels > 2 else 1
        tags[SAMPLES], tags[ROWS_PER_STRIP] = channels, height_of_strip
        for tag, numbers in ((STRIP_OFFSETS, offsets), (STRIP_BYTES, sizes)):
            tags.tagtype[tag] = _LONG8 if big else _LONG
            tags[tag] = tuple(numbers)
        if compression:
            tags[PREDICTOR] = 2
        if channels in (2, 4):
            tags[EXTRA_SAMPLES] = 2  # alpha that colours are not multiplied by
        if dpi is not None:
            tags[X_RESOLUTION], tags[Y_RESOLUTION] = (IFDRational(Fraction(d)) for d in dpi)
            tags[RESOLUTION_UNIT] = _INCH
        blocks = ((ICC, _UNDEFINED, icc), (XMP, _BYTE, xmp), (IPTC, _UNDEFINED, iptc))
        for tag, kind, block in blocks:
            if block is not None:
                tags.tagtype[tag] = kind
                tags[tag] = block
        for tag, value in described.items():
            tags[tag] = _part(described, tag) if tag in _PARTS else value
        return tags.tobytes(start)

    file.write(head + start.to_bytes(start - len(head), "little" if order == "<" else "big"))
    file.write(tags([0] * count, [0] * count))  # their place, until the numbers are known
    offsets, sizes, done = [], [], 0
    for levels in _strips(rows, height_of_strip):
        strip = _strip(levels, order, compression)
        offsets.append(done)
        sizes.append(len(strip))
        strip += b"\0" * (len(strip) % 2)
        file.write(strip)
        done += len(strip)
    file.seek(start)
    file.write(tags(offsets, sizes))
    file.seek(0, io.SEEK_END)


def _strips(rows: Iterable[NDArray[Any]], height: int) -> Iterator[NDArray[Any]]:
    """The same rows in bands of one height, but for the last."""
    held: list[NDArray[Any]] = []
    count = 0
    for band in rows:
        held.append(band)
        count += len(band)
        if count < height:
            continue
        joined = held[0] if len(held) == 1 else np.concatenate(held)
        whole = count // height * height
        yield from np.split(joined[:whole], whole // height)
        held, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(held)


_PARTS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)


def _part(exif: Image.Exif, tag: int) -> dict[int, Any]:
    part = dict(exif.get_ifd(tag))
    if ExifTags.IFD.Interop in part:
        part[ExifTags.IFD.Interop] = dict(exif.get_ifd(ExifTags.IFD.Interop))
    return part


def _strip(levels: NDArray[Any], order: Literal["<", ">"], compression: int) -> bytes:
    """Rows as they lie in the file: each level less that of the pixel to its left, deflated."""
    if compression:
        levels = levels.copy()
        levels[:, 1:] -= levels[:, :-1].copy()
    data = levels.astype(levels.dtype.newbyteorder(order), copy=False).tobytes()
    return zlib.compress(data, compression) if compression else data
