"""What a file says about its image, taken out of it and put into the result.

Kept: the descriptive part of EXIF, XMP, IPTC, PNG's text, a JPEG's or GIF's comment. What speaks
of the old file's layout, size, orientation or preview is dropped, or set to what is true of the
result.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from resshift_cli.imaging import tiff
from resshift_cli.imaging.companions import Companion
from resshift_cli.imaging.picture import Picture
from resshift_cli.imaging.xmp import of_size, without_promises

COMMENT = "Comment"
"""The keyword of PNG's text that is the comment of a JPEG or GIF."""

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
_XMP_KEYWORD = "XML:com.adobe.xmp"
_IPTC_RESOURCE = 0x0404
_XMP_WRITTEN = frozenset({"PNG", "JPEG", "WEBP", "AVIF", "HEIF"})


LYING = (5, 6, 7, 8)
"""Orientations in which width and height change places."""


def exif_of(image: Image.Image) -> tuple[int, bytes | None]:
    """An open file's orientation, and the EXIF worth keeping."""
    # What XMP says of orientation, viewers pass over; Pillow would take it for EXIF's.
    packets = {key: image.info.pop(key) for key in ("xmp", _XMP_KEYWORD) if key in image.info}
    try:
        source = image.getexif()
    except Exception:  # Pillow raises nearly anything on damaged EXIF
        return 1, None
    finally:
        image.info.update(packets)
    return exif(source)


def exif(source: Image.Exif) -> tuple[int, bytes | None]:
    """The orientation, and the EXIF worth keeping.

    A block too damaged to be taken apart can't be kept; the image itself is none the worse.
    """
    orientation = 1
    try:
        orientation = source.get(ExifTags.Base.Orientation, 1)
        kept = Image.Exif()
        kept.endian = source.endian  # text in UserComment depends on it
        for tag in _EXIF_TAGS & set(source):
            kept[tag] = source[tag]
        details = dict(source.get_ifd(ExifTags.IFD.Exif))
        if ExifTags.IFD.Interop in details:
            details[ExifTags.IFD.Interop] = dict(source.get_ifd(ExifTags.IFD.Interop))
        place = dict(source.get_ifd(ExifTags.IFD.GPSInfo))
        for part, entries in ((ExifTags.IFD.Exif, details), (ExifTags.IFD.GPSInfo, place)):
            if entries:
                kept[part] = entries
        return orientation, kept.tobytes() if len(kept) else None
    except Exception:  # Pillow raises nearly anything on damaged EXIF
        return orientation, None


def dpi(value: Any, orientation: int) -> tuple[float, float] | None:
    """A resolution that every format can store, of the image upright.

    None for others and for 1, which is Pillow's "unknown".
    """
    try:
        across, down = (float(number) for number in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not (1 < across <= 65535 and 1 < down <= 65535):
        return None
    return (down, across) if orientation in LYING else (across, down)


def processing(block: bytes | None) -> str:
    """What an EXIF block says of how the image was made: our note, or that of other software."""
    if block is None:
        return ""
    source = Image.Exif()
    source.load(block)
    return str(source.get(ExifTags.Base.ProcessingSoftware, "")).rstrip("\0")


def exif_for(block: bytes | None, note: str, size: tuple[int, int], max_bytes: int) -> bytes | None:
    """The EXIF of a result of (height, width), with the note as ProcessingSoftware.

    The note is left out where the photo's own EXIF leaves no room for it.
    """
    if block is None and not note:
        return None
    result = Image.Exif()
    if block is not None:
        result.load(block)
    # Asked for a part that is not there, Pillow would add it, empty.
    details = result.get_ifd(ExifTags.IFD.Exif) if ExifTags.IFD.Exif in result else {}
    height, width = size
    for tag, side in (
        (ExifTags.Base.ExifImageWidth, width),
        (ExifTags.Base.ExifImageHeight, height),
    ):
        if tag in details:
            details[tag] = side
    plain = result.tobytes() if len(result) else None
    if not note:
        return plain
    result[ExifTags.Base.ProcessingSoftware] = note
    noted = result.tobytes()
    return noted if len(noted) <= max_bytes else plain


def xmp(image: Image.Image) -> tuple[bytes | None, frozenset[Companion]]:
    """An open file's XMP packet, without what it promises of other things there, and those."""
    packet = image.info.get("xmp") or image.info.get(_XMP_KEYWORD)
    if isinstance(packet, str):
        packet = packet.encode("utf-8", "surrogateescape")
    if not isinstance(packet, bytes) or not packet:
        return None, frozenset()
    return without_promises(packet)


def iptc(image: Image.Image) -> bytes | None:
    """An open file's IPTC records."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        return tiff.block(tags, tiff.IPTC)
    resources = image.info.get("photoshop")
    records = resources.get(_IPTC_RESOURCE) if isinstance(resources, dict) else None
    return records if isinstance(records, bytes) and records else None


def text(image: Image.Image) -> dict[str, str]:
    """An open file's texts and comment, by PNG's keywords."""
    if image.format == "PNG":
        return {
            key: str(value)
            for key, value in getattr(image, "text", {}).items()
            if key != _XMP_KEYWORD and not key.startswith("Raw profile type")
        }
    comment = image.info.get("comment") if image.format in ("JPEG", "MPO", "GIF") else None
    if isinstance(comment, bytes) and (words := comment.rstrip(b"\0")):
        try:
            return {COMMENT: words.decode()}
        except UnicodeDecodeError:
            return {COMMENT: words.decode("latin-1")}
    return {}


@dataclass(frozen=True, slots=True)
class Description:
    """What goes into a file beside the pixels, true of them as they are.

    Attributes:
        icc: colour profile.
        exif: block as Pillow makes it.
        xmp: XMP packet.
        iptc: IPTC records.
        dpi: dots per inch, across and down.
        text: by PNG's keywords.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    text: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, picture: Picture, max_exif: int) -> Description:
        """What there is of a picture, in its present size; EXIF of so many bytes at most."""
        size = picture.pixels.shape[0], picture.pixels.shape[1]
        return cls(
            icc=picture.icc,
            exif=exif_for(picture.exif, picture.note, size, max_exif),
            xmp=None if picture.xmp is None else of_size(picture.xmp, size),
            iptc=picture.iptc,
            dpi=picture.dpi,
            text=picture.text,
        )

    def for_pillow(self, kind: str) -> dict[str, Any]:
        """Options of Pillow's save, for the format `kind`; what it has no place for is left out."""
        options: dict[str, Any] = {"icc_profile": self.icc, "exif": self.exif, "dpi": self.dpi}
        if kind in _XMP_WRITTEN and kind != "PNG":
            options["xmp"] = self.xmp
        if kind in ("JPEG", "GIF"):
            options["comment"] = self.text.get(COMMENT, "").encode()
        if kind == "JPEG" and self.iptc is not None:
            options["extra"] = _iptc_segment(self.iptc)
        if kind == "PNG" and (self.text or self.xmp):
            options["pnginfo"] = _png_text(self.text, self.xmp)
        return {name: value for name, value in options.items() if value}


def _iptc_segment(records: bytes) -> bytes:
    """Photoshop's part of a JPEG, with nothing but IPTC in it."""
    padded = records + b"\0" * (len(records) % 2)
    resource = struct.pack(">4sHHL", b"8BIM", _IPTC_RESOURCE, 0, len(records)) + padded
    body = b"Photoshop 3.0\0" + resource
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body


def _png_text(text: Mapping[str, str], xmp: bytes | None) -> PngInfo:
    info = PngInfo()
    for keyword, words in text.items():
        info.add_text(keyword, words)  # UTF-8 where Latin-1 has no such character
    if xmp is not None:
        info.add_itxt(_XMP_KEYWORD, xmp.decode("utf-8", "surrogateescape"))
    return info
