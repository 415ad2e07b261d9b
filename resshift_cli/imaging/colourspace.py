"""How a file says what its colours are, as the one thing that all of the package knows: ICC.

| format     | says it by, the first that is there       |
|------------|--------------------------------------------|
| PNG        | cICP, iCCP, sRGB, gAMA with or without cHRM |
| AVIF, HEIC | colr: a profile, or code points (nclx)     |
| BMP        | the header of its fifth version            |
| others     | a profile                                  |

What says nothing is sRGB. What is HDR can't be said by a profile of this kind, and is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import astuple
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from resshift_cli.errors import UnsupportedImageError
from resshift_cli.imaging import icc, isobmff, refusals
from resshift_cli.imaging.icc import SRGB_CURVE, SRGB_PRIMARIES, Curve, Point, Primaries

if TYPE_CHECKING:
    from resshift_cli.imaging.assumed import Assumed

_UNSPECIFIED = 2
_D65, _C, _DCI = (0.3127, 0.329), (0.31, 0.316), (0.314, 0.351)
_SMPTE_170M = Primaries((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), _D65)
# ITU-T H.273's numbers.
_PRIMARIES = {
    1: SRGB_PRIMARIES,
    _UNSPECIFIED: SRGB_PRIMARIES,
    4: Primaries((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    5: Primaries((0.64, 0.33), (0.29, 0.6), (0.15, 0.06), _D65),
    6: _SMPTE_170M,
    7: _SMPTE_170M,
    8: Primaries((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: Primaries((0.708, 0.292), (0.17, 0.797), (0.131, 0.046), _D65),
    11: Primaries((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), _DCI),
    12: Primaries((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), _D65),
    22: Primaries((0.63, 0.34), (0.295, 0.605), (0.155, 0.077), _D65),
}
_BT_709 = Curve(1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_CURVES = {
    1: _BT_709,
    _UNSPECIFIED: SRGB_CURVE,
    4: Curve(2.2),
    5: Curve(2.8),
    6: _BT_709,
    7: Curve(1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0913),
    8: Curve(1.0),
    11: _BT_709,
    12: _BT_709,
    13: SRGB_CURVE,
    14: _BT_709,
    15: _BT_709,
}
_HDR = {16: "PQ", 18: "HLG"}
_NAMES = {(12, 13): "Display P3", (9, 13): "BT.2020 with the curve of sRGB"}

_SRGB_GAMMA = (0.45, 0.46)  # what writers give for sRGB's curve
_BMP_V4, _BMP_V5 = 108, 124  # bytes of its header


def profile_of(
    image: Image.Image,
    name: str,
    file: BinaryIO | None = None,
    assumed: Assumed | None = None,
) -> bytes | None:
    """The profile that an open image's colours are to be read in; None is sRGB.

    Args:
        image: as Pillow opened it.
        name: starts the messages.
        file: what it was opened from. What only that tells is unknown without it.
        assumed: what the colours are if the file does not say.

    Raises:
        UnsupportedImageError: it is HDR, or in colours that no profile is made for.
    """
    if file is None:
        found, said = _told(image, name, None)
    else:
        place = file.tell()  # from which Pillow may go on
        try:
            found, said = _told(image, name, file)
        finally:
            file.seek(place)
    return found if said or assumed is None else assumed.profile(image.mode)


def _told(image: Image.Image, name: str, file: BinaryIO | None) -> tuple[bytes | None, bool]:
    """The profile, and whether the file says at all what its colours are."""
    gray = image.mode in ("1", "L", "LA", "I", "I;16")
    given: bytes | None = image.info.get("icc_profile") or None
    cicp = None
    if image.format == "PNG":
        cicp = None if file is None else _png_cicp(file, name)
        if cicp is None and given is None and "srgb" not in image.info:
            said = bool(image.info.keys() & {"gamma", "chromaticity"})
            return _of_gamma(image.info, gray), said
        if cicp is None and given is None:
            return None, True
    elif image.format == "BMP" and file is not None:
        given = _bmp_profile(file)
    elif image.format == "AVIF" and file is not None and given is None:
        cicp = _avif_cicp(file)
    elif image.format == "HEIF" and given is None:
        told = image.info.get("nclx_profile")
        cicp = told and (told["color_primaries"], told["transfer_characteristics"])
    elif image.format == "JXL" and given is not None and icc.is_srgb(given):
        given = None  # the plugin says so of a file that says nothing
    if cicp is None:
        return given, given is not None
    return of_cicp(*cicp, name, gray=gray), True


def of_cicp(primaries: int, transfer: int, name: str, *, gray: bool = False) -> bytes | None:
    """The profile for code points of ITU-T H.273; None is sRGB.

    Raises:
        UnsupportedImageError: they are HDR, or rare ones.
    """
    if transfer in _HDR:
        raise refusals.hdr(name, _HDR[transfer])
    if primaries not in _PRIMARIES or transfer not in _CURVES:
        raise UnsupportedImageError(
            f"{name} is in colours of a rare kind (CICP {primaries}/{transfer}).",
            hint="Convert it to sRGB first, for example with an image editor.",
        )
    space, curve = _PRIMARIES[primaries], _CURVES[transfer]
    if curve == SRGB_CURVE and (gray or space == SRGB_PRIMARIES):
        return None
    words = _NAMES.get((primaries, transfer), f"CICP {primaries}/{transfer}")
    return icc.make(words, space, curve, gray=gray)


def _of_gamma(told: Mapping[Any, Any], gray: bool) -> bytes | None:
    """The profile for a PNG's gAMA and cHRM, as Pillow tells them."""
    gamma, points = told.get("gamma"), told.get("chromaticity")
    if gamma is not None and not 0.1 <= gamma <= 10:  # nonsense, as viewers say too
        gamma = None
    space = SRGB_PRIMARIES
    if points is not None and not gray:
        white, red, green, blue = (_point(points, at) for at in (0, 2, 4, 6))
        space = Primaries(red, green, blue, white)
    usual = gamma is None or _SRGB_GAMMA[0] <= gamma <= _SRGB_GAMMA[1]
    if usual and _alike(space, SRGB_PRIMARIES):
        return None
    curve = SRGB_CURVE if gamma is None else Curve(1 / gamma)
    words = "sRGB" if gamma is None else f"Gamma {1 / gamma:.2f}"
    if not _alike(space, SRGB_PRIMARIES):
        words += ", primaries of its own"
    try:
        return icc.make(words, space, curve, gray=gray)
    except ValueError:  # no colours at all
        return None if usual else icc.make(words, SRGB_PRIMARIES, curve, gray=gray)


def _point(numbers: Any, at: int) -> Point:
    return float(numbers[at]), float(numbers[at + 1])


def _alike(one: Primaries, other: Primaries) -> bool:
    return np.allclose(astuple(one), astuple(other), atol=0.002)


def _png_cicp(file: BinaryIO, name: str) -> tuple[int, int] | None:
    """The code points of a PNG's chunk cICP; such as are none are passed over."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IDAT":
            return None
        if kind == b"cICP" and length == 4:
            primaries, transfer, matrix, full = file.read(4)
            if full == 0:
                raise UnsupportedImageError(
                    f"{name} has the levels of video, which are not handled.",
                    hint="Convert it to sRGB first, for example with an image editor.",
                )
            return (primaries, transfer) if matrix == 0 else None
        file.seek(length + 4, 1)
    return None


def _avif_cicp(file: BinaryIO) -> tuple[int, int] | None:
    try:
        return isobmff.main_image(file).cicp
    except (ValueError, IndexError, struct.error):  # the decoder managed without
        return None


def _bmp_profile(file: BinaryIO) -> bytes | None:
    """The profile that a BMP has, or that is made for the colours that its header tells of."""
    file.seek(14)
    header = file.read(_BMP_V5)
    (size,) = struct.unpack_from("<I", header)
    if size < _BMP_V4 or len(header) < size:
        return None
    kind = header[56:60][::-1]
    if kind == b"MBED" and size >= _BMP_V5:
        start, length = struct.unpack_from("<II", header, 112)
        file.seek(14 + start)
        profile = file.read(length)
        return profile if profile[36:40] == b"acsp" else None
    if kind != bytes(4):  # sRGB, or whatever the system takes for it
        return None
    points = [n / (1 << 30) for n in struct.unpack_from("<9i", header, 60)]
    gammas = [n / 65536 for n in struct.unpack_from("<3I", header, 96)]
    try:
        (red, green, blue), white = _mixed(points)
        curve = Curve(sum(gammas) / 3) if all(0.1 <= g <= 10 for g in gammas) else SRGB_CURVE
        return icc.make("Colours of a BMP", Primaries(red, green, blue, white), curve)
    except (ValueError, ZeroDivisionError):
        return None


def _mixed(xyz: list[float]) -> tuple[tuple[Point, Point, Point], Point]:
    """CIE x and y of three colours in XYZ, and of the white that they are together."""
    red, green, blue = ((xyz[i], xyz[i + 1], xyz[i + 2]) for i in (0, 3, 6))
    white = tuple(map(sum, zip(red, green, blue, strict=True)))

    def point(colour: tuple[float, ...]) -> Point:
        return colour[0] / sum(colour), colour[1] / sum(colour)

    return (point(red), point(green), point(blue)), point(white)
