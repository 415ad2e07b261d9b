"""What a file is, by its first bytes and its header: opened once, and asked as often as need be.

A file is read by its content, whatever its name says.
"""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile, PngImagePlugin, UnidentifiedImageError
from PIL.MpoImagePlugin import MpoImageFile

from resshift_cli.errors import ImageUnreadableError, UnsupportedImageError
from resshift_cli.imaging import jxl, metadata, metadata_size, refusals, textures, tiff
from resshift_cli.imaging.assumed import Assumed
from resshift_cli.imaging.formats import load_extra, missing_extra
from resshift_cli.imaging.sources import Source

# What Pillow logs would else be printed by the logging of Python's last resort.
logging.getLogger("PIL").addHandler(logging.NullHandler())

MAX_PIXELS = 100_000_000
"""Largest input by default; sixteen times as many pixels are 5 GB of 8-bit levels."""

_HEAD = 32  # bytes that tell what a file is

# First bytes of what is read: (offset, bytes, name that Pillow gives it).
_SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (8, b"WEBP", "WEBP"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"GIF8", "GIF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (0, b"DDS ", "DDS"),
)
_MARKED = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "GIF", "DDS")
_READABLE = (*_MARKED, "TGA")

# First bytes of what an extra reads: (offset, bytes, name that its plugin gives it, the extra).
_EXTRAS = (
    (4, b"ftyphei", "HEIF", "heic"),
    (4, b"ftyphev", "HEIF", "heic"),
    (4, b"ftypmif1", "HEIF", "heic"),
    (4, b"ftypmsf1", "HEIF", "heic"),
    (0, b"\0\0\0\x0cJXL ", "JXL", "jxl"),
    (0, b"\xff\x0a", "JXL", "jxl"),
)

# First bytes of what people may try, and what it is called.
_OTHERS = (
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (0, b"8BPS", "a Photoshop"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "a PostScript"),
    (0, b"<svg", "an SVG"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR"),
    (0, b"#?RADIANCE", "a Radiance HDR"),
    (0, b"P5\n", "a PGM"),
    (0, b"P6\n", "a PPM"),
    (0, b"\0\0\1\0", "an ICO"),
)

# What the decoders of these formats take into memory whole, whatever of it is the image.
_READ_WHOLE = ("WEBP", "AVIF", "HEIF", "JXL")
_MOST_BYTES = 1 << 30

_decoder = threading.RLock()


@contextmanager
def decoding(*, lenient: bool = False, max_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Have Pillow for oneself: how it decodes is set for the whole process.

    Its warnings (large image, odd EXIF) are kept off the screen: `refusals` says what matters.

    Args:
        lenient: whether it is to go on where a file is cut short or damaged.
        max_pixels: images of so many are not to be too large for it.
    """
    with _decoder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        before = ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK
        limit = Image.MAX_IMAGE_PIXELS  # it refuses twice as many
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient
        PngImagePlugin.MAX_TEXT_CHUNK = metadata_size.MOST
        Image.MAX_IMAGE_PIXELS = None if limit is None else max(limit, max_pixels)
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK = before
            Image.MAX_IMAGE_PIXELS = limit


@dataclass(slots=True)
class Opened:
    """A file that is open.

    Attributes:
        source: it.
        file: opened by the system; where it stands is changed by whoever reads.
        start: its first bytes.
        max_pixels: more are refused.
        assumed: what its colours are if it does not say; None: inks are refused.
    """

    source: Source
    file: BinaryIO
    start: bytes
    max_pixels: int
    assumed: Assumed | None = None
    _image: Image.Image | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        """For messages."""
        return self.source.name

    @property
    def is_tiff(self) -> bool:
        """By its first bytes."""
        return self.start.startswith(tiff.SIGNATURES)

    @property
    def is_dds(self) -> bool:
        """Likewise."""
        return self.start.startswith(b"DDS ")

    def image(self, *, anew: bool = False) -> Image.Image:
        """What Pillow makes of the header; to be asked for, and decoded, within `decoding`.

        It is the same image every time: what was decoded, or gone through, stays so.

        Args:
            anew: read the header again.

        Raises:
            As `read.read`, but for what only decoding shows.
        """
        if self._image is None or anew:
            self._image = _identified(self)
        return self._image


@contextmanager
def opened(
    source: Path | Source, *, max_pixels: int = MAX_PIXELS, assumed: Assumed | None = None
) -> Iterator[Opened]:
    """Open a file, which has to have some bytes, and to carry no more metadata than is sane.

    Raises:
        InputMissingError: there is no such file, or it can't be opened.
        UsageError: it is a directory, or not a regular file.
        ImageUnreadableError: it is empty, or carries too much.
    """
    source = source if isinstance(source, Source) else Source(source)
    with source.open() as file:
        start = file.read(_HEAD)
        if not start:
            raise refusals.empty(source.name)
        if metadata_size.exceeds_limit(file):
            raise refusals.too_much_metadata(source.name)
        yield Opened(source, file, start, max_pixels, assumed)


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of its image before it is decoded.

    Attributes:
        height: in pixels, of the image upright.
        width: likewise.
        alpha: whether it may have transparency.
        frames: how many frames an animation has; 1 of anything else.
    """

    height: int
    width: int
    alpha: bool
    frames: int = 1


def read_header(
    source: Path | Source,
    *,
    max_pixels: int = MAX_PIXELS,
    first_frame: bool = False,
    assumed: Assumed | None = None,
) -> Header:
    """What a file's header says; the pixels are not decoded.

    Args:
        source: the file.
        max_pixels: refuse what is larger.
        first_frame: whether only the first frame of an animation is of interest.
        assumed: what colours are that the file says nothing of, as `read.read`.

    Raises:
        As `read.read`, but for what only decoding shows.
    """
    with opened(source, max_pixels=max_pixels) as file, decoding(max_pixels=max_pixels):
        image = file.image()
        width, height = image.size
        if image.mode == "CMYK" and assumed is None and not image.info.get("icc_profile"):
            raise refusals.cmyk_without_profile(file.name)
        check_surfaces(file, first_frame=first_frame)
        # Pillow would decode a PNG to find EXIF behind its pixels.
        at_hand = image.format != "PNG" or "exif" in image.info
        orientation, _ = metadata.exif_of(image) if at_hand else (1, None)
        if orientation in metadata.LYING:
            width, height = height, width
        moving = image.format in ANIMATED and not first_frame
        frames = frame_count(image, file.name) if moving else 1
        return Header(height, width, image.has_transparency_data, frames)


ANIMATED = ("GIF", "WEBP", "PNG")
"""What may be an animation, as Pillow calls it."""


def frame_count(image: Image.Image, name: str) -> int:
    """Frames or pages of an open file; one for a photo with a gain map or a preview beside it.

    Raises:
        ImageUnreadableError: the file is damaged; `name` starts the message.
    """
    try:
        return 1 if _is_photo_with_extras(image) else int(getattr(image, "n_frames", 1))
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise refusals.undecoded(name, error, image.format) from error


def check_surfaces(file: Opened, *, first_frame: bool) -> None:
    """Refuse a DDS of several images, such as a cube's faces, unless the first will do.

    Raises:
        UnsupportedImageError: it is one.
    """
    count = textures.surfaces(textures.dds_head(file.file)) if file.is_dds else 1
    if count > 1 and not first_frame:
        raise refusals.several(file.name, f"{count} surfaces, such as a cube's faces")


def check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    """Refuse an image of more pixels than are allowed.

    Raises:
        ImageUnreadableError: it has more; `name` starts the message.
    """
    if width * height > max_pixels:
        claim = f"{width}x{height} pixels, of at most {max_pixels / 1e6:g} million"
        raise refusals.too_large(name, claim)


def _is_photo_with_extras(image: Image.Image) -> bool:
    """Whether a JPEG's further images only serve the first: gain map, preview, depth."""
    if not isinstance(image, MpoImageFile) or image.mpinfo is None:
        return False
    kind = image.mpinfo[0xB002][0]["Attribute"]["MPType"]
    return bool(kind == "Baseline MP Primary Image")


def _identified(opened: Opened) -> Image.Image:
    """Read the header; the pixels come later."""
    file, start, name = opened.file, opened.start, opened.name
    formats = _formats(opened)
    try:
        _check_bytes(opened)
        if formats == ("JXL",):
            check_size(*jxl.size(file), name, opened.max_pixels)
        image = Image.open(_for_pillow(opened), formats=formats)
        if image.format == "PNG" and start[12:16] != b"IHDR":
            raise ValueError("its first chunk is not IHDR")
        if image.format == "TGA" and not getattr(image, "tile", ()):
            raise refusals.rare(name, f"a TGA of type {start[2]} with {start[16]} bits per pixel")
        check_size(*image.size, name, opened.max_pixels)
        return image
    except (ImageUnreadableError, UnsupportedImageError):
        raise
    except Image.DecompressionBombError as error:
        claim = f"it claims more than {opened.max_pixels / 1e6:g} million pixels"
        raise refusals.too_large(name, claim) from error
    except UnidentifiedImageError as error:
        raise _unidentified(opened) from error
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise refusals.undecoded(name, error) from error


def _formats(opened: Opened) -> tuple[str, ...]:
    """What Pillow is asked to take a file for."""
    for offset, signature, kind, extra in _EXTRAS:
        if opened.start.startswith(signature, offset):
            if not load_extra(extra):
                raise missing_extra(opened.name, extra)
            return (kind,)
    marks = (*_SIGNATURES, *_OTHERS)
    if any(opened.start.startswith(mark, offset) for offset, mark, _ in marks):
        return _MARKED
    named = opened.source.path
    return ("TGA",) if textures.is_tga(opened.file, opened.start, named) else _MARKED


def _for_pillow(opened: Opened) -> BinaryIO:
    """A file from its start, where it is a DDS checked for what Pillow would take otherwise."""
    if not opened.is_dds:
        opened.file.seek(0)
        return opened.file
    head = textures.dds_head(opened.file)
    check_size(*textures.dds_size(head), opened.name, opened.max_pixels)
    if textures.is_hdr(head):
        raise refusals.hdr(opened.name, "half floats")
    return textures.for_pillow(opened.file, head)


def _check_bytes(opened: Opened) -> None:
    """Refuse a file with far more bytes than its format needs for an image."""
    signatures = (*_SIGNATURES, *(known[:3] for known in _EXTRAS))
    kinds = [kind for at, first, kind in signatures if opened.start.startswith(first, at)]
    size = opened.file.seek(0, io.SEEK_END)
    if size > _MOST_BYTES and kinds and kinds[0] in _READ_WHOLE:
        claim = f"{size >> 20} MB, of at most {_MOST_BYTES >> 20} in its format"
        raise refusals.too_large(opened.name, claim)


def _unidentified(opened: Opened) -> ImageUnreadableError | UnsupportedImageError:
    """Why Pillow takes a file for none of the formats that are read."""
    name = opened.name
    for offset, signature, kind in _OTHERS:
        if opened.start.startswith(signature, offset):
            return UnsupportedImageError(
                f"{name} is {kind} file, which is not handled yet.",
                hint="Save it as PNG first, for example with an image editor.",
            )
    if refusals.is_named_raw(opened.source.path):
        return refusals.raw(name)
    begun = [kind for offset, mark, kind in _SIGNATURES if opened.start.startswith(mark, offset)]
    if not begun and textures.is_tga(opened.file, opened.start, opened.source.path):
        begun = ["TGA"]
    if begun:
        return ImageUnreadableError(
            f"{name} starts like a {begun[0]} file, but is cut short, damaged or of a rare kind.",
            hint="Copy or download it again, or save it as PNG with an image editor.",
        )
    return ImageUnreadableError(
        f"{name} is not an image, whatever its name says.",
        hint=f"Images of these kinds are read: {', '.join(_READABLE)}.",
    )
