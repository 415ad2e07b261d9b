"""Why an image is not read, in words for people; `name` starts each message."""

from __future__ import annotations

import re
from pathlib import Path

from resshift_cli.errors import ImageUnreadableError, UnsupportedImageError, printable
from resshift_cli.imaging import metadata_size

FORGIVING = ("PNG", "JPEG", "MPO", "GIF", "BMP", "TGA", "TIFF")
"""What can be read as far as it goes, by the names that Pillow gives it."""

# fmt: off
_RAW_EXTENSIONS = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw",
    ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
})
# fmt: on


# How decoders say that they, and not the file, are the reason.
_BEYOND_DECODER = re.compile(
    "Unsupported BMP|Unimplemented|Unknown pixel format|Unsupported bitcount"
    "|Unsupported JPEG process|[Nn]ot implemented|support is not configured"
    "|planes not supported|[Uu]nsupported (?:codec|feature|image)|decoder .* not available"
    "|Reformat failed"  # of an AVIF whose levels are made of colours in a rare way
)


class DamagedImageError(ImageUnreadableError):
    """A file that is cut short, or has wrong bytes in it."""


def empty(name: str) -> ImageUnreadableError:
    """A file without a byte."""
    return ImageUnreadableError(f"{name} is empty (0 bytes).", hint="Copy or download it again.")


def undecoded(
    name: str, error: BaseException, kind: str | None = None
) -> ImageUnreadableError | UnsupportedImageError:
    """What to raise for an error of the decoder of the format `kind`: of it, or of the file."""
    if _BEYOND_DECODER.search(str(error)):
        detail = printable(str(error).strip().splitlines()[-1].strip()).rstrip(".")
        return rare(name, detail)
    return damaged(name, error, kind)


def rare(name: str, detail: str) -> UnsupportedImageError:
    """A file of a format that is read, but of a kind that is not."""
    return UnsupportedImageError(
        f"{name} is of a kind that is not handled ({detail}).",
        hint="Save it as PNG with an image editor first.",
    )


def hdr(name: str, kind: str) -> UnsupportedImageError:
    """Levels beyond white."""
    return UnsupportedImageError(
        f"{name} is an HDR image ({kind}), and only SDR is handled yet.",
        hint="Convert it to SDR (sRGB or Display P3) first, with what made it.",
    )


def damaged(name: str, error: BaseException, kind: str | None = None) -> ImageUnreadableError:
    """What to say of a file that the decoder of the format `kind` finds wrong."""
    if "MAX_TEXT_" in str(error):  # the limits of Pillow for text of PNG
        return too_much_metadata(name)
    detail = printable(error).rstrip(".") or type(error).__name__
    instead = ", or take what there is of it (--allow-truncated)" if kind in FORGIVING else ""
    return DamagedImageError(
        f"{name} is cut short or damaged ({detail}).", hint=f"Copy or download it again{instead}."
    )


def too_large(name: str, claim: str) -> ImageUnreadableError:
    """More pixels than were allowed; `claim` says how many, and how many that is."""
    return ImageUnreadableError(
        f"{name} is too large: {claim}.",
        hint="If it is what it should be, allow more pixels (--max-pixels); else reduce it first.",
    )


def too_long(name: str, size: int, most: int) -> ImageUnreadableError:
    """Far more bytes than the image takes, of a file all of which would have to be read."""
    return ImageUnreadableError(
        f"{name} has {size >> 20} MB, and an image of its size takes {most >> 20} MB at most.",
        hint="Save the image anew, without what is behind it.",
    )


def no_memory(name: str) -> ImageUnreadableError:
    """An image that this machine has no memory for."""
    return ImageUnreadableError(
        f"{name} does not fit in memory.", hint="Cut it into parts, or reduce it first."
    )


def too_much_metadata(name: str) -> ImageUnreadableError:
    """A file whose metadata would fill the memory."""
    return ImageUnreadableError(
        f"{name} carries more than {metadata_size.MOST >> 20} MB of metadata, which is not taken"
        " in.",
        hint="Remove it first, for example with `exiftool -all=`.",
    )


def too_deep(name: str, what: str) -> UnsupportedImageError:
    """Samples that are not handled."""
    return UnsupportedImageError(
        f"{name} has {what}, which is not handled.",
        hint="Save it with 8 or 16 bits per channel first.",
    )


def cmyk_without_profile(name: str) -> UnsupportedImageError:
    """Ink on what paper? Only a profile tells what colours they are."""
    what = "is in CMYK colours without a colour profile, and only gray and RGB are handled"
    return other_colours(name, what)


def other_colours(name: str, what: str) -> UnsupportedImageError:
    """Colours that are neither gray nor RGB."""
    return UnsupportedImageError(f"{name} {what}.", hint="Convert it to RGB (sRGB) first.")


def several(name: str, what: str) -> UnsupportedImageError:
    """Frames or pages."""
    return UnsupportedImageError(
        f"{name} has {what}, and only single images are handled yet.",
        hint="Take the first only (--first-frame), or save the one you want as PNG first.",
    )


def is_named_raw(path: Path) -> bool:
    """Whether a file is called like those that cameras write before they make a picture of them."""
    return path.suffix.lower() in _RAW_EXTENSIONS


def raw(name: str) -> UnsupportedImageError:
    """A camera's raw file."""
    return UnsupportedImageError(
        f"{name} is a camera's raw file, which is not handled.",
        hint="Develop it to a 16-bit TIFF or PNG first, for example with darktable or RawTherapee.",
    )
