"""ICC profiles made here, for colours that a file describes in another way; and what sRGB is.

A profile of version 4 takes colours to the XYZ of light of 5000 K: by a curve for each channel and
a matrix, or, if it is for gray, by a curve alone.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Point = tuple[float, float]
"""CIE x and y."""

_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


@dataclass(frozen=True, slots=True)
class Primaries:
    """The light that a file's red, green, blue and white are, as CIE x and y."""

    red: Point
    green: Point
    blue: Point
    white: Point

    def to_xyz(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """From linear RGB to XYZ under D50, and the adaptation to that from its own white.

        Raises:
            ValueError: they are no colours that light could be mixed of.
        """
        if not all(0 < y <= 1 and 0 <= x <= 1 for x, y in (self.white,)):
            raise ValueError("its white has no colour")
        mixed = np.stack([_xyz(*point) for point in (self.red, self.green, self.blue)], axis=1)
        if abs(np.linalg.det(mixed)) < 1e-6:
            raise ValueError("its primaries lie on a line")
        white = _xyz(*self.white) / self.white[1]
        matrix = mixed * np.linalg.solve(mixed, white)
        cones = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white)
        adapted = np.linalg.inv(_BRADFORD) @ (cones[:, None] * _BRADFORD)
        return adapted @ matrix, adapted


@dataclass(frozen=True, slots=True)
class Curve:
    """From a channel's value v to light: (a v + b) ** g from d on, c v below that."""

    g: float
    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0

    def of_light(self, light: NDArray[np.float32]) -> NDArray[np.float32]:
        """The channel's values for light from 0 to 1."""
        low = self.c * self.d
        power = (np.maximum(light, low) ** (1 / self.g) - self.b) / self.a
        straight = light / self.c if self.c else light
        return np.where(light < low, straight, power).astype(np.float32)


SRGB_CURVE = Curve(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
SRGB_PRIMARIES = Primaries((0.64, 0.33), (0.3, 0.6), (0.15, 0.06), (0.3127, 0.329))


def make(name: str, primaries: Primaries, curve: Curve, *, gray: bool = False) -> bytes:
    """A profile.

    Args:
        name: that people are shown; ASCII.
        primaries: of the colours; of gray only white counts.
        curve: of every channel.
        gray: whether it is for one channel.

    Raises:
        ValueError: there are no such colours.
    """
    matrix, adapted = primaries.to_xyz()
    trc = struct.pack(">4sIHH", b"para", 0, 3, 0)
    trc += _numbers((curve.g, curve.a, curve.b, curve.c, curve.d))
    tags = {
        b"desc": _text(name),
        b"cprt": _text("CC0"),
        b"wtpt": _xyz_tag(_D50),
        b"chad": struct.pack(">4sI", b"sf32", 0) + _numbers(adapted.ravel()),
    }
    if gray:
        tags[b"kTRC"] = trc
    else:
        for index, channel in enumerate((b"r", b"g", b"b")):
            tags[channel + b"XYZ"] = _xyz_tag(matrix[:, index])
            tags[channel + b"TRC"] = trc
    return _profile(b"GRAY" if gray else b"RGB ", tags)


@lru_cache(maxsize=64)
def is_srgb(profile: bytes) -> bool:
    """Whether colours mean the same, to a level of 256, with this profile and without any."""
    gray = profile[16:20] == b"GRAY"
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    if gray:
        chart = Image.fromarray(steps[None])
        wanted = np.repeat(steps[None, :, None], 3, axis=2)
    else:
        wanted = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
        chart = Image.fromarray(wanted)
    try:
        shown = ImageCms.profileToProfile(
            chart,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError):
        return False
    return bool(np.abs(np.asarray(shown, int) - wanted).max() <= 1)


def _xyz(x: float, y: float) -> NDArray[np.float64]:
    return np.array([x, y, 1 - x - y])


def _numbers(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    """In 16 bits before the point and as many after it."""
    return struct.pack(f">{len(values)}i", *(round(float(value) * 65536) for value in values))


def _xyz_tag(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    return struct.pack(">4sI", b"XYZ ", 0) + _numbers(values)


def _text(words: str) -> bytes:
    encoded = words.encode("utf-16-be")
    head = struct.pack(">4sIII2s2sII", b"mluc", 0, 1, 12, b"en", b"US", len(encoded), 28)
    return head + encoded


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    start = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for name, body in tags.items():
        table += struct.pack(">4sII", name, start + len(data), len(body))
        data += body + b"\0" * (-len(body) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(data), b"", 0x04300000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H4s", 2000, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _numbers(_D50)
    return head.ljust(128, b"\0") + table + data
