"""Pixels in bands of rows, from memory or out of a file, so that no large image is held as floats.

What gives them can be gone through again and again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from resshift_cli.imaging import refusals
from resshift_cli.imaging.picture import Picture, Pixels, Samples, blank, floats
from resshift_cli.imaging.sources import Source

LARGE = 25_000_000
"""Images of more pixels are not held as floats by `read.load`."""

_BAND = 1 << 18  # pixels that become floats at a time


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """An image in memory as its file stores it, which takes less than floats; upright.

    Going through it gives bands of pixels, float32 (n, W, C).

    Attributes:
        samples: (H, W, C), levels of uint8 or uint16, or float32 in [0, 1].
        about: everything but the pixels, which are blank.
    """

    samples: Samples
    about: Picture

    @classmethod
    def of(cls, samples: Samples, about: Picture) -> Stored:
        """With whatever pixels `about` has made blank ones."""
        return cls(samples, about.with_pixels(blank(samples.shape)))

    def picture(self) -> Picture:
        """All of it as floats."""
        return self.about.with_pixels(floats(self.samples))

    def __iter__(self) -> Iterator[Pixels]:
        """The pixels from the top."""
        height = max(1, _BAND // self.samples.shape[1])
        for top in range(0, len(self.samples), height):
            yield floats(self.samples[top : top + height])


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

    def levels(self) -> Iterator[Samples]:
        """The same as uint8 or uint16, as they are in the file."""
        from resshift_cli.imaging import vips

        # What the decoder of JPEG only warns of, another one might make other pixels of; of a
        # TIFF's tiles that can't be decoded there is a warning only.
        strict = self.kind in ("JPEG", "MPO", "TIFF")
        height = max(1, _BAND // self.shape[1])
        with self.source.open() as file:
            try:
                yield from vips.bands(file, self.shape, height, strict=strict)
            except MemoryError as error:
                raise refusals.no_memory(self.source.name) from error
            except Exception as error:  # decoders raise nearly anything on a damaged file
                raise refusals.undecoded(self.source.name, error, self.kind) from error

    def __iter__(self) -> Iterator[Pixels]:
        """The pixels from the top."""
        return map(floats, self.levels())
