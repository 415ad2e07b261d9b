"""File <-> image in memory: what can be read, and how results are encoded.

Read: PNG, JPEG, WebP, AVIF, BMP, GIF and TIFF; HEIC and JPEG XL with the package's extras. A file
is read by its content, whatever its name says, and written by the extension of its name; `formats`
lists what each format can hold.

PNG and TIFF of 16 bits per channel stay so. Floats in a TIFF are taken from 0 to 1, and count as
16 bits. AVIF, HEIC and JPEG XL are read in 8 bits. Gray and RGB are not converted, their colour
profile is carried along; CMYK becomes sRGB by its profile. `metadata` says what else is kept;
embedded previews and the gain maps of phone photos are not.

Damaged files are refused, unless what there is of them will do: PNG, JPEG, GIF, BMP and TIFF can be
read as far as that goes.

Large images need not be in memory whole: `load` gives their pixels in bands of rows, and
`write_rows` takes them so.
"""

from __future__ import annotations

import io
import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, PngImagePlugin, UnidentifiedImageError
from PIL.Image import Transpose
from PIL.MpoImagePlugin import MpoImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from resshift_cli.errors import (
    ImageUnreadableError,
    OutputError,
    UnsupportedImageError,
    UsageError,
    printable,
)
from resshift_cli.imaging import bulk, jxl, metadata, streaming, targets, tiff
from resshift_cli.imaging.formats import (
    AS_IT_IS,
    GIF,
    JPEG,
    PNG,
    TIFF,
    Format,
    SaveOptions,
    load_extra,
    missing_extra,
)
from resshift_cli.imaging.sources import Source

Pixels = NDArray[np.float32]

# What Pillow logs would else be printed by the logging of Python's last resort.
logging.getLogger("PIL").addHandler(logging.NullHandler())

MAX_PIXELS = 100_000_000
"""Largest input of `read`, by default; sixteen times as many pixels are 5 GB of 8-bit levels."""

LARGE = 25_000_000
"""Images of more pixels are not held as floats by `load`."""

_BAND = 1 << 18  # pixels that become floats at a time


# First bytes of what `read` takes: (offset, bytes, name that Pillow gives it).
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
)
_READABLE = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "GIF")

STREAMED = (PNG, TIFF, JPEG)
"""What can be written as its rows come."""

FORGIVING = ("PNG", "JPEG", "MPO", "GIF", "BMP", "TIFF")
"""What can be read as far as it goes, by the names that Pillow gives it."""

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
# fmt: off
_RAW_EXTENSIONS = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw",
    ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
})
# fmt: on

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

# Bits and kind (1 for integers from 0, 3 for floats) of a TIFF's samples.
_TIFF_SAMPLES = {(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (16, 3), (32, 3)}

_UPRIGHT = {  # EXIF orientation -> what makes the image upright
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image in memory, upright.

    Attributes:
        pixels: float32 (H, W, C) in [0, 1]; C is 1 for gray, 2 for gray and alpha, 3 for RGB, 4
            for RGB and alpha. Colours are not multiplied by alpha. They are `blank` where the image
            is handled in bands, and only their shape counts.
        icc: ICC profile that the colours are to be read in.
        exif: EXIF block without orientation and preview.
        dpi: dots per inch, across and down.
        note: how the image was made, to go into EXIF as ProcessingSoftware; ASCII.
        depth: bits per channel of the file it came from, 8 or 16; it is written so where it can be.
        xmp: XMP packet.
        iptc: IPTC records.
        text: by keyword, as in a PNG; "Comment" is a JPEG's or GIF's comment.
        damage: what was wrong with the file, if it was read nonetheless.
        format: of the file, as Pillow calls it.
    """

    pixels: NDArray[np.float32]
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    note: str = ""
    depth: int = 8
    xmp: bytes | None = None
    iptc: bytes | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    damage: str = ""
    format: str = ""

    def __post_init__(self) -> None:
        """Refuse pixels of another shape or type with a ValueError."""
        shape = self.pixels.shape
        if len(shape) != 3 or shape[2] not in (1, 2, 3, 4) or 0 in shape:
            raise ValueError(f"expected pixels of (H, W, 1 to 4), got {shape}")
        if self.pixels.dtype != np.float32:
            raise ValueError(f"expected float32 pixels, got {self.pixels.dtype}")

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is opacity."""
        return self.pixels.shape[2] in (2, 4)

    def with_pixels(self, pixels: NDArray[np.float32]) -> Picture:
        """Other pixels with everything else the same."""
        return replace(self, pixels=pixels)

    @classmethod
    def from_pil(cls, image: Image.Image) -> Picture:
        """Take an image over from Pillow; `image` stays as it is.

        An EXIF orientation is applied. Of an animation, the frame that it stands at is taken.

        Raises:
            UnsupportedImageError: its mode has more than 8 bits per channel, or is neither gray,
                RGB nor a palette.
            ImageUnreadableError: its file turns out to be damaged when it is decoded.
        """
        return _decoded(image, "The image").picture()

    def to_pil(self) -> Image.Image:
        """Round to 8 bits: mode L, LA, RGB or RGBA.

        Profile, EXIF, XMP and resolution are in the image's `info`.
        """
        pixels = levels(self.pixels, 8)
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        size = self.pixels.shape[0], self.pixels.shape[1]
        for name, value in (
            ("icc_profile", self.icc),
            ("dpi", self.dpi),
            ("exif", metadata.exif_for(self.exif, self.note, size, 2**31 - 1)),
            ("xmp", metadata.xmp_for(self.xmp, size)),
        ):
            if value:
                image.info[name] = value
        return image


def blank(shape: tuple[int, ...]) -> Pixels:
    """Zeros that take no memory, in place of pixels that are elsewhere."""
    return np.broadcast_to(np.float32(0), shape)


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """An image in memory as its file stores it, which takes less than floats; upright.

    Going through it gives bands of pixels, float32 (n, W, C).

    Attributes:
        samples: (H, W, C), levels of uint8 or uint16, or float32 in [0, 1].
        beside: everything but the pixels, which are blank.
    """

    samples: NDArray[Any]
    beside: Picture

    @classmethod
    def of(cls, samples: NDArray[Any], about: Picture) -> Stored:
        """With whatever pixels `about` has made blank ones."""
        return cls(samples, about.with_pixels(blank(samples.shape)))

    def picture(self) -> Picture:
        """All of it as floats."""
        return self.beside.with_pixels(_floats(self.samples))

    def __iter__(self) -> Iterator[Pixels]:
        """The pixels from the top."""
        height = max(1, _BAND // self.samples.shape[1])
        for top in range(0, len(self.samples), height):
            yield _floats(self.samples[top : top + height])


@dataclass(frozen=True, slots=True)
class InFile:
    """The pixels of a PNG, JPEG or TIFF that stay in the file; libvips decodes them from the top.

    Going through it gives bands of pixels, float32 (n, W, C), and raises ImageUnreadableError where
    the file is damaged. An interlaced PNG is held as levels meanwhile, and a progressive JPEG as
    coefficients: there is no other way to decode them.

    Attributes:
        source: the file.
        shape: (H, W, C).
        kind: its format, as Pillow calls it.
    """

    source: Source
    shape: tuple[int, int, int]
    kind: str

    def levels(self) -> Iterator[NDArray[Any]]:
        """The same as uint8 or uint16, as they are in the file."""
        from resshift_cli.imaging import vips

        # What the decoder of JPEG only warns of, another one might make other pixels of.
        strict = self.kind in ("JPEG", "MPO")
        height = max(1, _BAND // self.shape[1])
        with self.source.open() as file:
            try:
                yield from vips.bands(file, self.shape, height, strict=strict)
            except MemoryError as error:
                raise _no_room(self.source.name) from error
            except Exception as error:  # decoders raise nearly anything on a damaged file
                raise _damaged(self.source.name, error, self.kind) from error

    def __iter__(self) -> Iterator[Pixels]:
        """The pixels from the top."""
        return map(_floats, self.levels())


def _floats(samples: NDArray[Any]) -> Pixels:
    """Levels, or what are floats already, as floats in [0, 1]."""
    if samples.dtype == np.float32:
        return samples
    pixels = np.asarray(samples, np.float32)
    pixels /= np.iinfo(samples.dtype).max
    return pixels


class DamagedImageError(ImageUnreadableError):
    """A file that is cut short, or has wrong bytes in it."""


_decoder = threading.RLock()


@contextmanager
def decoding(*, lenient: bool = False, max_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Have Pillow for oneself: how it decodes is set for the whole process.

    Its warnings (large image, odd EXIF) are kept off the screen: `read` says what matters.

    Args:
        lenient: whether it is to go on where a file is cut short or damaged.
        max_pixels: images of so many are not to be too large for it.
    """
    with _decoder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        before = ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK
        limit = Image.MAX_IMAGE_PIXELS  # it refuses twice as many
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient
        PngImagePlugin.MAX_TEXT_CHUNK = bulk.MOST
        Image.MAX_IMAGE_PIXELS = None if limit is None else max(limit, max_pixels)
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK = before
            Image.MAX_IMAGE_PIXELS = limit


def read(
    source: Path | Source,
    *,
    max_pixels: int = MAX_PIXELS,
    first_frame: bool = False,
    allow_truncated: bool = False,
) -> Picture:
    """Read an image, upright.

    Gray and 1 bit become gray; a palette becomes RGB; transparency in any form becomes alpha; CMYK
    becomes RGB by its profile. Of a phone photo that carries a gain map or a preview beside it, the
    photo itself is taken.

    Args:
        source: a file.
        max_pixels: refuse what the header says is larger, before it is decoded.
        first_frame: take the first of several frames or pages.
        allow_truncated: read a damaged file of one of the formats `FORGIVING` as far as it goes;
            `Picture.damage` then says what was wrong.

    Raises:
        InputMissingError: there is no such file, or it can't be opened.
        UsageError: it is a directory, or not a regular file.
        ImageUnreadableError: it is empty, damaged, too large, or no image, or carries more
            metadata than is sane.
        UnsupportedImageError: it is an image of another format or of a kind of pixels that is not
            handled, needs an extra, or has several frames or pages.
    """
    source = source if isinstance(source, Source) else Source(source)
    return _stored(source, max_pixels, first_frame, allow_truncated).picture()


def load(
    source: Source,
    *,
    max_pixels: int = MAX_PIXELS,
    first_frame: bool = False,
    allow_truncated: bool = False,
) -> tuple[Picture, Iterable[Pixels]]:
    """Read an image as `read` does, with the pixels in bands; a large one is not held as floats.

    A large PNG, JPEG or TIFF, gray or RGB, upright and whole, is decoded once to know that, and
    stays in its file. Other large images are held as levels.

    Args:
        source: the file.
        max_pixels: as `read`.
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
        kept = _in_file(source, max_pixels)
    except Exception:  # reading all of it says what is wrong, if anything is
        kept = None
    if kept is not None:
        return kept
    stored = _stored(source, max_pixels, first_frame, allow_truncated)
    height, width, _ = stored.samples.shape
    if height * width > LARGE:
        return stored.beside, stored
    picture = stored.picture()
    return picture, Stored.of(picture.pixels, picture)  # its result may be large


def _stored(source: Source, max_pixels: int, first_frame: bool, allow_truncated: bool) -> Stored:
    with source.open() as file:
        try:
            return _read(file, source.path, max_pixels, first_frame=first_frame)
        except DamagedImageError as error:
            if not allow_truncated:
                raise
            try:
                stored = _read(file, source.path, max_pixels, first_frame=first_frame, lenient=True)
            except ImageUnreadableError:
                raise error from None
            damage = f"{str(error).rstrip('.')}; what there is was read."
            return replace(stored, beside=replace(stored.beside, damage=damage))


@contextmanager
def opened(source: Path | Source, *, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """A file's header, as Pillow reads it; its frames can be gone through while it is open.

    What decodes them has to be done within `decoding`.

    Raises:
        As `read`, but for what only decoding shows.
    """
    source = source if isinstance(source, Source) else Source(source)
    with source.open() as file:
        with decoding(max_pixels=max_pixels):
            image = _identify(file, _start(file, source.path), source.path, max_pixels)
        yield image


def _read(
    file: BinaryIO, path: Path, max_pixels: int, *, first_frame: bool, lenient: bool = False
) -> Stored:
    """Read what lies in a file that the system opened; `path` is for messages."""
    name = printable(path)
    start = _start(file, path)
    if start.startswith(tiff.SIGNATURES) and path.suffix.lower() in _RAW_EXTENSIONS:
        raise _raw(name)
    with decoding(lenient=lenient, max_pixels=max_pixels):
        tags = _tags_for_libvips(file, start)
        if tags is not None:
            return _tiff(file, *tags, name, max_pixels, first_frame=first_frame, lenient=lenient)
        image = _identify(file, start, path, max_pixels)
        if lenient and image.format not in FORGIVING:
            raise _damaged(name, ValueError("its format has to be whole"))
        if not first_frame and (frames := frame_count(image, name)) > 1:
            raise _several(name, f"{frames} frames or pages")
        if image.format == "PNG" and start[24] == 16:
            return _deep_png(file, image, name, lenient=lenient)
        stored = _decoded(image, name)
    about = stored.beside
    if sum(map(len, (about.exif or b"", about.xmp or b"", *about.text.values()))) > bulk.MOST:
        raise _too_much(name)  # of a format that `bulk` does not take apart
    return stored


def _in_file(source: Source, max_pixels: int) -> tuple[Picture, InFile] | None:
    """A large image whose pixels can stay in its file; None of others.

    Raises:
        Exception: nearly any, if the file is damaged, or `read` has something against it.
    """
    path, name = source.path, source.name
    with source.open() as file, decoding(max_pixels=max_pixels):
        start = _start(file, path)
        tags = _tags_for_libvips(file, start)
        if start.startswith(tiff.SIGNATURES) and not _is_plain_tiff(file, path):
            return None
        if tags is not None:
            (width, height), channels = _tiff_size(tags[0]), int(tags[0].get(tiff.SAMPLES, 1))
            about, orientation = _about_tiff(*tags)
        else:
            image = _identify(file, start, path, max_pixels)
            if image.format not in ("PNG", "JPEG", "MPO", "TIFF") or frame_count(image, name) > 1:
                return None
            width, height = image.size
            depth = start[24] if image.format == "PNG" else 8
            if width * height > LARGE and image.format == "PNG":
                image = _one_pixel_of(file)
            if image.mode not in ("L", "RGB", "I;16") or image.has_transparency_data or depth < 8:
                return None
            channels = 3 if image.mode == "RGB" else 1
            about, orientation = _about(image, _profile(image), depth)
    if not LARGE < width * height <= max_pixels or orientation != 1:
        return None
    rows = InFile(source, (height, width, channels), about.format)
    for _ in rows.levels():  # finds damage
        pass
    return about.with_pixels(blank(rows.shape)), rows


def _is_plain_tiff(file: BinaryIO, path: Path) -> bool:
    """Whether it is a single image of 8 or 16 bits, gray or RGB, without alpha."""
    if path.suffix.lower() in _RAW_EXTENSIONS:
        return False
    tags, _ = tiff.first_tags(file)
    integers = {(8, 1), (16, 1)}
    return (
        (tiff.bits(tags), tags.get(tiff.SAMPLE_FORMAT, (1,))[0]) in integers
        and tags.get(tiff.PHOTOMETRIC) != 3
        and tags.get(tiff.SAMPLES, 1) in (1, 3)
        and tiff.is_gray_or_rgb(tags)
        and not tags.next
    )


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


def _start(file: BinaryIO, path: Path) -> bytes:
    """The first bytes of a file, which has to have some, and to carry no more than is sane."""
    name = printable(path)
    file.seek(0)
    start = file.read(32)
    if not start:
        raise ImageUnreadableError(f"{name} is empty (0 bytes).", hint="Copy or download it again.")
    if bulk.is_too_much(file):
        raise _too_much(name)
    return start


def check_encodable(
    picture: Picture,
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    options: SaveOptions = AS_IT_IS,
) -> None:
    """Find out before the work whether the format of `path` can hold a result.

    Args:
        picture: its channels, profile and metadata count, and its size unless `size` is given.
        path: only its extension counts.
        size: (height, width) of the result, in pixels.
        options: how it will be written.

    Raises:
        UsageError: the extension is none that results are written with, or the options ask for
            what the format can't do.
        OutputError: the format has no alpha or no colour profile and the picture does, or it
            can't hold so many pixels or so much metadata, or its extra is not installed.
    """
    kind = options.format_of(path)
    if options.lossless and not (kind.exact or kind.lossless):
        raise UsageError(
            f"{printable(path)}: {kind.name} is not written without loss.",
            hint="Leave out --lossless, or choose --format png, tiff, webp or jxl.",
        )
    if options.depth == 16 and not kind.deep:
        raise UsageError(
            f"{printable(path)}: {kind.name} is written in 8 bits per channel.",
            hint="Leave out --depth, or choose --format png or tiff.",
        )
    if options.strip_metadata:
        picture = _stripped(picture)
    height, width = size or picture.pixels.shape[:2]
    samples = height * width * picture.pixels.shape[2]
    profile_is_gray = picture.icc is not None and picture.icc[16:20] == b"GRAY"
    problem = None
    if picture.has_alpha and not kind.alpha:
        problem = f"{kind.name} has no transparency, and the image does"
    elif picture.icc is not None and not kind.profile:
        problem = f"{kind.name} can't hold the image's colour profile"
    elif profile_is_gray and not kind.gray:
        problem = f"{kind.name} has no gray, which the image's colour profile is for"
    elif max(height, width) > kind.max_side:
        problem = f"{kind.name} ends at {kind.max_side} pixels a side, and {width}x{height} are due"
    elif samples * options.depth_of(kind, picture.depth) // 8 > kind.max_bytes:
        problem = f"{kind.name} ends at 4 GB, and {width}x{height} pixels are more"
    for what, block, head in (
        ("EXIF", picture.exif, 0),
        ("XMP", picture.xmp, 40),
        ("IPTC", picture.iptc, 40),
        ("comment", picture.text.get(metadata.COMMENT, "").encode(), 2),
    ):
        if problem is None and len(block or b"") + head > kind.max_exif:
            problem = f"{kind.name} can't hold the image's {len(block or b'')} bytes of {what}"
    if problem is not None:
        raise OutputError(
            f"{printable(path)} can't be written: {problem}.",
            hint="Choose --format png."
            if options.format
            else f"Choose PNG: -o {printable(path.with_suffix('.png'))}",
        )


def write(
    picture: Picture, path: Path, *, overwrite: bool, options: SaveOptions = AS_IT_IS
) -> None:
    """Save in the format that the options or else the extension names, as `targets.save` does.

    Raises:
        UsageError: as `encode`.
        OutputError: as `encode` and `targets.save`.
    """
    targets.check_replaceable(path, overwrite=overwrite)
    targets.save(encode(picture, path, options=options), path, overwrite=overwrite)


def _matches(start: bytes, offset: int, signature: bytes) -> bool:
    return start[offset : offset + len(signature)] == signature


def _identify(file: BinaryIO, start: bytes, path: Path, max_pixels: int) -> Image.Image:
    """Read the header; the pixels come later."""
    name = printable(path)
    formats: tuple[str, ...] = _READABLE
    for offset, signature, kind, extra in _EXTRAS:
        if _matches(start, offset, signature):
            if not load_extra(extra):
                raise missing_extra(name, extra)
            formats = (kind,)
    file.seek(0)
    try:
        if formats == ("JXL",):
            _check_size(*jxl.size(file), name, max_pixels)
            file.seek(0)
        image = Image.open(file, formats=formats)
        if image.format == "PNG" and start[12:16] != b"IHDR":
            raise ValueError("its first chunk is not IHDR")
        _check_size(*image.size, name, max_pixels)
        return image
    except ImageUnreadableError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageUnreadableError(
            f"{name} is too large: it claims more than {max_pixels / 1e6:g} million pixels.",
            hint="Cut it into parts, or reduce it first.",
        ) from error
    except UnidentifiedImageError as error:
        raise _unidentified(start, path) from error
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise _damaged(name, error) from error


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageUnreadableError(
            f"{name} is too large: {width}x{height} pixels, of at most {max_pixels / 1e6:g}"
            " million.",
            hint="Cut it into parts, or reduce it first.",
        )


def _unidentified(start: bytes, path: Path) -> ImageUnreadableError | UnsupportedImageError:
    """Why Pillow takes a file for none of the formats that are read."""
    name = printable(path)
    for offset, signature, kind in _OTHERS:
        if _matches(start, offset, signature):
            return UnsupportedImageError(
                f"{name} is {kind} file, which is not handled yet.",
                hint="Save it as PNG first, for example with an image editor.",
            )
    if path.suffix.lower() in _RAW_EXTENSIONS:
        return _raw(name)
    for offset, signature, kind in _SIGNATURES:
        if _matches(start, offset, signature):
            return ImageUnreadableError(
                f"{name} starts like a {kind} file, but is cut short, damaged or of a rare kind.",
                hint="Copy or download it again, or save it as PNG with an image editor.",
            )
    return ImageUnreadableError(
        f"{name} is not an image, whatever its name says.",
        hint=f"Images of these kinds are read: {', '.join(_READABLE)}.",
    )


def _raw(name: str) -> UnsupportedImageError:
    return UnsupportedImageError(
        f"{name} is a camera's raw file, which is not handled.",
        hint="Develop it to an 8-bit TIFF or PNG first, for example with darktable or RawTherapee.",
    )


def _damaged(name: str, error: BaseException, kind: str | None = None) -> ImageUnreadableError:
    """What to raise for an error of the decoder of the format `kind`."""
    if "MAX_TEXT_" in str(error):  # the limits of Pillow for text of PNG
        return _too_much(name)
    detail = printable(error).rstrip(".") or type(error).__name__
    instead = ", or take what there is of it with --allow-truncated" if kind in FORGIVING else ""
    return DamagedImageError(
        f"{name} is cut short or damaged ({detail}).", hint=f"Copy or download it again{instead}."
    )


def _too_much(name: str) -> ImageUnreadableError:
    return ImageUnreadableError(
        f"{name} carries more than {bulk.MOST >> 20} MB of metadata, which is not taken in.",
        hint="Remove it first, for example with `exiftool -all=`.",
    )


def frame_count(image: Image.Image, name: str) -> int:
    """Frames or pages of an open file; one for a photo with a gain map or a preview beside it.

    Raises:
        ImageUnreadableError: the file is damaged; `name` starts the message.
    """
    try:
        return 1 if _is_photo_with_extras(image) else int(getattr(image, "n_frames", 1))
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise _damaged(name, error, image.format) from error


def _several(name: str, what: str) -> UnsupportedImageError:
    return UnsupportedImageError(
        f"{name} has {what}, and only single images are handled yet.",
        hint="Take the first with --first-frame, or save the one you want as PNG first.",
    )


def _is_photo_with_extras(image: Image.Image) -> bool:
    """Whether a JPEG's further images only serve the first: gain map, preview, depth."""
    if not isinstance(image, MpoImageFile) or image.mpinfo is None:
        return False
    kind = image.mpinfo[0xB002][0]["Attribute"]["MPType"]
    return bool(kind == "Baseline MP Primary Image")


def _tags_for_libvips(
    file: BinaryIO, start: bytes
) -> tuple[ImageFileDirectory_v2, Image.Exif] | None:
    """Tags and EXIF of a TIFF that Pillow can't read rightly, or not silently; else None.

    Files too damaged for that are left to Pillow to refuse.
    """
    if not start.startswith(tiff.SIGNATURES):
        return None
    try:
        tags, exif = tiff.first_tags(file)
        bits, packed = tiff.bits(tags), tags.get(tiff.COMPRESSION, 1) != 1
        suited = bits > 8 or (packed and tiff.is_gray_or_rgb(tags))
        return (tags, exif) if suited else None
    except Exception:  # Pillow raises nearly anything on damaged tags
        return None


def _tiff(
    file: BinaryIO,
    tags: ImageFileDirectory_v2,
    exif: Image.Exif,
    name: str,
    max_pixels: int,
    *,
    first_frame: bool,
    lenient: bool,
) -> Stored:
    """Read a TIFF of integers of up to 16 bits, or of floats from 0 to 1."""
    try:
        bits, sample_format = tiff.bits(tags), tags.get(tiff.SAMPLE_FORMAT, (1,))[0]
        width, height = _tiff_size(tags)
    except Exception as error:  # damaged tags may be anything
        raise _damaged(name, error) from error
    _check_size(width, height, name, max_pixels)
    if (bits, sample_format) not in _TIFF_SAMPLES:
        raise _too_deep(name, f"{bits} bits per channel{' of a rare kind' * (bits < 32)}")
    if not tiff.is_gray_or_rgb(tags):
        raise UnsupportedImageError(
            f"{name} has {bits} bits per channel in other colours than gray and RGB.",
            hint="Convert it to RGB (sRGB) first.",
        )
    if tags.next and not first_frame:
        raise _several(name, "several pages")
    missing = _missing(file, tags) if lenient else 0
    samples = _decode_by_libvips(file, (width, height), name, lenient=lenient, missing=missing)
    about, orientation = _about_tiff(tags, exif)
    return Stored.of(_upright(samples, orientation), about)


def _tiff_size(tags: ImageFileDirectory_v2) -> tuple[int, int]:
    """Width and height."""
    return int(tags[tiff.WIDTH]), int(tags[tiff.HEIGHT])


def _about_tiff(tags: ImageFileDirectory_v2, exif: Image.Exif) -> tuple[Picture, int]:
    """Everything but the pixels of what `_tags_for_libvips` is for, and the orientation."""
    dpi = icc = xmp = iptc = None
    with suppress(Exception):  # Pillow raises nearly anything on damaged tags
        dpi = _dpi(tiff.dpi(tags))
        icc = metadata.tiff_block(tags, tiff.ICC)
        xmp = metadata.tiff_block(tags, tiff.XMP)
        iptc = metadata.tiff_block(tags, tiff.IPTC)
    orientation, kept = metadata.exif(exif)
    picture = Picture(
        blank((1, 1, 1)),
        icc,
        kept,
        _turned(dpi, orientation),
        depth=8 if tiff.bits(tags) <= 8 else 16,
        xmp=xmp,
        iptc=iptc,
        format="TIFF",
    )
    return picture, orientation


def _missing(file: BinaryIO, tags: ImageFileDirectory_v2) -> int:
    """Bytes of pixels that a TIFF without compression speaks of beyond its end."""
    if tags.get(tiff.COMPRESSION, 1) != 1:
        return 0
    try:
        ends = map(sum, zip(tags[tiff.STRIP_OFFSETS], tags[tiff.STRIP_BYTES], strict=True))
        beyond = max(ends) - file.seek(0, io.SEEK_END)
        pixels = tags[tiff.WIDTH] * tags[tiff.HEIGHT] * tags.get(tiff.SAMPLES, 1)
        return int(max(0, min(beyond, pixels * tiff.bits(tags) // 8)))
    except Exception:  # damaged tags may be anything
        return 0


def _deep_png(file: BinaryIO, image: Image.Image, name: str, *, lenient: bool) -> Stored:
    """Read a PNG of 16 bits; `image` is what Pillow makes of it, with everything but the pixels."""
    try:
        image.load()  # finds damage, and text behind the pixels
        about, orientation = _about(image, _profile(image), 16)
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise _damaged(name, error, "PNG") from error
    samples = _decode_by_libvips(file, image.size, name, lenient=lenient)
    return Stored.of(_upright(samples, orientation), about)


def _decode_by_libvips(
    file: BinaryIO, size: tuple[int, int], name: str, *, lenient: bool, missing: int = 0
) -> NDArray[Any]:
    from resshift_cli.imaging import vips

    try:
        samples = vips.decode(file, size, lenient=lenient, missing=missing)
    except MemoryError as error:
        raise _no_room(name) from error
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise _damaged(name, error, "TIFF") from error
    if samples.dtype != np.float32:
        return samples
    low, high = float(samples.min()), float(samples.max())
    if not (low >= -0.001 and high <= 1.001):  # nan is refused too
        raise UnsupportedImageError(
            f"{name} has values from {low:g} to {high:g}, and floats are read from 0 to 1.",
            hint="Scale it to 0 to 1, or save it with 16 bits per channel first.",
        )
    return samples.clip(0, 1)


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _turned(dpi: tuple[float, float] | None, orientation: int) -> tuple[float, float] | None:
    return dpi[::-1] if dpi is not None and orientation in (5, 6, 7, 8) else dpi


def _too_deep(name: str, what: str) -> UnsupportedImageError:
    return UnsupportedImageError(
        f"{name} has {what}, which is not handled.",
        hint="Save it with 8 or 16 bits per channel first.",
    )


def _no_room(name: str) -> ImageUnreadableError:
    return ImageUnreadableError(
        f"{name} does not fit in memory.", hint="Cut it into parts, or reduce it first."
    )


def _decoded(image: Image.Image, name: str) -> Stored:
    """Decode what has 8 bits per channel; `name` starts the messages."""
    if image.mode in _DEEP_MODES:
        raise _too_deep(name, "16 or 32 bits per channel")
    icc = _profile(image)
    if image.mode not in _MODES and not (image.mode == "CMYK" and icc):
        raise UnsupportedImageError(
            f"{name} is in {printable(image.mode)} colours"
            f"{' without a colour profile' if image.mode == 'CMYK' else ''}, and only gray and RGB"
            " are handled.",
            hint="Convert it to RGB (sRGB) first.",
        )
    mode = _MODES.get(image.mode, "RGB")
    if image.has_transparency_data:
        mode = "LA" if mode in ("L", "LA") else "RGBA"
    try:
        image.load()
        if image.mode == "CMYK":
            converted, icc = _to_srgb(image, icc, name)
        else:
            converted = image if image.mode == mode else image.convert(mode)
        about, orientation = _about(image, icc, 8)
        if orientation in _UPRIGHT:
            converted = converted.transpose(_UPRIGHT[orientation])
        samples = np.asarray(converted)
    except MemoryError as error:
        raise _no_room(name) from error
    except UnsupportedImageError:
        raise
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise _damaged(name, error, image.format) from error
    return Stored.of(samples.reshape(*samples.shape[:2], -1), about)


def _about(image: Image.Image, icc: bytes | None, depth: int) -> tuple[Picture, int]:
    """Everything but the pixels of what Pillow opened, and its EXIF orientation.

    Text of a PNG may stand behind its pixels, and is there once they have been decoded.
    """
    dpi = _dpi(image.info.get("dpi"))
    orientation, exif = _exif(image)
    picture = Picture(
        blank((1, 1, 1)),
        icc or None,
        exif,
        _turned(dpi, orientation),
        depth=depth,
        xmp=metadata.xmp(image),
        iptc=metadata.iptc(image),
        text=metadata.text(image),
        format=image.format or "",
    )
    return picture, orientation


def _profile(image: Image.Image) -> bytes | None:
    """The colour profile that the file has, but for what the plugin of JPEG XL says without one."""
    icc: bytes | None = image.info.get("icc_profile")
    if icc and image.format == "JXL":
        with suppress(ImageCms.PyCMSError, OSError):
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            if ImageCms.getProfileDescription(profile).strip() == "sRGB":
                return None
    return icc


def _to_srgb(image: Image.Image, icc: bytes | None, name: str) -> tuple[Image.Image, bytes]:
    """A CMYK image by its profile in sRGB, and the profile of that."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc or b""))
        converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        raise UnsupportedImageError(
            f"{name} is in CMYK, and its colour profile can't be used.",
            hint="Convert it to RGB (sRGB) first.",
        ) from error
    assert converted is not None  # it is only where it works in place
    return converted, srgb.tobytes()


def _exif(image: Image.Image) -> tuple[int, bytes | None]:
    try:
        source = image.getexif()
    except Exception:  # Pillow raises nearly anything on damaged EXIF
        return 1, None
    return metadata.exif(source)


def _dpi(value: Any) -> tuple[float, float] | None:
    """A resolution that every format can store; None for others and for 1, Pillow's "unknown"."""
    try:
        across, down = (float(number) for number in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 1 < across <= 65535 and 1 < down <= 65535 else None


def beside(picture: Picture, kind: Format, options: SaveOptions) -> dict[str, Any]:
    """Pillow's options for what goes into a file beside the pixels."""
    described = _described(picture, kind, options)
    text = {} if options.strip_metadata else picture.text
    return metadata.for_pillow(kind.name, **described, text=text)


def _described(picture: Picture, kind: Format, options: SaveOptions) -> dict[str, Any]:
    """Profile, resolution and metadata that tell of the picture's present size."""
    if options.strip_metadata:
        picture = _stripped(picture)
    size = picture.pixels.shape[0], picture.pixels.shape[1]
    return {
        "icc": picture.icc,
        "exif": metadata.exif_for(picture.exif, picture.note, size, kind.max_exif),
        "xmp": metadata.xmp_for(picture.xmp, size),
        "iptc": picture.iptc,
        "dpi": picture.dpi,
    }


def encode(picture: Picture, path: Path, *, options: SaveOptions = AS_IT_IS) -> bytes | memoryview:
    """The file's bytes, in the format that the options or else the extension of `path` names.

    They are made in memory: when Pillow writes to a disk that fills up, it loses the reason. JPEG
    is written without colour subsampling; a GIF's pixels are clear or opaque, nothing between.

    Raises:
        UsageError: as `check_encodable`.
        OutputError: as `check_encodable`, or the encoder fails.
    """
    depth = options.depth_of(options.format_of(path), picture.depth)
    return encode_levels(levels(picture.pixels, depth), picture, path, options=options)


def encode_levels(
    samples: NDArray[Any], picture: Picture, path: Path, *, options: SaveOptions = AS_IT_IS
) -> bytes | memoryview:
    """As `encode`, of pixels that are levels already.

    Args:
        samples: uint8 or uint16 (H, W, C), as `options.depth_of` says.
        picture: all but the pixels, of which only the shape counts.
        path: as `encode`.
        options: as `encode`.

    Raises:
        UsageError, OutputError: as `encode`.
    """
    check_encodable(picture, path, options=options)
    kind = options.format_of(path)
    try:
        if kind is TIFF:
            described = _described(picture, kind, options)
            return tiff.encode(samples, **described, compression=options.compression or 0)
        buffer = io.BytesIO()
        if samples.dtype == np.uint16:  # Pillow has no 16-bit colour
            _write_levels(buffer, [samples], picture, kind, options)
        else:
            about = beside(picture, kind, options)
            for_pillow(samples, kind).save(buffer, kind.name, **about, **options.encoder(kind))
        return buffer.getbuffer()
    except OutputError:
        raise
    except Exception as error:  # encoders of several packages, each with errors of its own
        raise _not_encoded(path, error) from error


def write_rows(
    file: BinaryIO,
    rows: Iterable[NDArray[np.float32]],
    picture: Picture,
    path: Path,
    *,
    options: SaveOptions = AS_IT_IS,
) -> None:
    """Write a file of one of the formats `STREAMED` as its rows come.

    Args:
        file: new and seekable.
        rows: bands (n, W, C) of pixels.
        picture: all but the pixels, of which only the shape counts.
        path: as `encode`.
        options: as `encode`.

    Raises:
        UsageError: as `check_encodable`.
        OutputError: as `check_encodable`, or the encoder fails.
        Exception: what `rows` and `file` raise.
    """
    check_encodable(picture, path, options=options)
    kind = options.format_of(path)
    depth = options.depth_of(kind, picture.depth)
    failures: list[BaseException] = []

    def samples() -> Iterator[NDArray[Any]]:
        try:
            for band in rows:
                yield levels(band, depth)
        except BaseException as error:
            failures.append(error)
            raise

    try:
        _write_levels(file, samples(), picture, kind, options)
    except Exception as error:
        if isinstance(error, OSError) or any(error is failure for failure in failures):
            raise
        raise _not_encoded(path, error) from error


def _write_levels(
    file: BinaryIO,
    rows: Iterable[NDArray[Any]],
    picture: Picture,
    kind: Format,
    options: SaveOptions,
) -> None:
    height, width, channels = picture.pixels.shape
    shape, depth = (height, width, channels), options.depth_of(kind, picture.depth)
    if kind is TIFF:
        described = _described(picture, kind, options)
        compression = options.compression or 0
        tiff.write(file, rows, shape, depth=depth, compression=compression, **described)
        return
    small = io.BytesIO()
    mode = "L" if channels < 3 else "RGB"
    Image.new(mode, (1, 1)).save(small, kind.name, **beside(picture, kind, options))
    like, given = small.getvalue(), options.encoder(kind)
    if kind is PNG:
        level = given.get("compress_level", 6)
        streaming.write_png(file, rows, shape, depth=depth, like=like, compression=level)
    else:
        streaming.write_jpeg(file, rows, shape, like=like, quality=given["quality"])


def _not_encoded(path: Path, error: Exception) -> OutputError:
    return OutputError(
        f"{printable(path)} can't be encoded: {printable(error) or type(error).__name__}.",
        hint="Choose another format with -o.",
    )


def levels(pixels: NDArray[np.float32], depth: int) -> NDArray[Any]:
    """Rounded to the levels of 8 or 16 bits."""
    rounded = pixels.clip(0, 1)
    rounded *= 2**depth - 1
    return np.rint(rounded, out=rounded).astype(np.uint16 if depth == 16 else np.uint8)


def for_pillow(samples: NDArray[np.uint8], kind: Format) -> Image.Image:
    """The image in a mode that the format has."""
    channels = samples.shape[2]
    image = Image.fromarray(samples[..., 0] if channels == 1 else samples)
    if kind is GIF and channels in (2, 4):
        image = image.convert("RGBA")
        image.putalpha(image.getchannel("A").point(lambda level: 255 * (level >= 128)))
    elif not kind.gray and channels < 3:
        image = image.convert("RGBA" if channels == 2 else "RGB")
    return image


def _stripped(picture: Picture) -> Picture:
    """Only what says how the pixels look: profile and resolution."""
    return replace(picture, exif=None, xmp=None, iptc=None, text={}, note="")
