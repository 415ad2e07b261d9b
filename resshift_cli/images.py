"""File <-> image in memory: what can be read, what a result is called, and an atomic save.

Read and written, in 8 bits per channel: PNG, JPEG, WebP, BMP and TIFF; GIF is read only. A file is
read by its content, whatever its name says, and written by the extension of its name.

Kept from file to file: the colour profile (the pixels are not converted), the descriptive part of
EXIF, and the resolution in dots per inch. XMP, comments, embedded previews and the gain maps of
phone photos are not.
"""

from __future__ import annotations

import io
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
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.Image import Transpose
from PIL.MpoImagePlugin import MpoImageFile
from PIL.TiffImagePlugin import TiffImageFile

from resshift_cli.errors import (
    ImageUnreadableError,
    InputMissingError,
    OutputError,
    UnsupportedImageError,
    UsageError,
    printable,
)

MAX_PIXELS = 100_000_000
"""Largest input of `read`, by default; sixteen times as many pixels fill about 20 GB."""


@dataclass(frozen=True, slots=True)
class _Format:
    """A file format that results are written in."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    max_side: int = 2**31 - 1
    max_bytes: int = 2**63
    max_exif: int = 2**31 - 1
    alpha: bool = True
    gray: bool = True
    profile: bool = True


# Pillow cannot write EXIF into a compressed TIFF. BMP and TIFF count their bytes in 32 bits.
_PNG = _Format("PNG")
_JPEG = _Format(
    "JPEG", {"quality": 95, "subsampling": "4:4:4"}, max_side=65500, max_exif=65533, alpha=False
)
_WEBP = _Format("WEBP", {"quality": 95, "exact": True}, max_side=16383, gray=False)
_BMP = _Format("BMP", max_bytes=4_200_000_000, alpha=False, profile=False)
_TIFF = _Format("TIFF", max_bytes=4_200_000_000)
_FORMATS = {
    ".png": _PNG,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": _WEBP,
    ".bmp": _BMP,
    ".tif": _TIFF,
    ".tiff": _TIFF,
}
_EXTENSIONS = ", ".join(_FORMATS)

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
)
_READABLE = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")

# First bytes of what people may try, and what it is called.
_OTHERS = (
    (4, b"ftypavif", "an AVIF"),
    (4, b"ftypavis", "an AVIF"),
    (4, b"ftyphei", "a HEIC"),
    (4, b"ftyphev", "a HEIC"),
    (4, b"ftypmif1", "a HEIC"),
    (4, b"ftypmsf1", "a HEIC"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (0, b"\xff\x0a", "a JPEG XL"),
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

_UPRIGHT = {  # EXIF orientation -> what makes the image upright
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}

# What EXIF says about the photo. The rest says how the file was laid out, and would now be wrong.
_EXIF_TAGS = frozenset(
    {
        ExifTags.Base.ImageDescription,
        ExifTags.Base.Make,
        ExifTags.Base.Model,
        ExifTags.Base.Software,
        ExifTags.Base.ProcessingSoftware,
        ExifTags.Base.DateTime,
        ExifTags.Base.Artist,
        ExifTags.Base.HostComputer,
        ExifTags.Base.Copyright,
        ExifTags.Base.Rating,
        ExifTags.Base.RatingPercent,
        ExifTags.Base.XPTitle,
        ExifTags.Base.XPComment,
        ExifTags.Base.XPAuthor,
        ExifTags.Base.XPKeywords,
        ExifTags.Base.XPSubject,
    }
)


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
    """

    pixels: NDArray[np.float32]
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    note: str = ""

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
        """Other pixels with the same profile, EXIF and resolution."""
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

        Profile, EXIF and resolution are in the image's `info`.
        """
        levels = np.rint(self.pixels.clip(0, 1) * 255).astype(np.uint8)
        image = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)
        for name, value in self._metadata().items():
            image.info[name] = value
        return image

    def _metadata(self, *, max_exif: int = 2**31 - 1) -> dict[str, Any]:
        """Pillow's names for profile, resolution, and EXIF that fits the size of the pixels.

        The note is left out where the photo's own EXIF leaves no room for it.
        """
        metadata: dict[str, Any] = {"icc_profile": self.icc, "dpi": self.dpi}
        if self.exif is not None or self.note:
            exif = Image.Exif()
            if self.exif is not None:
                exif.load(self.exif)
            # Asked for a part that is not there, Pillow would add it, empty.
            details = exif.get_ifd(ExifTags.IFD.Exif) if ExifTags.IFD.Exif in exif else {}
            height, width, _ = self.pixels.shape
            for tag, side in (
                (ExifTags.Base.ExifImageWidth, width),
                (ExifTags.Base.ExifImageHeight, height),
            ):
                if tag in details:
                    details[tag] = side
            metadata["exif"] = exif.tobytes()
            if self.note:
                exif[ExifTags.Base.ProcessingSoftware] = self.note
                noted = exif.tobytes()
                if len(noted) <= max_exif:
                    metadata["exif"] = noted
        return {name: value for name, value in metadata.items() if value}


def read(path: Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read an image file, upright and in 8 bits per channel.

    Gray and 1 bit become gray; a palette becomes RGB; transparency in any form becomes alpha. Of a
    phone photo that carries a gain map or a preview beside it, the photo itself is taken.

    Args:
        path: a file.
        max_pixels: refuse what the header says is larger, before it is decoded. Above Pillow's
            own limit, twice `PIL.Image.MAX_IMAGE_PIXELS`, it has no effect.

    Raises:
        InputMissingError: there is no such file, or it can't be opened.
        UsageError: it is a directory, or not a regular file.
        ImageUnreadableError: it is empty, damaged, too large, or no image.
        UnsupportedImageError: it is an image of another format, has more than 8 bits per channel,
            is neither gray nor RGB, or has several frames or pages.
    """
    name = printable(path)
    with _open(path) as file, _quiet_pillow():
        start = file.read(32)
        if not start:
            raise ImageUnreadableError(
                f"{name} is empty (0 bytes).", hint="Copy or download it again."
            )
        file.seek(0)
        image = _identify(file, start, path, max_pixels)
        _refuse_unsupported(image, start, path)
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
    if os.path.exists(folder) or folder.suffix.lower() in _FORMATS:
        raise UsageError(
            f"Several results can't all go to the file {printable(folder)}.",
            hint="Give a folder, such as: -o results/",
        )
    return folder


def output_path(
    source: Path, *, scale: float, destination: str | Path | None = None, several: bool = False
) -> Path:
    """Where the result of one input goes.

    `photo.png` becomes `photo_x4.png` beside it, or in the folder that `destination` means; a
    destination that is a file is taken as it is. The extension is kept if results can be written
    with it, whatever the file holds; otherwise (GIF, none at all) it is `.png`.

    Raises:
        UsageError: as `output_folder`.
    """
    folder = output_folder(destination, several=several)
    if destination is not None and folder is None:
        return Path(destination)
    suffix = source.suffix if source.suffix.lower() in _FORMATS else ".png"
    return (folder or source.parent) / f"{source.stem}_x{scale:g}{suffix}"


def plan_outputs(
    sources: Sequence[Path], *, scale: float, destination: str | Path | None = None
) -> list[Path]:
    """Where the result of every input goes; nothing is created.

    Raises:
        UsageError: two results would have the same name, one would replace an input (refused even
            where overwriting is allowed), or as `output_folder`.
    """
    several = len(sources) > 1
    outputs = [
        output_path(source, scale=scale, destination=destination, several=several)
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


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Find out before the work, as far as possible, whether its result can be saved.

    A small file is created in the folder and removed again.

    Raises:
        UsageError: the extension is none that results are written with.
        OutputError: the file exists and `overwrite` is false, it is a folder or a device, or the
            folder is missing or not writable.
    """
    _format_of(path)
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


def check_encodable(picture: Picture, path: Path, *, size: tuple[int, int] | None = None) -> None:
    """Find out before the work whether the format of `path` can hold a result.

    Args:
        picture: its channels, profile and EXIF count, and its size unless `size` is given.
        path: only its extension counts.
        size: (height, width) of the result, in pixels.

    Raises:
        UsageError: the extension is none that results are written with.
        OutputError: the format has no alpha or no colour profile and the picture does, or it
            can't hold so many pixels or so much EXIF.
    """
    kind = _format_of(path)
    height, width = size or picture.pixels.shape[:2]
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
    elif height * width * picture.pixels.shape[2] > kind.max_bytes:
        problem = f"{kind.name} ends at 4 GB, and {width}x{height} pixels are more"
    elif len(picture.exif or b"") > kind.max_exif:
        problem = f"{kind.name} can't hold the image's {len(picture.exif or b'')} bytes of EXIF"
    if problem is not None:
        raise OutputError(
            f"{printable(path)} can't be written: {problem}.",
            hint=f"Choose PNG: -o {printable(path.with_suffix('.png'))}",
        )


def write(picture: Picture, path: Path, *, overwrite: bool) -> None:
    """Save in 8 bits, in the format that the extension names: all of it, or nothing.

    The bytes go to a hidden file beside `path`, reach the disk, and then take its name in one
    step, so that nobody ever sees half an image. Whatever goes wrong, Ctrl-C included, that file
    is removed. Where `path` is a link, what it points at is replaced.

    JPEG is written at quality 95 without colour subsampling, WebP at quality 95, the others
    without loss.

    Raises:
        UsageError: the extension is none that results are written with.
        OutputError: as `check_encodable` and `check_writable`, or the file appeared in the
            meantime and `overwrite` is false, or the disk is full.
    """
    check_encodable(picture, path)
    _check_target(path, overwrite=overwrite)
    encoded = _encode(picture, path)
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
    try:
        image = Image.open(file, formats=_READABLE)
        width, height = image.size
        if width * height > max_pixels:
            raise ImageUnreadableError(
                f"{name} is too large: {width}x{height} pixels, of at most {max_pixels / 1e6:g}"
                " million.",
                hint="Cut it into parts, or reduce it first.",
            )
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


def _refuse_unsupported(image: Image.Image, start: bytes, path: Path) -> None:
    """Refuse what decoding would mangle without a word: raw previews, pages, 16 bits."""
    name = printable(path)
    if isinstance(image, TiffImageFile) and path.suffix.lower() in _RAW_EXTENSIONS:
        raise _raw(name)
    try:
        frames = 1 if _is_photo_with_extras(image) else getattr(image, "n_frames", 1)
        deepest = _deepest_channel(image, start)
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise _damaged(name, error) from error
    if frames > 1:
        raise UnsupportedImageError(
            f"{name} has {frames} frames or pages, and only single images are handled yet.",
            hint="Save the one you want as PNG first.",
        )
    if deepest > 8:
        raise _too_deep(name, f"{deepest} bits per channel")


def _is_photo_with_extras(image: Image.Image) -> bool:
    """Whether a JPEG's further images only serve the first: gain map, preview, depth."""
    if not isinstance(image, MpoImageFile) or image.mpinfo is None:
        return False
    kind = image.mpinfo[0xB002][0]["Attribute"]["MPType"]
    return bool(kind == "Baseline MP Primary Image")


def _deepest_channel(image: Image.Image, start: bytes) -> int:
    """Bits of the deepest channel in the file, which Pillow may reduce to 8 when it decodes."""
    if isinstance(image, TiffImageFile):
        return int(max(image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,))))
    if image.format == "PNG":
        if start[12:16] != b"IHDR":
            raise ValueError("its first chunk is not IHDR")
        return start[24]
    return 8


def _too_deep(name: str, what: str) -> UnsupportedImageError:
    return UnsupportedImageError(
        f"{name} has {what}, and only 8 are handled yet.",
        hint="Save it with 8 bits per channel first.",
    )


def _to_picture(image: Image.Image, name: str) -> Picture:
    """Decode; `name` starts the messages."""
    if image.mode in _DEEP_MODES:
        raise _too_deep(name, "16 or 32 bits per channel")
    if image.mode not in _MODES:
        raise UnsupportedImageError(
            f"{name} is in {printable(image.mode)} colours, and only gray and RGB are handled yet.",
            hint="Convert it to RGB (sRGB) first.",
        )
    mode = _MODES[image.mode]
    if image.has_transparency_data:
        mode = "LA" if mode in ("L", "LA") else "RGBA"
    try:
        image.load()
        icc, dpi = image.info.get("icc_profile"), _dpi(image.info.get("dpi"))
        orientation, exif = _exif(image)
        converted = image if image.mode == mode else image.convert(mode)
        if orientation in _UPRIGHT:
            converted = converted.transpose(_UPRIGHT[orientation])
        pixels = np.asarray(converted, np.float32)
    except MemoryError as error:
        raise ImageUnreadableError(
            f"{name} does not fit in memory.", hint="Cut it into parts, or reduce it first."
        ) from error
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise _damaged(name, error) from error
    pixels /= 255
    if dpi is not None and orientation in (5, 6, 7, 8):
        dpi = dpi[::-1]
    return Picture(pixels.reshape(*pixels.shape[:2], -1), icc or None, exif, dpi)


def _exif(image: Image.Image) -> tuple[int, bytes | None]:
    """The orientation, and the EXIF worth keeping.

    A block too damaged to be taken apart can't be kept; the image itself is none the worse.
    """
    orientation = 1
    try:
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        kept = Image.Exif()
        kept.endian = exif.endian  # text in UserComment depends on it
        for tag in _EXIF_TAGS & set(exif):
            kept[tag] = exif[tag]
        details = dict(exif.get_ifd(ExifTags.IFD.Exif))
        if ExifTags.IFD.Interop in details:
            details[ExifTags.IFD.Interop] = dict(exif.get_ifd(ExifTags.IFD.Interop))
        place = dict(exif.get_ifd(ExifTags.IFD.GPSInfo))
        for part, entries in ((ExifTags.IFD.Exif, details), (ExifTags.IFD.GPSInfo, place)):
            if entries:
                kept[part] = entries
        return orientation, kept.tobytes() if len(kept) else None
    except Exception:  # Pillow raises nearly anything on damaged EXIF
        return orientation, None


def _dpi(value: Any) -> tuple[float, float] | None:
    """A resolution that every format can store; None for others and for 1, Pillow's "unknown"."""
    try:
        across, down = (float(number) for number in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 1 < across <= 65535 and 1 < down <= 65535 else None


def _format_of(path: Path) -> _Format:
    suffix = path.suffix.lower()
    if suffix in _FORMATS:
        return _FORMATS[suffix]
    what = f"with the extension {printable(path.suffix)}" if suffix else "without an extension"
    raise UsageError(
        f"{printable(path)}: results can't be written {what}.",
        hint=f"Use one of {_EXTENSIONS}"
        + (f", or end it with a slash for a folder: -o {printable(path)}/" if not suffix else "."),
    )


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


def _encode(picture: Picture, path: Path) -> memoryview:
    """The file's bytes.

    They are made in memory: when Pillow writes to a disk that fills up, it loses the reason.
    """
    kind = _format_of(path)
    image = picture.to_pil()
    buffer = io.BytesIO()
    options = {**picture._metadata(max_exif=kind.max_exif), **kind.options}
    try:
        image.save(buffer, kind.name, **options)
    except (OSError, ValueError, MemoryError) as error:
        raise OutputError(
            f"{printable(path)} can't be encoded: {printable(error) or type(error).__name__}.",
            hint="Choose another format with -o.",
        ) from error
    return buffer.getbuffer()


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
