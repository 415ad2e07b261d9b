"""An image in memory: its pixels, and everything else that its file says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]
"""(H, W, C) in [0, 1]; C is 1 for gray, 2 for gray and alpha, 3 for RGB, 4 for RGB and alpha."""

Samples = NDArray[Any]
"""(H, W, C) as files store them: levels of uint8 or uint16, or float32 in [0, 1]."""


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
        warnings: what else has to be told of how it was read.
        format: of the file, as Pillow calls it.
        palette: of the file if it is indexed, see `palette`.
    """

    pixels: Pixels
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    note: str = ""
    depth: int = 8
    xmp: bytes | None = None
    iptc: bytes | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    damage: str = ""
    warnings: tuple[str, ...] = ()
    format: str = ""
    palette: bytes | None = None

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

    def with_pixels(self, pixels: Pixels) -> Picture:
        """Other pixels with everything else the same."""
        return replace(self, pixels=pixels)

    def stripped(self) -> Picture:
        """Only what says how the pixels look: profile and resolution."""
        return replace(self, exif=None, xmp=None, iptc=None, text={}, note="")


def blank(shape: tuple[int, ...]) -> Pixels:
    """Zeros that take no memory, in place of pixels that are elsewhere."""
    return np.broadcast_to(np.float32(0), shape)


def levels(pixels: Pixels, depth: int) -> Samples:
    """Rounded to the levels of 8 or 16 bits."""
    rounded = pixels.clip(0, 1)
    rounded *= 2**depth - 1
    return np.rint(rounded, out=rounded).astype(np.uint16 if depth == 16 else np.uint8)


def floats(samples: Samples) -> Pixels:
    """Levels, or what are floats already, as floats in [0, 1]."""
    if samples.dtype == np.float32:
        return samples
    pixels = np.asarray(samples, np.float32)
    pixels /= np.iinfo(samples.dtype).max
    return pixels
