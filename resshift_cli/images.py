"""File <-> image in memory: what can be read, what a result is called, and an atomic save.

Read: PNG, JPEG, WebP, AVIF, BMP, GIF and TIFF; HEIC and JPEG XL with the package's extras. A file
is read by its content, whatever its name says, and written by the extension of its name; `formats`
lists what each format can hold.

PNG and TIFF of 16 bits per channel stay so. Floats in a TIFF are taken from 0 to 1, and count as
16 bits. AVIF, HEIC and JPEG XL are read in 8 bits. Gray and RGB are not converted, their colour
profile is carried along; CMYK becomes sRGB by its profile. `metadata` says what else is kept;
embedded previews and the gain maps of phone photos are not.
"""

from __future__ import annotations

import io
import logging
import os
import secrets
import stat
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.Image import Transpose
from PIL.MpoImagePlugin import MpoImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from resshift_cli import jxl, metadata, tiff
from resshift_cli.errors import (
    ImageUnreadableError,
    InputMissingError,
    OutputError,
    UnsupportedImageError,
    UsageError,
    printable,
)
from resshift_cli.formats import (
    FORMATS,
    GIF,
    TIFF,
    Format,
    SaveOptions,
    load_extra,
    missing_extra,
)

AS_IT_IS = SaveOptions()

# What Pillow logs would else be printed by the logging of Python's last resort.
logging.getLogger("PIL").addHandler(logging.NullHandler())

MAX_PIXELS = 100_000_000
"""Largest input of `read`, by default; sixteen times as many pixels fill about 20 GB."""


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
            for RGB and alpha. Colours are not multiplied by alpha.
        icc: ICC profile that the colours are to be read in.
        exif: EXIF block without orientation and preview.
        dpi: dots per inch, across and down.
        note: how the image was made, to go into EXIF as ProcessingSoftware; ASCII.
        depth: bits per channel of the file it came from, 8 or 16; it is written so where it can be.
        xmp: XMP packet.
        iptc: IPTC records.
        text: by keyword, as in a PNG; "Comment" is a JPEG's or GIF's comment.
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
        return _to_picture(image, "The image")

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


def read(path: Path, *, max_pixels: int = MAX_PIXELS, first_frame: bool = False) -> Picture:
    """Read an image file, upright.

    Gray and 1 bit become gray; a palette becomes RGB; transparency in any form becomes alpha; CMYK
    becomes RGB by its profile. Of a phone photo that carries a gain map or a preview beside it, the
    photo itself is taken.

    Args:
        path: a file.
        max_pixels: refuse what the header says is larger, before it is decoded. Above Pillow's
            own limit, twice `PIL.Image.MAX_IMAGE_PIXELS`, it has no effect.
        first_frame: take the first of several frames or pages.

    Raises:
        InputMissingError: there is no such file, or it can't be opened.
        UsageError: it is a directory, or not a regular file.
        ImageUnreadableError: it is empty, damaged, too large, or no image.
        UnsupportedImageError: it is an image of another format or of a kind of pixels that is not
            handled, needs an extra, or has several frames or pages.
    """
    with _open(path) as file:
        return _read(file, path, max_pixels, first_frame=first_frame)


@contextmanager
def opened(path: Path, *, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """A file's header, as Pillow reads it; its frames can be gone through while it is open.

    Raises:
        As `read`, but for what only decoding shows.
    """
    with _open(path) as file, _quiet_pillow():
        start = file.read(32)
        file.seek(0)
        yield _identify(file, start, path, max_pixels)


def _read(file: BinaryIO, path: Path, max_pixels: int, *, first_frame: bool) -> Picture:
    """Read what lies in a file that the system opened; `path` is for messages."""
    name = printable(path)
    with _quiet_pillow():
        start = file.read(32)
        if not start:
            raise ImageUnreadableError(
                f"{name} is empty (0 bytes).", hint="Copy or download it again."
            )
        if start.startswith(tiff.SIGNATURES) and path.suffix.lower() in _RAW_EXTENSIONS:
            raise _raw(name)
        tags = _tags_for_libvips(file, start)
        if tags is not None:
            return _tiff(file, *tags, name, max_pixels, first_frame=first_frame)
        file.seek(0)
        image = _identify(file, start, path, max_pixels)
        if not first_frame and (frames := frame_count(image, name)) > 1:
            raise _several(name, f"{frames} frames or pages")
        if image.format == "PNG" and start[24] == 16:
            return _deep_png(file, image, name)
        return _to_picture(image, name)


def output_folder(destination: str | Path | None, *, several: bool) -> Path | None:
    """The folder that `-o` means, or None where it means a file or is absent.

    It means a folder if it is one, ends with a slash, or has to take several results. Give it as
    the string that was typed: a `Path` has lost its slash.

    Raises:
        UsageError: several results are to go to what looks like, or is, a single file.
    """
    if destination is None:
        return None
    folder = Path(destination)
    if os.path.isdir(folder) or str(destination).endswith(("/", os.sep)):
        return folder
    if not several:
        return None
    if os.path.exists(folder) or folder.suffix.lower() in FORMATS:
        raise UsageError(
            f"Several results can't all go to the file {printable(folder)}.",
            hint="Give a folder, such as: -o results/",
        )
    return folder


def output_path(
    source: Path,
    *,
    scale: float,
    destination: str | Path | None = None,
    several: bool = False,
    options: SaveOptions = AS_IT_IS,
) -> Path:
    """Where the result of one input goes.

    `photo.png` becomes `photo_x4.png` beside it, or in the folder that `destination` means; a
    destination that is a file is taken as it is. The extension is that of `options.format`; without
    one it is kept if results can be written with it, whatever the file holds, and otherwise (GIF
    with its 256 colours, none at all) it is `.png`.

    Raises:
        UsageError: as `output_folder`.
    """
    folder = output_folder(destination, several=several)
    if destination is not None and folder is None:
        return Path(destination)
    kept = FORMATS.get(source.suffix.lower())
    suffix = source.suffix if kept is not None and kept.implied else ".png"
    if options.format is not None:
        suffix = f".{options.format}"
    return (folder or source.parent) / f"{source.stem}_x{scale:g}{suffix}"


def plan_outputs(
    sources: Sequence[Path],
    *,
    scale: float,
    destination: str | Path | None = None,
    options: SaveOptions = AS_IT_IS,
) -> list[Path]:
    """Where the result of every input goes; nothing is created.

    Raises:
        UsageError: two results would have the same name, one would replace an input (refused even
            where overwriting is allowed), or as `output_folder`.
    """
    several = len(sources) > 1
    outputs = [
        output_path(source, scale=scale, destination=destination, several=several, options=options)
        for source in sources
    ]
    inputs = {_identity(source): source for source in sources}
    makers: dict[str, Path] = {}
    for source, output in zip(sources, outputs, strict=True):
        key = _identity(output)
        if key in makers:
            raise UsageError(
                f"{printable(makers[key])} and {printable(source)} would both be written to"
                f" {printable(output)}.",
                hint="Upscale them one by one, each with a name of its own after -o.",
            )
        if key in inputs:
            raise UsageError(
                f"The result of {printable(source)} would replace the input"
                f" {printable(inputs[key])}.",
                hint="Give another file or folder with -o; inputs are never overwritten.",
            )
        makers[key] = source
    return outputs


def create_folder(folder: Path) -> None:
    """Create the folder that `-o FOLDER/` named, and those above it, unless it is there.

    Only a folder that was asked for as such is created: for `-o missing/photo.png` the missing
    folder is more often a typing error, and `check_writable` refuses it.

    Raises:
        OutputError: it can't be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The folder {printable(folder)} can't be created: {_reason(error)}.",
            hint="Give another folder with -o.",
        ) from error


def check_writable(path: Path, *, overwrite: bool, options: SaveOptions = AS_IT_IS) -> None:
    """Find out before the work, as far as possible, whether its result can be saved.

    A small file is created in the folder and removed again.

    Raises:
        UsageError: the extension is none that results are written with.
        OutputError: the file exists and `overwrite` is false, it is a folder or a device, or the
            folder is missing or not writable.
    """
    options.format_of(path)
    _check_target(path, overwrite=overwrite)
    target = _real(path)
    trial = _temporary(target)
    try:
        with trial.open("xb"):
            pass
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        _remove(trial)


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
    """Save in the format that the options or else the extension names: all of it, or nothing.

    The bytes go to a hidden file beside `path`, reach the disk, and then take its name in one
    step, so that nobody ever sees half an image. Whatever goes wrong, Ctrl-C included, that file
    is removed. Where `path` is a link, what it points at is replaced.

    JPEG is written without colour subsampling; a GIF's pixels are clear or opaque, nothing between.

    Raises:
        UsageError: as `check_encodable`.
        OutputError: as `check_encodable` and `check_writable`, or the file appeared in the
            meantime and `overwrite` is false, or the disk is full.
    """
    check_encodable(picture, path, options=options)
    _check_target(path, overwrite=overwrite)
    save(_encode(picture, path, options), path, overwrite=overwrite)


def save(encoded: bytes | memoryview, path: Path, *, overwrite: bool) -> None:
    """Save a file's bytes as `write` does.

    Raises:
        OutputError: as `check_writable`, or the disk is full.
    """
    _check_target(path, overwrite=overwrite)
    target = _real(path)
    temporary = _temporary(target)
    try:
        with temporary.open("xb") as file:
            file.write(encoded)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            os.replace(temporary, target)
        else:
            _rename_to_new(temporary, target)
    except FileExistsError as error:
        raise _exists_error(path) from error
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        _remove(temporary)


def _open(path: Path) -> BinaryIO:
    name = printable(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UsageError(
                f"{name} is a folder.", hint=f"Name the files in it, such as {name}/*.png"
            )
        if not stat.S_ISREG(mode):
            raise UsageError(
                f"{name} is not a regular file.", hint="Save the image to a file and give its name."
            )
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputMissingError(f"There is no file {name}.", hint=_nearest(path)) from error
    except OSError as error:
        raise InputMissingError(
            f"{name} can't be opened: {_reason(error)}.",
            hint="Check its name and whether you may read it (`ls -l` shows that).",
        ) from error


def _nearest(path: Path) -> str:
    """A hint that names what the user may have meant instead of `path`."""
    folder = path.parent
    if not os.path.isdir(folder):
        return f"There is no folder {printable(folder)} either; check the path."
    try:
        names = {p.name.lower(): p for p in islice(folder.iterdir(), 10_000) if p.is_file()}
    except OSError:
        names = {}
    near = get_close_matches(path.name.lower(), names, n=1)
    return f"Did you mean {printable(names[near[0]])}?" if near else "Check its name and folder."


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Keep Pillow's warnings (large image, odd EXIF) off the screen: `read` says what matters."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


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


def _damaged(name: str, error: BaseException) -> ImageUnreadableError:
    detail = printable(error).rstrip(".") or type(error).__name__
    return ImageUnreadableError(
        f"{name} is cut short or damaged ({detail}).", hint="Copy or download it again."
    )


def frame_count(image: Image.Image, name: str) -> int:
    """Frames or pages of an open file; one for a photo with a gain map or a preview beside it.

    Raises:
        ImageUnreadableError: the file is damaged; `name` starts the message.
    """
    try:
        return 1 if _is_photo_with_extras(image) else int(getattr(image, "n_frames", 1))
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise _damaged(name, error) from error


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
) -> Picture:
    """Read a TIFF of integers of up to 16 bits, or of floats from 0 to 1."""
    try:
        bits, sample_format = tiff.bits(tags), tags.get(tiff.SAMPLE_FORMAT, (1,))[0]
        width, height = int(tags[tiff.WIDTH]), int(tags[tiff.HEIGHT])
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
    pixels = _decode_by_libvips(file, (width, height), name)
    dpi = icc = xmp = iptc = None
    with suppress(Exception):  # Pillow raises nearly anything on damaged tags
        dpi = _dpi(tiff.dpi(tags))
        icc = metadata.tiff_block(tags, tiff.ICC)
        xmp = metadata.tiff_block(tags, tiff.XMP)
        iptc = metadata.tiff_block(tags, tiff.IPTC)
    orientation, kept = metadata.exif(exif)
    pixels, dpi = _upright(pixels, orientation), _turned(dpi, orientation)
    return Picture(pixels, icc, kept, dpi, depth=8 if bits <= 8 else 16, xmp=xmp, iptc=iptc)


def _deep_png(file: BinaryIO, image: Image.Image, name: str) -> Picture:
    """Read a PNG of 16 bits; `image` is what Pillow makes of it, with everything but the pixels."""
    try:
        image.load()  # finds damage, and text behind the pixels
        text = metadata.text(image)
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise _damaged(name, error) from error
    pixels = _decode_by_libvips(file, image.size, name)
    icc, dpi = image.info.get("icc_profile"), _dpi(image.info.get("dpi"))
    orientation, exif = _exif(image)
    pixels, dpi = _upright(pixels, orientation), _turned(dpi, orientation)
    return Picture(pixels, icc or None, exif, dpi, depth=16, xmp=metadata.xmp(image), text=text)


def _decode_by_libvips(file: BinaryIO, size: tuple[int, int], name: str) -> NDArray[np.float32]:
    from resshift_cli import vips

    try:
        samples = vips.decode(file, size)
        pixels: NDArray[np.float32] = np.asarray(samples, np.float32)
        if samples.dtype != np.float32:
            pixels /= np.iinfo(samples.dtype).max
    except MemoryError as error:
        raise _no_room(name) from error
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise _damaged(name, error) from error
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -0.001 and high <= 1.001):  # nan is refused too
        raise UnsupportedImageError(
            f"{name} has values from {low:g} to {high:g}, and floats are read from 0 to 1.",
            hint="Scale it to 0 to 1, or save it with 16 bits per channel first.",
        )
    return pixels.clip(0, 1, out=pixels)


def _upright(pixels: NDArray[np.float32], orientation: int) -> NDArray[np.float32]:
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


def _to_picture(image: Image.Image, name: str) -> Picture:
    """Decode what has 8 bits per channel; `name` starts the messages."""
    if image.mode in _DEEP_MODES:
        raise _too_deep(name, "16 or 32 bits per channel")
    icc = image.info.get("icc_profile")
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
        dpi = _dpi(image.info.get("dpi"))
        orientation, exif = _exif(image)
        if image.mode == "CMYK":
            converted, icc = _to_srgb(image, icc, name)
        else:
            converted = image if image.mode == mode else image.convert(mode)
        if orientation in _UPRIGHT:
            converted = converted.transpose(_UPRIGHT[orientation])
        pixels = np.asarray(converted, np.float32)
        text = metadata.text(image)
    except MemoryError as error:
        raise _no_room(name) from error
    except UnsupportedImageError:
        raise
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise _damaged(name, error) from error
    pixels /= 255
    return Picture(
        pixels.reshape(*pixels.shape[:2], -1),
        icc or None,
        exif,
        _turned(dpi, orientation),
        xmp=metadata.xmp(image),
        iptc=metadata.iptc(image),
        text=text,
    )


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


def _check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse what can't or must not be replaced, and a folder that is not there."""
    name, folder = printable(path), printable(path.parent)
    target = _real(path)
    try:
        mode: int | None = path.lstat().st_mode
        if target.exists():
            mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except OSError as error:
        raise _write_error(path, error) from error
    if mode is not None and stat.S_ISDIR(mode):
        raise OutputError(f"{name} is a folder.", hint="Name a file in it, or end it with a slash.")
    if mode is not None and not overwrite:
        raise _exists_error(path)
    if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise OutputError(f"{name} is not a regular file.", hint="Give another file with -o.")
    if mode is not None and target.exists() and not os.access(target, os.W_OK):
        raise OutputError(f"{name} is write-protected.", hint="Give another file with -o.")
    if os.path.exists(target.parent) and not os.path.isdir(target.parent):
        raise OutputError(
            f"{name} can't be written: {folder} is not a folder.",
            hint="Give another file or folder with -o.",
        )
    if not os.path.isdir(target.parent):
        raise OutputError(
            f"{name} can't be written: there is no folder {folder}.",
            hint=f"Create it first (`mkdir -p {folder}`), or give a folder: -o {folder}/",
        )


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


def _encode(picture: Picture, path: Path, options: SaveOptions) -> bytes | memoryview:
    """The file's bytes.

    They are made in memory: when Pillow writes to a disk that fills up, it loses the reason.
    """
    kind = options.format_of(path)
    try:
        samples = levels(picture.pixels, options.depth_of(kind, picture.depth))
        if kind is TIFF:
            described = _described(picture, kind, options)
            return tiff.encode(samples, **described, compression=options.compression or 0)
        about = beside(picture, kind, options)
        buffer = io.BytesIO()
        if samples.dtype == np.uint16:
            from resshift_cli import vips

            Image.new("L" if samples.shape[2] < 3 else "RGB", (1, 1)).save(buffer, "PNG", **about)
            compression = 6 if options.compression is None else options.compression
            return vips.encode_png(samples, like=buffer.getvalue(), compression=compression)
        for_pillow(samples, kind).save(buffer, kind.name, **about, **options.encoder(kind))
        return buffer.getbuffer()
    except Exception as error:  # encoders of several packages, each with errors of its own
        raise OutputError(
            f"{printable(path)} can't be encoded: {printable(error) or type(error).__name__}.",
            hint="Choose another format with -o.",
        ) from error


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


def _rename_to_new(temporary: Path, target: Path) -> None:
    """Rename in one step unless `target` exists, also if it appeared only just now."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # FAT and some network folders have no hard links
        target.open("xb").close()  # takes the name, or raises FileExistsError
        try:
            os.replace(temporary, target)
        except BaseException:
            _remove(target)
            raise


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _identity(path: Path) -> str:
    """The same string for two paths of one file, whether it exists or not."""
    return os.path.normcase(_real(path))


def _temporary(target: Path) -> Path:
    """A new hidden name beside `target`; short, so that a name of 255 bytes is no trouble."""
    return target.with_name(f".{target.name[:32]}.{secrets.token_hex(4)}.tmp")


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    return error.strerror or printable(error)


def _exists_error(path: Path) -> OutputError:
    return OutputError(
        f"{printable(path)} exists already.",
        hint="Use --overwrite to replace it, or give another file with -o.",
    )


def _write_error(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{printable(path)} can't be written: {_reason(error)}.",
        hint="Give another file or folder with -o, or make room and check your permissions.",
    )
