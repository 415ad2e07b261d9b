"""Pixels out of an open file, by Pillow or, where that does not do, by libvips.

Gray and 1 bit become gray; a palette becomes RGB; transparency in any form becomes alpha; CMYK
becomes RGB by its profile. Everything comes upright.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageCms
from PIL.Image import Transpose

from resshift_cli.errors import UnsupportedImageError, printable
from resshift_cli.imaging import (
    companions,
    metadata,
    metadata_size,
    palette,
    refusals,
    textures,
    tiff_reading,
)
from resshift_cli.imaging.assumed import Assumed
from resshift_cli.imaging.colourspace import profile_of
from resshift_cli.imaging.opening import Opened, check_surfaces, decoding, frame_count
from resshift_cli.imaging.picture import Picture, blank
from resshift_cli.imaging.rows import Stored

_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_MODES = {  # Pillow's mode -> ours; each is 8 bits per channel or less
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "P": "RGB",
    "PA": "RGBA",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "RGBa": "RGBA",
}
_UPRIGHT = {  # EXIF orientation -> what makes the image upright
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def from_pil(image: Image.Image) -> Picture:
    """Take an image over from Pillow; `image` stays as it is.

    An EXIF orientation is applied. Of an animation, the frame that it stands at is taken.

    Raises:
        UnsupportedImageError: its mode has more than 8 bits per channel, or is neither gray,
            RGB nor a palette.
        ImageUnreadableError: its file turns out to be damaged when it is decoded.
    """
    return _decoded(image, "The image").picture()


def decode(file: Opened, *, first_frame: bool, lenient: bool = False) -> Stored:
    """Decode an open file.

    Args:
        file: it.
        first_frame: take the first of several frames or pages.
        lenient: go on where it is damaged.

    Raises:
        As `read.read`.
    """
    if file.is_tiff and refusals.is_named_raw(file.source.path):
        raise refusals.raw(file.name)
    with decoding(lenient=lenient, max_pixels=file.max_pixels):
        page = tiff_reading.for_libvips(file)
        if page is not None:
            return page.decode(first_frame=first_frame, lenient=lenient)
        image = file.image(anew=lenient)
        if lenient and image.format not in refusals.FORGIVING:
            raise refusals.damaged(file.name, ValueError("its format has to be whole"))
        if not first_frame and (frames := frame_count(image, file.name)) > 1:
            raise refusals.several(file.name, f"{frames} frames or pages")
        check_surfaces(file, first_frame=first_frame)
        if image.format == "PNG" and png_depth(file) == 16:
            return _deep_png(file, image, lenient=lenient)
        stored = _decoded(image, file.name, file.file, file.assumed)
    about = stored.about
    carried = (about.exif or b"", about.xmp or b"", *about.text.values())
    if sum(map(len, carried)) > metadata_size.MOST:
        raise refusals.too_much_metadata(file.name)  # of a format that is not taken apart before
    return stored


def png_depth(file: Opened) -> int:
    """Bits per channel of a PNG."""
    return file.start[24]


def about(
    image: Image.Image, name: str, icc: bytes | None, depth: int, file: BinaryIO | None = None
) -> tuple[Picture, int]:
    """Everything but the pixels of what Pillow opened, and its EXIF orientation.

    Text of a PNG may stand behind its pixels, and is there once they have been decoded.

    Args:
        image: as Pillow opened it.
        name: starts warnings.
        icc: profile of the colours.
        depth: bits per channel.
        file: what it was opened from. What only that tells is unknown without it.
    """
    orientation, exif = metadata.exif_of(image)
    dpi = metadata.dpi(image.info.get("dpi"), orientation)
    packet, promised = metadata.xmp(image)
    picture = Picture(
        blank((1, 1, 1)),
        icc or None,
        exif,
        dpi,
        depth=depth,
        xmp=packet,
        iptc=metadata.iptc(image),
        text=metadata.text(image),
        format=image.format or "",
        warnings=companions.warnings(name, promised | companions.of(image, file)),
    )
    return picture, orientation


def _deep_png(file: Opened, image: Image.Image, *, lenient: bool) -> Stored:
    """Read a PNG of 16 bits; `image` is what Pillow makes of it, with everything but the pixels."""
    icc = profile_of(image, file.name, file.file, file.assumed)
    try:
        image.load()  # finds damage, and text behind the pixels
        picture, orientation = about(image, file.name, icc, 16, file.file)
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise refusals.undecoded(file.name, error, "PNG") from error
    samples = tiff_reading.decode_by_libvips(file, image.size, lenient=lenient)
    return Stored.of(tiff_reading.upright(samples, orientation), picture)


def _decoded(
    image: Image.Image,
    name: str,
    file: BinaryIO | None = None,
    assumed: Assumed | None = None,
) -> Stored:
    """Decode what has 8 bits per channel; `name` starts the messages."""
    icc = profile_of(image, name, file, assumed)
    silent = not image.info.get("icc_profile")
    _check_mode(image, icc, name)
    mode = _MODES.get(image.mode, "RGB")
    if image.has_transparency_data:
        mode = "LA" if mode in ("L", "LA") else "RGBA"
    try:
        image.load()
        if image.mode == "CMYK":
            converted, icc = _to_srgb(image, icc, name)
        else:
            converted = image if image.mode == mode else image.convert(mode)
        if file is not None:
            converted = textures.with_true_opacity(converted, image.format, file)
        picture, orientation = about(image, name, icc, 8, file)
        if image.mode == "CMYK" and assumed is not None and silent:
            picture = replace(picture, warnings=picture.warnings + assumed.warning(name))
        picture = replace(picture, palette=palette.of(image))
        if orientation in _UPRIGHT:
            converted = converted.transpose(_UPRIGHT[orientation])
        samples: Any = np.asarray(converted)
    except MemoryError as error:
        raise refusals.no_memory(name) from error
    except UnsupportedImageError:
        raise
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise refusals.undecoded(name, error, image.format) from error
    return Stored.of(samples.reshape(*samples.shape[:2], -1), picture)


def _check_mode(image: Image.Image, icc: bytes | None, name: str) -> None:
    """Refuse what has more than 8 bits, or other colours than gray and RGB."""
    if image.mode in _DEEP_MODES:
        raise refusals.too_deep(name, "16 or 32 bits per channel")
    if image.mode == "CMYK" and not icc:
        raise refusals.cmyk_without_profile(name)
    if image.mode not in _MODES and image.mode != "CMYK":
        what = f"is in {printable(image.mode)} colours, and only gray and RGB are handled"
        raise refusals.other_colours(name, what)


def _to_srgb(image: Image.Image, icc: bytes | None, name: str) -> tuple[Image.Image, bytes]:
    """A CMYK image by its profile in sRGB, and the profile of that."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc or b""))
        converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        what = "is in CMYK, and its colour profile can't be used"
        raise refusals.other_colours(name, what) from error
    assert converted is not None  # it is only where it works in place
    return converted, srgb.tobytes()
