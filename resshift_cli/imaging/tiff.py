"""TIFF: its first tags, which are Pillow's work, and what they say."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import BinaryIO

from PIL import Image, _imaging
from PIL.TiffImagePlugin import ImageFileDirectory_v1, ImageFileDirectory_v2

# What Pillow's decoder of compressed files finds wrong would else go straight to the terminal.
# Where it is linked into Pillow, it can't be reached.
with suppress(OSError, AttributeError):
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
FILL_ORDER, PLANAR = 266, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES = 273, 277, 278, 279
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
PREDICTOR, COLOR_MAP, EXTRA_SAMPLES, SAMPLE_FORMAT = 317, 320, 338, 339
XMP, IPTC, ICC = 700, 33723, 34675

DEFLATE, INCH = 8, 2
LONG, LONG8 = 4, 16
_JPEG, _CENTIMETRE = 7, 3
_MOST_BYTES = 1 << 32  # of a file that is taken into memory whole: its offsets reach no farther


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


def has_tiled_planes(tags: ImageFileDirectory_v2) -> bool:
    """Whether each channel has tiles of its own, which libvips does not read."""
    return tags.get(PLANAR) == 2 and TILE_OFFSETS in tags and tags.get(SAMPLES, 1) > 1


def plane(file: BinaryIO, tags: ImageFileDirectory_v2, number: int) -> bytes:
    """A TIFF of one channel of a file of tiled planes: the same bytes under other tags.

    Raises:
        Exception: nearly any, if the file is damaged.
    """
    file.seek(0)
    content = bytearray(file.read(_MOST_BYTES))
    content += bytes(len(content) % 2)
    big = tags._bigtiff
    single = ImageFileDirectory_v2(bytes(content[: 16 if big else 8]))
    kept = (WIDTH, HEIGHT, COMPRESSION, FILL_ORDER, PREDICTOR, TILE_WIDTH, TILE_HEIGHT)
    for tag in (tag for tag in kept if tag in tags):
        single[tag] = tags[tag]
    single[PHOTOMETRIC], single[SAMPLES], single[BITS] = 1, 1, tags[BITS][number]
    single[SAMPLE_FORMAT] = tags.get(SAMPLE_FORMAT, (1,))[0]
    count = len(tags[TILE_OFFSETS]) // tags[SAMPLES]
    for tag in (TILE_OFFSETS, TILE_BYTES):
        single.tagtype[tag] = LONG8 if big else LONG
        single[tag] = tags[tag][number * count : (number + 1) * count]
    start = slice(8, 16) if big else slice(4, 8)
    end = len(content).to_bytes(start.stop - start.start, "little")
    content[start] = end if content[:2] == b"II" else end[::-1]
    return bytes(content) + single.tobytes(len(content))


def dpi(tags: ImageFileDirectory_v2) -> tuple[float, float] | None:
    """Dots per inch, across and down."""
    unit = {INCH: 1.0, _CENTIMETRE: 2.54}.get(tags.get(RESOLUTION_UNIT, INCH))
    if unit is None or X_RESOLUTION not in tags or Y_RESOLUTION not in tags:
        return None
    return float(tags[X_RESOLUTION]) * unit, float(tags[Y_RESOLUTION]) * unit


def size(tags: ImageFileDirectory_v2) -> tuple[int, int]:
    """Width and height."""
    return int(tags[WIDTH]), int(tags[HEIGHT])


def block(tags: ImageFileDirectory_v2, tag: int) -> bytes | None:
    """A block of bytes, whatever its type says: Photoshop calls IPTC 32-bit numbers."""
    return ImageFileDirectory_v1.from_v2(tags).tagdata.get(tag) or None
