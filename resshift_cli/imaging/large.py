"""Large images whose pixels stay in their file, which is decoded band by band."""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO

from PIL import Image

from resshift_cli.imaging import decode, refusals, rows, streaming, tiff, tiff_reading
from resshift_cli.imaging.colourspace import profile_of
from resshift_cli.imaging.opening import Opened, check_size, decoding, frame_count
from resshift_cli.imaging.picture import Picture, blank
from resshift_cli.imaging.rows import InFile


def in_file(file: Opened) -> tuple[Picture, InFile] | None:
    """A large image whose pixels can stay in its file; None of others.

    Raises:
        Exception: nearly any, if the file is damaged, or `read` has something against it.
    """
    with decoding(max_pixels=file.max_pixels):
        found = _tiff(file) if file.is_tiff else _by_pillow(file)
    if found is None:
        return None
    about, bands, orientation = found
    if not _is_large(bands.shape) or orientation != 1:
        return None
    check_size(bands.shape[1], bands.shape[0], file.name, file.max_pixels)
    for _ in bands.levels():  # finds damage
        pass
    return about.with_pixels(blank(bands.shape)), bands


def _is_large(shape: tuple[int, ...]) -> bool:
    return shape[0] * shape[1] > rows.LARGE


def _tiff(file: Opened) -> tuple[Picture, InFile, int] | None:
    """A single page of 8 or 16 bits, gray or RGB, without alpha, with its orientation."""
    if refusals.is_named_raw(file.source.path):
        return None
    tags, _ = tiff.first_tags(file.file)
    channels = int(tags.get(tiff.SAMPLES, 1))
    if (
        (tiff.bits(tags), tags.get(tiff.SAMPLE_FORMAT, (1,))[0]) not in {(8, 1), (16, 1)}
        or tags.get(tiff.PHOTOMETRIC) == 3
        or channels not in (1, 3)
        or not tiff.is_gray_or_rgb(tags)
        or tags.next
    ):
        return None
    page = tiff_reading.for_libvips(file)
    if page is None:
        return _by_pillow(file)
    (width, height), (about, orientation) = tiff.size(tags), page.about()
    return about, InFile(file.source, (height, width, channels), about.format), orientation


def _by_pillow(file: Opened) -> tuple[Picture, InFile, int] | None:
    """What Pillow opens, if it is such as `_tiff` says, or a PNG or JPEG."""
    image = file.image()
    width, height = image.size
    if not _is_large((height, width)) or image.format not in ("PNG", "JPEG", "MPO", "TIFF"):
        return None
    if frame_count(image, file.name) > 1:
        return None
    depth = 8
    if image.format == "PNG":
        depth, image = decode.png_depth(file), _one_pixel_of(file.file)
    if image.mode not in ("L", "RGB", "I;16") or image.has_transparency_data or depth < 8:
        return None
    channels = 3 if image.mode == "RGB" else 1
    icc = profile_of(image, file.name, file.file, file.assumed)
    about, orientation = decode.about(image, file.name, icc, depth, file.file)
    return about, InFile(file.source, (height, width, channels), about.format), orientation


def _one_pixel_of(file: BinaryIO) -> Image.Image:
    """A PNG with everything that the file has, but for the pixels; it has to be whole.

    Some may stand behind the pixels, and Pillow would decode them all to get there.
    """
    file.seek(8)
    small, begun = io.BytesIO(), False
    small.write(b"\x89PNG\r\n\x1a\n")
    name = b""
    while name != b"IEND":
        length, name = struct.unpack(">I4s", file.read(8))
        if name == b"IDAT":
            file.seek(length + 4, io.SEEK_CUR)
            if begun:
                continue
            begun, data = True, streaming.chunk(name, zlib.compress(bytes(7)))
        elif name == b"IHDR":  # depth and colours stay, at most 6 bytes a pixel
            body = file.read(length + 4)
            data = streaming.chunk(name, struct.pack(">II", 1, 1) + body[8:12] + b"\0")
        else:
            file.seek(-8, io.SEEK_CUR)
            data = file.read(length + 12)
        small.write(data)
    small.seek(0)
    image = Image.open(small, formats=("PNG",))
    image.load()
    return image
