"""Textures of games, TGA and DDS: what their headers say that Pillow does not ask for.

A TGA of the first version has no mark at all: it is taken for one where it is called so and its
header could be one's. What stands in the place of opacity is not always opacity, in either format.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageChops, TgaImagePlugin

_TGA_HEAD, _TGA_FOOT = 18, 26  # bytes
_TGA_MARK = b"TRUEVISION-XFILE.\0"
_TGA_KINDS = (1, 2, 3, 9, 10, 11)
_TGA_DEPTHS = (1, 8, 15, 16, 24, 32)
_NO_OPACITY, _PREMULTIPLIED = (0, 1), 4  # kinds of a TGA's attributes

_DDS_HEAD, _DX10 = 148, 128  # bytes, and where the part begins that only some have
_CUBE, _FACES, _VOLUME, _DX10_CUBE = 0x200, 0xFC00, 0x200000, 0x4
_HDR = (*range(94, 97), 2, 10)  # DXGI's numbers: BC6H, and floats of 32 and 16 bits
# BC1 to BC3 that say to be sRGB, and what the same bytes are called where nothing is said: Pillow
# knows only that.
_SRGB = {72: 71, 75: 74, 78: 77}
_DDS_PREMULTIPLIED = 2


def is_tga(file: BinaryIO, start: bytes, path: Path) -> bool:
    """Whether a file without any other format's first bytes is a TGA.

    Args:
        file: it, open; where it stands is changed.
        start: its first bytes.
        path: its name.
    """
    if len(start) < _TGA_HEAD or start[1] > 1 or start[2] not in _TGA_KINDS:
        return False
    if start[16] not in _TGA_DEPTHS or start[7] not in (0, *_TGA_DEPTHS):
        return False
    return path.suffix.lower() == ".tga" or _foot(file).endswith(_TGA_MARK)


def _foot(file: BinaryIO) -> bytes:
    file.seek(max(0, file.seek(0, io.SEEK_END) - _TGA_FOOT))
    return file.read()


def dds_head(file: BinaryIO) -> bytes:
    """The header of a DDS, with zeros where it is cut short or has no second part."""
    place = file.tell()  # from which Pillow goes on
    file.seek(0)
    head = file.read(_DDS_HEAD).ljust(_DDS_HEAD, b"\0")
    file.seek(place)
    return head if head[84:88] == b"DX10" else head[:_DX10].ljust(_DDS_HEAD, b"\0")


def dds_size(head: bytes) -> tuple[int, int]:
    """Width and height of its largest surface."""
    height, width = struct.unpack_from("<2I", head, 12)
    return width, height


def is_hdr(head: bytes) -> bool:
    """Whether a DDS has levels beyond white."""
    return _number(head, _DX10) in _HDR


def surfaces(head: bytes) -> int:
    """How many images a DDS holds beside each other; its smaller copies of each don't count."""
    kinds, array = _number(head, 112), _number(head, 140)
    faces = (kinds & _FACES).bit_count() if kinds & _CUBE else 1
    if _number(head, 136) & _DX10_CUBE:
        faces = 6
    layers = _number(head, 24) if kinds & _VOLUME else 1
    return max(1, faces) * max(1, layers) * max(1, array)


def for_pillow(file: BinaryIO, head: bytes) -> BinaryIO:
    """A DDS as Pillow reads it: one that says to be sRGB, as all are taken for, without that.

    Of such a one only the largest surface is taken into memory, whose size was checked.
    """
    known = _SRGB.get(_number(head, _DX10))
    file.seek(0)
    if known is None:
        return file
    width, height = dds_size(head)
    blocks = -(-width // 4) * -(-height // 4)
    content = bytearray(file.read(_DDS_HEAD + 16 * blocks))
    struct.pack_into("<I", content, _DX10, known)
    return io.BytesIO(content)


def with_true_opacity(image: Image.Image, kind: str | None, file: BinaryIO) -> Image.Image:
    """A decoded TGA or DDS without what only looks like opacity; anything else as it is.

    Left out is what every pixel has in common where the file does not speak of opacity, and what it
    says to be none. The one bit of a TGA of 16 bits is on where the pixel is seen. Colours are not
    multiplied by opacity any more.

    Args:
        image: decoded, LA or RGBA if there may be opacity.
        kind: its format, as Pillow calls it.
        file: what it was read from; where it stands is changed.
    """
    if kind not in ("TGA", "DDS") or image.mode not in ("LA", "RGBA"):
        return image
    return _true_of_tga(image, file) if kind == "TGA" else _true_of_dds(image, file)


def _true_of_dds(image: Image.Image, file: BinaryIO) -> Image.Image:
    # Most kinds have a place for opacity, whether or not it is used.
    if image.getchannel("A").getextrema() == (255, 255):
        return _opaque(image)
    if _number(dds_head(file), 144) & 7 == _DDS_PREMULTIPLIED:
        return _divided(image)
    return image


def _true_of_tga(image: Image.Image, file: BinaryIO) -> Image.Image:
    file.seek(0)
    head = file.read(_TGA_HEAD)
    indexed, spoken = head[2] & 7 == 1, head[17] & 15
    one_bit = head[7 if indexed else 16] == 16 and image.mode == "RGBA"
    alpha = image.getchannel("A")
    low, high = alpha.getextrema()
    if (low == high and (one_bit or not spoken)) or (one_bit and (indexed or not spoken)):
        return _opaque(image)
    attributes = _attributes(file)
    if attributes in _NO_OPACITY:
        return _opaque(image)
    if one_bit and TgaImagePlugin.MODES[(2, 16)].endswith("Z"):  # Pillow takes it the other way
        image.putalpha(ImageChops.invert(alpha))
    return _divided(image) if attributes == _PREMULTIPLIED else image


def _attributes(file: BinaryIO) -> int | None:
    """What the second part of a TGA says its opacity to be; None where it has none."""
    foot = _foot(file)
    start = _number(foot, 0) if foot.endswith(_TGA_MARK) and len(foot) == _TGA_FOOT else 0
    if not start:
        return None
    file.seek(start + 494)
    told = file.read(1)
    return told[0] if told else None


def _opaque(image: Image.Image) -> Image.Image:
    return image.convert("L" if image.mode == "LA" else "RGB")


def _divided(image: Image.Image) -> Image.Image:
    """Colours that were multiplied by opacity, as they were before."""
    mode = {"LA": "La", "RGBA": "RGBa"}[image.mode]
    return Image.frombytes(mode, image.size, image.tobytes()).convert(image.mode)


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
