"""Image files to read, and pictures to write, in tests."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

from resshift_cli.imaging.picture import Picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY_PROFILE = SRGB[:16] + b"GRAY" + SRGB[20:]


def levels(channels: int, height: int = 5, width: int = 7) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rng = np.random.default_rng(channels)
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def picture_of(channels: int = 3, **kept: Any) -> Picture:
    return Picture(np.divide(levels(channels), 255, dtype=np.float32), **kept)


def eight_bits(image: Picture) -> np.ndarray[Any, Any]:
    return np.rint(image.pixels * 255).astype(np.uint8)


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def exif_with(**tags: Any) -> bytes:
    exif = Image.Exif()
    for name, value in tags.items():
        exif[ExifTags.Base[name]] = value
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.ExifImageWidth: 7,
        ExifTags.Base.ExifImageHeight: 5,
        ExifTags.Base.LensModel: "A lens",
    }
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    return exif.tobytes()


def half_floats(size: int = 4) -> bytes:
    """A DDS of BC6H, which is HDR."""
    head = struct.pack("<4s4I", b"DDS ", 124, 0x1007, size, size).ljust(76, b"\0")
    head += struct.pack("<2I4s", 32, 4, b"DX10").ljust(52, b"\0")
    return head + struct.pack("<5I", 95, 3, 0, 1, 0) + bytes(size * size)


def smooth(height: int = 64, width: int = 64) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Pixels that no format changes much, and none of which are black."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    pixels = np.stack([rows / height, columns / width, 1 - rows / height], -1) * 0.7 + 0.2
    return pixels.astype(np.float32)
