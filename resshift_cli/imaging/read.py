"""File -> image in memory.

Read: PNG, JPEG, WebP, AVIF, BMP, GIF, TIFF, TGA and DDS; HEIC and JPEG XL with the package's
extras.

PNG and TIFF of 16 bits per channel stay so. Floats in a TIFF are taken from 0 to 1, and count as
16 bits; without a profile they are linear light, and become sRGB. AVIF, HEIC and JPEG XL are read
in 8 bits. Other gray and RGB is not converted: what the file says of its colours, `colourspace`
makes a profile of, which is carried along. CMYK becomes sRGB by its profile. `metadata` says what
else is kept; embedded previews and the gain maps of phone photos are not.

Damaged files are refused, unless what there is of them will do: PNG, JPEG, GIF, BMP, TGA and TIFF
can be read as far as that goes.

Large images need not be in memory whole: `load` gives their pixels in bands of rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resshift_cli.errors import ImageUnreadableError
from resshift_cli.imaging import large, rows
from resshift_cli.imaging.assumed import Assumed
from resshift_cli.imaging.decode import decode
from resshift_cli.imaging.opening import MAX_PIXELS, Opened, opened
from resshift_cli.imaging.picture import Picture, Pixels, floats, levels
from resshift_cli.imaging.refusals import DamagedImageError
from resshift_cli.imaging.rows import Stored
from resshift_cli.imaging.sources import Source


def read(
    source: Path | Source,
    *,
    max_pixels: int = MAX_PIXELS,
    first_frame: bool = False,
    allow_truncated: bool = False,
    assumed: Assumed | None = None,
) -> Picture:
    """Read an image, upright.

    Gray and 1 bit become gray; a palette becomes RGB; transparency in any form becomes alpha; CMYK
    becomes RGB by its profile. Of a phone photo that carries a gain map or a preview beside it, the
    photo itself is taken.

    Args:
        source: a file.
        max_pixels: refuse what the header says is larger, before it is decoded.
        first_frame: take the first of several frames or pages.
        allow_truncated: read a damaged file of one of the formats `refusals.FORGIVING` as far as it
            goes; `Picture.damage` then says what was wrong.
        assumed: what the colours are if the file does not say. By default sRGB, and CMYK is
            refused.

    Raises:
        InputMissingError: there is no such file, or it can't be opened.
        UsageError: it is a directory, or not a regular file.
        ImageUnreadableError: it is empty, damaged, too large, or no image, or carries more
            metadata than is sane.
        UnsupportedImageError: it is an image of another format or of a kind of pixels that is not
            handled, needs an extra, or has several frames or pages.
    """
    with opened(source, max_pixels=max_pixels, assumed=assumed) as file:
        return _stored(file, first_frame, allow_truncated).picture()


def read_rgb8(path: Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read the colours of an image as `read` does, in 8 bits; gray is spread, alpha left out.

    Of an animation or of several pages the first is taken.

    Returns:
        uint8 (H, W, 3), upright; the caller's own.

    Raises:
        As `read`.
    """
    with opened(path, max_pixels=max_pixels) as file:
        samples = _stored(file, first_frame=True, allow_truncated=False).samples
    colour = samples[..., : 1 if samples.shape[2] < 3 else 3]
    if colour.dtype != np.uint8:
        colour = levels(floats(colour), 8)
    return np.array(np.broadcast_to(colour, (*colour.shape[:2], 3)))


def load(
    file: Opened, *, first_frame: bool = False, allow_truncated: bool = False
) -> tuple[Picture, Iterable[Pixels]]:
    """Read an image as `read` does, with the pixels in bands; a large one is not held as floats.

    A large PNG, JPEG or TIFF, gray or RGB, upright and whole, is decoded once to know that, and
    stays in its file. Other large images are held as levels.

    Args:
        file: it, open.
        first_frame: as `read`.
        allow_truncated: as `read`.

    Returns:
        The image, whose pixels are `blank` if it is large; and its pixels from the top in bands,
        float32 (n, W, C), which can be gone through again. That raises ImageUnreadableError if they
        are in a file that has been damaged meanwhile.

    Raises:
        As `read`.
    """
    try:
        kept = large.in_file(file)
    except Exception:  # reading all of it says what is wrong, if anything is
        kept = None
    if kept is not None:
        return kept
    stored = _stored(file, first_frame, allow_truncated)
    height, width, _ = stored.samples.shape
    if height * width > rows.LARGE:
        return stored.about, stored
    picture = stored.picture()
    return picture, Stored.of(picture.pixels, picture)  # its result may be large


def _stored(file: Opened, first_frame: bool, allow_truncated: bool) -> Stored:
    try:
        return decode(file, first_frame=first_frame)
    except DamagedImageError as error:
        if not allow_truncated:
            raise
        try:
            stored = decode(file, first_frame=first_frame, lenient=True)
        except ImageUnreadableError:
            raise error from None
        damage = f"{str(error).rstrip('.')}; what there is was read."
        return replace(stored, about=replace(stored.about, damage=damage))
