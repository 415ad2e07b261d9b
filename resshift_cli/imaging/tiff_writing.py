"""TIFF files without loss, in 8 or 16 bits, with everything that goes beside the pixels.

Pillow writes no 16-bit colour, and no EXIF into a compressed file; libvips writes no EXIF at all.
The tags themselves are Pillow's work.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from resshift_cli.imaging import tiff
from resshift_cli.imaging.metadata import Description

Levels = NDArray[np.uint8] | NDArray[np.uint16]
Order = Literal["<", ">"]

_BYTE, _UNDEFINED = 1, 7
_STRIP = 1 << 20  # bytes of pixels in a strip
_ORDINARY_LIMIT = 2**32 - (1 << 20)  # bytes that offsets of 32 bits reach, with some for the tags
_PARTS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)


def encode(levels: Levels, description: Description, *, compression: int = 0) -> bytes:
    """A whole file, of (H, W, C) levels; see `write`."""
    file, depth = io.BytesIO(), 8 * levels.dtype.itemsize
    write(file, [levels], levels.shape, description, depth=depth, compression=compression)
    return file.getvalue()


def write(
    file: BinaryIO,
    rows: Iterable[Levels],
    shape: tuple[int, ...],
    description: Description,
    *,
    depth: int = 8,
    compression: int = 0,
) -> None:
    """Write a file as its rows come: a BigTIFF where pixels of 4 GiB do not fit in an ordinary one.

    Args:
        file: new and seekable.
        rows: bands (n, W, C), C as in `Picture`.
        shape: (H, W, C) of all of them.
        description: goes beside them; an ordinary file takes over the byte order of the EXIF, which
            text in it may depend on. Texts by keyword have no place.
        depth: bits of each level, 8 or 16.
        compression: 0 for none, else zlib's level.
    """
    layout = _Layout.of(shape, description, depth, compression)
    file.write(layout.head)
    count = layout.strips
    file.write(layout.tags([0] * count, [0] * count))  # their place, until the numbers are known
    offsets, sizes, done = [], [], 0
    for levels in _strips(rows, layout.strip_height):
        strip = _strip(levels, layout.order, compression)
        offsets.append(done)
        sizes.append(len(strip))
        strip += b"\0" * (len(strip) % 2)
        file.write(strip)
        done += len(strip)
    file.seek(len(layout.head))
    file.write(layout.tags(offsets, sizes))
    file.seek(0, io.SEEK_END)


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a file is laid out: the head, the tags, the strips of pixels."""

    shape: tuple[int, ...]
    description: Description
    exif: Image.Exif
    depth: int
    compression: int
    strip_height: int
    big: bool

    @classmethod
    def of(
        cls, shape: tuple[int, ...], description: Description, depth: int, compression: int
    ) -> _Layout:
        exif = Image.Exif()
        if description.exif is not None:
            exif.load(description.exif)
        height, width, channels = shape
        row_bytes = width * channels * depth // 8
        strip_height = max(1, _STRIP // row_bytes)
        blocks = (description.icc, description.exif, description.xmp, description.iptc)
        carried = sum(len(block) for block in blocks if block) + 16 * -(-height // strip_height)
        # Deflated data may be a little larger than the pixels.
        big = row_bytes * height * 1.001 + carried > _ORDINARY_LIMIT
        return cls(shape, description, exif, depth, compression, strip_height, big)

    @property
    def strips(self) -> int:
        """How many."""
        return -(-self.shape[0] // self.strip_height)

    @property
    def order(self) -> Order:
        """Of bytes; Pillow makes no BigTIFF in the other one."""
        return ">" if self.exif.endian == ">" and not self.big else "<"

    @property
    def head(self) -> bytes:
        """The first bytes, which say where the tags are: behind them."""
        if self.big:
            return b"II+\0\x08\0\0\0" + (16).to_bytes(8, "little")
        return b"II*\0\x08\0\0\0" if self.order == "<" else b"MM\0*\0\0\0\x08"

    def tags(self, offsets: Sequence[int], sizes: Sequence[int]) -> bytes:
        """As long for all numbers. Offsets count from their own end."""
        start = len(self.head)
        tags = ImageFileDirectory_v2(self.head[:8] + bytes(start - 8) if self.big else self.head)
        self._describe_pixels(tags)
        for tag, numbers in ((tiff.STRIP_OFFSETS, offsets), (tiff.STRIP_BYTES, sizes)):
            tags.tagtype[tag] = tiff.LONG8 if self.big else tiff.LONG
            tags[tag] = tuple(numbers)
        if self.description.dpi is not None:
            across, down = (IFDRational(Fraction(d)) for d in self.description.dpi)
            tags[tiff.X_RESOLUTION], tags[tiff.Y_RESOLUTION] = across, down
            tags[tiff.RESOLUTION_UNIT] = tiff.INCH
        for tag, kind, block in (
            (tiff.ICC, _UNDEFINED, self.description.icc),
            (tiff.XMP, _BYTE, self.description.xmp),
            (tiff.IPTC, _UNDEFINED, self.description.iptc),
        ):
            if block is not None:
                tags.tagtype[tag] = kind
                tags[tag] = block
        for tag, value in self.exif.items():
            tags[tag] = _part(self.exif, tag) if tag in _PARTS else value
        return tags.tobytes(start)

    def _describe_pixels(self, tags: ImageFileDirectory_v2) -> None:
        height, width, channels = self.shape
        tags[tiff.WIDTH], tags[tiff.HEIGHT] = width, height
        tags[tiff.BITS] = (self.depth,) * channels
        tags[tiff.COMPRESSION] = tiff.DEFLATE if self.compression else 1
        tags[tiff.PHOTOMETRIC] = 2 if channels > 2 else 1
        tags[tiff.SAMPLES], tags[tiff.ROWS_PER_STRIP] = channels, self.strip_height
        if self.compression:
            tags[tiff.PREDICTOR] = 2
        if channels in (2, 4):
            tags[tiff.EXTRA_SAMPLES] = 2  # alpha that colours are not multiplied by


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
