"""How much a file carries beside its pixels, told from its structure before anything is decoded.

The package that decodes takes all of it into memory, some of it several times, and a few kinds
piece by piece in a time that grows with the square of their size.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

from resshift_cli.imaging.tiff import COMPRESSION, SIGNATURES, STRIP_BYTES, STRIP_OFFSETS

MOST = 16 << 20
"""Bytes that a file may carry, compressed or not; the largest colour profiles have 5 MB."""

MOST_NUMBERS = 1 << 20
"""Bytes of such a TIFF tag as is made of numbers, each of which becomes an object."""

_PNG_CARRIED = (b"eXIf", b"iCCP", b"tEXt", b"zTXt", b"iTXt")
_WEBP_CARRIED = (b"EXIF", b"XMP ", b"ICCP")
_JPEG_CARRIED = (*range(0xE0, 0xF0), 0xFE)  # APP0 to APP15, comments
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9

# Where a TIFF's pixels are, its JPEG tables, and what Photoshop keeps for itself, its layers.
_TIFF_NOT_CARRIED = (STRIP_OFFSETS, STRIP_BYTES, 324, 325, 330, 347, 34377, 37724, COMPRESSION)
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TIFF_SIZES |= {16: 8, 17: 8, 18: 8}
_TIFF_NUMBERS = frozenset(_TIFF_SIZES) - {1, 2, 7, 4}  # IPTC may be told to be of type 4


def exceeds_limit(file: BinaryIO) -> bool:
    """Whether a file carries more than is sane; False where its structure is none.

    Args:
        file: a PNG, JPEG, TIFF, WebP or any other file; where it stands is changed.
    """
    try:
        file.seek(0)
        start = file.read(16)
        if start.startswith(SIGNATURES):
            return _is_too_much_in_tiff(file, start)
        if start.startswith(b"\x89PNG\r\n\x1a\n"):
            return sum(_png(file)) > MOST
        if start.startswith(b"\xff\xd8"):
            return sum(_jpeg(file)) > MOST
        if start[8:12] == b"WEBP":
            return sum(_webp(file)) > MOST
    except (struct.error, OSError, OverflowError, ValueError):
        # It is cut short, or points beyond any file: the decoder tells.
        return False
    return False


def _png(file: BinaryIO) -> Iterator[int]:
    file.seek(8)
    while len(head := file.read(8)) == 8:
        (length,) = struct.unpack(">I", head[:4])
        if head[4:] in _PNG_CARRIED:
            yield length
        if head[4:] == b"IEND":  # there may be anything behind it, and no end of that
            return
        file.seek(length + 4, os.SEEK_CUR)


def _webp(file: BinaryIO) -> Iterator[int]:
    file.seek(4)
    end = 8 + int.from_bytes(file.read(4), "little")
    file.seek(12)
    while file.tell() < end and len(head := file.read(8)) == 8:
        (length,) = struct.unpack("<I", head[4:])
        if head[:4] in _WEBP_CARRIED:
            yield length
        file.seek(length + length % 2, os.SEEK_CUR)


def _jpeg(file: BinaryIO) -> Iterator[int]:
    file.seek(2)
    while file.read(1) == b"\xff":
        while (kind := file.read(1)) == b"\xff":
            continue  # padding
        if not kind or kind[0] in (_JPEG_SCAN, _JPEG_END):
            return
        (length,) = struct.unpack(">H", file.read(2))
        if kind[0] in _JPEG_CARRIED:
            yield length
        file.seek(length - 2, os.SEEK_CUR)


def _is_too_much_in_tiff(file: BinaryIO, start: bytes) -> bool:
    order = "<" if start.startswith(b"II") else ">"
    if start[2:4] in (b"+\0", b"\0+"):  # BigTIFF
        first, count, entry = struct.unpack(f"{order}Q", start[8:16])[0], "Q", "HHQ8x"
    else:
        first, count, entry = struct.unpack(f"{order}I", start[4:8])[0], "H", "HHI4x"
    file.seek(first)
    (entries,) = struct.unpack(order + count, file.read(struct.calcsize(order + count)))
    total = 0
    for _ in range(min(entries, 1 << 16)):
        tag, kind, values = struct.unpack(order + entry, file.read(struct.calcsize(order + entry)))
        if tag in _TIFF_NOT_CARRIED:
            continue
        size = values * _TIFF_SIZES.get(kind, 0)
        total += size
        if kind in _TIFF_NUMBERS and size > MOST_NUMBERS:
            return True
    return total > MOST
