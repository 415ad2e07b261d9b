"""TIFF: its first tags, and files without loss in 8 or 16 bits with everything that goes beside.

Pillow writes no 16-bit colour, and no EXIF into a compressed file; libvips writes no EXIF at all.
The tags themselves are Pillow's work.
"""

from __future__ import annotations

import zlib
from fractions import Fraction
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES = 273, 277, 278, 279
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
PREDICTOR, EXTRA_SAMPLES, SAMPLE_FORMAT = 317, 338, 339
XMP, IPTC, ICC = 700, 33723, 34675

_BYTE, _LONG, _UNDEFINED = 1, 4, 7
_DEFLATE, _INCH, _CENTIMETRE = 8, 2, 3
_STRIP = 1 << 20  # bytes of pixels in a strip


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
    """Whether it is gray or RGB, with or without alpha, or has a palette."""
    channels = {0: 1, 1: 1, 2: 3, 3: 1}.get(tags.get(PHOTOMETRIC, -1))
    return channels is not None and tags.get(SAMPLES, 1) in (channels, channels + 1)


def dpi(tags: ImageFileDirectory_v2) -> tuple[float, float] | None:
    """Dots per inch, across and down."""
    unit = {_INCH: 1.0, _CENTIMETRE: 2.54}.get(tags.get(RESOLUTION_UNIT, _INCH))
    if unit is None or X_RESOLUTION not in tags or Y_RESOLUTION not in tags:
        return None
    return float(tags[X_RESOLUTION]) * unit, float(tags[Y_RESOLUTION]) * unit


def encode(
    levels: NDArray[np.uint8] | NDArray[np.uint16],
    *,
    icc: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    iptc: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    compression: int = 0,
) -> bytes:
    """A whole file.

    Args:
        levels: (H, W, C), C as in `Picture`.
        icc: colour profile.
        exif: block as Pillow makes it; the file takes over its byte order, which text in it may
            depend on.
        xmp: XMP packet.
        iptc: IPTC records.
        dpi: dots per inch, across and down.
        compression: 0 for none, else zlib's level.
    """
    described = Image.Exif()
    if exif is not None:
        described.load(exif)
    order: Literal["<", ">"] = ">" if described.endian == ">" else "<"
    height, width, channels = levels.shape
    body = bytearray()
    offsets, sizes = [], []  # offsets from the end of the tags: Pillow adds where that is
    rows = max(1, _STRIP // (levels[0].nbytes))
    for top in range(0, height, rows):
        strip = _strip(levels[top : top + rows], order, compression)
        offsets.append(len(body))
        sizes.append(len(strip))
        body += strip + b"\0" * (len(strip) % 2)

    head = b"II*\0" if order == "<" else b"MM\0*"
    tags = ImageFileDirectory_v2(head + bytes(4))
    tags[WIDTH], tags[HEIGHT] = width, height
    tags[BITS] = (levels.dtype.itemsize * 8,) * channels
    tags[COMPRESSION] = _DEFLATE if compression else 1
    tags[PHOTOMETRIC] = 2 if channels > 2 else 1
    tags[SAMPLES], tags[ROWS_PER_STRIP] = channels, rows
    for tag, numbers in ((STRIP_OFFSETS, offsets), (STRIP_BYTES, sizes)):
        tags.tagtype[tag] = _LONG
        tags[tag] = tuple(numbers)
    if compression:
        tags[PREDICTOR] = 2
    if channels in (2, 4):
        tags[EXTRA_SAMPLES] = 2  # alpha that colours are not multiplied by
    if dpi is not None:
        tags[X_RESOLUTION], tags[Y_RESOLUTION] = (IFDRational(Fraction(d)) for d in dpi)
        tags[RESOLUTION_UNIT] = _INCH
    for tag, kind, block in ((ICC, _UNDEFINED, icc), (XMP, _BYTE, xmp), (IPTC, _UNDEFINED, iptc)):
        if block is not None:
            tags.tagtype[tag] = kind
            tags[tag] = block
    for tag, value in described.items():
        tags[tag] = _part(described, tag) if tag in _PARTS else value

    first = tags.tobytes(8)
    return b"".join((head, (8).to_bytes(4, "little" if order == "<" else "big"), first, body))


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
