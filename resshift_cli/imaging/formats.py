"""The formats that results are written in, what each can hold, and how it is asked for.

| format      | lossless     | 16 bits | alpha   | gray | profile | beside it                    |
|-------------|--------------|---------|---------|------|---------|------------------------------|
| PNG         | yes          | yes     | yes     | yes  | yes     | EXIF, XMP, text              |
| TIFF        | yes          | yes     | yes     | yes  | yes     | EXIF, XMP, IPTC              |
| JPEG        | no           | no      | no      | yes  | yes     | EXIF, XMP, IPTC, one comment |
| WebP        | if asked for | no      | yes     | no   | yes     | EXIF, XMP                    |
| AVIF        | no           | no      | yes     | no   | yes     | EXIF, XMP                    |
| HEIC        | no           | no      | yes     | no   | yes     | EXIF, XMP                    |
| JPEG XL     | if asked for | no      | yes     | yes  | no      | EXIF                         |
| BMP         | yes          | no      | no      | yes  | no      |                              |
| TGA         | yes          | no      | yes     | yes  | no      |                              |
| GIF         | 256 colours  | no      | on, off | yes  | no      | one comment                  |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from resshift_cli.errors import OutputError, UnsupportedImageError, UsageError, printable


@dataclass(frozen=True, slots=True)
class Format:
    """A file format that results are written in.

    Attributes:
        name: as Pillow calls it.
        options: Pillow's options, used always.
        quality: what `quality` is if nobody says; None where there is no such setting.
        lossless: Pillow's option for it, and what it is set to; None where there is none.
        exact: whether it is without loss in any case.
        indexed: whether it is written with a palette where that is asked for.
        implied: whether a result takes this format over from its input.
        extra: the extra of this package that reads and writes it.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    quality: int | None = None
    lossless: tuple[str, Any] | None = None
    exact: bool = False
    max_side: int = 2**31 - 1
    max_bytes: int = 2**63
    max_exif: int = 2**31 - 1
    alpha: bool = True
    gray: bool = True
    profile: bool = True
    deep: bool = False
    indexed: bool = False
    implied: bool = True
    extra: str | None = None


# TIFF and BMP count their bytes in 32 bits.
_FOUR_GB = 4_200_000_000
PNG = Format("PNG", exact=True, deep=True, indexed=True)
TIFF = Format("TIFF", exact=True, deep=True)
BMP = Format("BMP", exact=True, max_bytes=_FOUR_GB, alpha=False, profile=False, indexed=True)
TGA = Format("TGA", exact=True, max_side=65535, profile=False, indexed=True)
GIF = Format("GIF", max_side=65535, profile=False, indexed=True, implied=False)
JPEG = Format(
    "JPEG",
    {"subsampling": "4:4:4"},
    quality=95,
    max_side=65500,
    max_exif=65533,
    alpha=False,
)
WEBP = Format(
    "WEBP", {"exact": True}, quality=95, lossless=("lossless", True), max_side=16383, gray=False
)
AVIF = Format("AVIF", {"subsampling": "4:4:4"}, quality=90, max_side=65535, gray=False)
HEIC = Format("HEIF", {"chroma": 444}, quality=90, max_side=16384, gray=False, extra="heic")
JXL = Format(
    "JXL",
    quality=95,
    lossless=("lossless", True),
    max_side=2**18,
    profile=False,  # its plugin writes none, and the colours would be taken for sRGB
    extra="jxl",
)

FORMATS = {
    ".png": PNG,
    ".jpg": JPEG,
    ".jpeg": JPEG,
    ".webp": WEBP,
    ".bmp": BMP,
    ".tga": TGA,
    ".tif": TIFF,
    ".tiff": TIFF,
    ".gif": GIF,
    ".avif": AVIF,
    ".heic": HEIC,
    ".heif": HEIC,
    ".jxl": JXL,
}
_PLUGINS = {"heic": "pillow_heif", "jxl": "pillow_jxl"}


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """How results are written. Each default means what the format's own is.

    Attributes:
        format: an extension without its dot, whatever the name of the file says; of planned
            outputs it becomes the extension.
        quality: 1 to 100, for formats with loss; others take no notice.
        lossless: WebP and JPEG XL without loss; what has loss in any case is then refused.
        compression: 0 (none) to 9 (smallest), for PNG (6 by default), TIFF and TGA (0 by default;
            a TGA knows one way only, runs of equal pixels).
        depth: 8 or 16 bits per channel. By default 16 where the picture has them and the format
            can hold them, else 8.
        strip_metadata: leave out all but profile and resolution, which say how the pixels look.
        palette: bring the colours of an indexed image back to its own palette, without dithering;
            others, and formats without palettes, are then refused.

    Raises:
        UsageError: one is outside its range.
    """

    format: str | None = None
    quality: int | None = None
    lossless: bool = False
    compression: int | None = None
    depth: int | None = None
    strip_metadata: bool = False
    palette: bool = False

    def __post_init__(self) -> None:
        """Refuse what is outside its range."""
        if self.format is not None and f".{self.format.lower()}" not in FORMATS:
            near = get_close_matches(self.format.lower().lstrip("."), _names(), n=1)
            raise UsageError(
                f"There is no format {printable(self.format)} (--format).",
                hint=f"Did you mean {near[0]}?" if near else f"Use one of {', '.join(_names())}.",
            )
        for option, value, low, high in (
            ("quality", self.quality, 1, 100),
            ("compression", self.compression, 0, 9),
        ):
            if value is not None and not low <= value <= high:
                raise UsageError(
                    f"The {option} (--{option} {value}) is out of range.",
                    hint=f"Use {low} to {high}.",
                )
        if self.depth not in (None, 8, 16):
            raise UsageError(
                f"{self.depth} bits (--depth {self.depth}) are not possible.", hint="Use 8 or 16."
            )

    def format_of(self, path: Path) -> Format:
        """The format that a result with this name is written in.

        Raises:
            UsageError: the extension is none that results are written with.
            OutputError: the format needs an extra that is not installed.
        """
        suffix = f".{self.format.lower()}" if self.format else path.suffix.lower()
        if suffix not in FORMATS:
            what = (
                f"with the extension {printable(path.suffix)}" if suffix else "without an extension"
            )
            folder = f", or end it with a slash for a folder: -o {printable(path)}/"
            raise UsageError(
                f"{printable(path)}: results can't be written {what}.",
                hint=f"Use one of {', '.join(FORMATS)}" + ("." if suffix else folder),
            )
        kind = FORMATS[suffix]
        if kind.extra is not None and not load_extra(kind.extra):
            raise OutputError(
                f"{printable(path)} can't be written: {kind.name} needs a package that is not"
                " installed.",
                hint=f"Install it with `pip install 'resshift[{kind.extra}]'`, or choose PNG.",
            )
        return kind

    def depth_of(self, kind: Format, depth: int) -> int:
        """Bits per channel in which a picture of `depth` bits is written."""
        return (self.depth or depth) if kind.deep else 8

    def encoder(self, kind: Format) -> dict[str, Any]:
        """Pillow's options for a format."""
        options = dict(kind.options)
        if kind.quality is not None:
            options["quality"] = kind.quality if self.quality is None else self.quality
        if self.lossless and kind.lossless is not None:
            name, value = kind.lossless
            options[name] = value
        if kind is PNG and self.compression is not None:
            options["compress_level"] = self.compression
        if kind is TGA and self.compression:
            options["compression"] = "tga_rle"
        return options


AS_IT_IS = SaveOptions()
"""Everything as the format and the input say."""


def extension(name: str) -> str | None:
    """The first extension, without its dot, of the format that Pillow calls so; None if none."""
    return next((suffix[1:] for suffix, kind in FORMATS.items() if kind.name == name), None)


def load_extra(extra: str) -> bool:
    """Have Pillow read and write the formats of an extra; False where it is not installed."""
    try:
        plugin = import_module(_PLUGINS[extra])
    except ImportError:
        return False
    if extra == "heic":
        plugin.register_heif_opener(thumbnails=False)
    return True


def missing_extra(name: str, extra: str) -> UnsupportedImageError:
    """The error for an input that an extra would read; `name` starts the message."""
    return UnsupportedImageError(
        f"{name} needs a package that is not installed.",
        hint=f"Install it with `pip install 'resshift[{extra}]'`, or save the image as PNG first.",
    )


def _names() -> list[str]:
    return [suffix[1:] for suffix in FORMATS]
