"""TIFF, and PNG of 16 bits, by libvips: what Pillow can't read rightly, or not silently."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from resshift_cli.errors import UnsupportedImageError
from resshift_cli.imaging import companions, metadata, refusals, tiff
from resshift_cli.imaging.icc import SRGB_CURVE
from resshift_cli.imaging.opening import Opened, check_size
from resshift_cli.imaging.picture import Picture, Samples, blank
from resshift_cli.imaging.rows import Stored
from resshift_cli.imaging.xmp import without_promises

# Bits and kind (1 for integers from 0, 3 for floats) of the samples that are read.
_SAMPLES = {(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (16, 3), (32, 3)}


_BY_PILLOW = {50000: "ZSTD", 34925: "LZMA"}  # which libvips comes without


@dataclass(frozen=True, slots=True)
class Page:
    """The first page of a TIFF.

    Attributes:
        file: it.
        tags: of the page.
        exif: likewise.
    """

    file: Opened
    tags: ImageFileDirectory_v2
    exif: Image.Exif

    def about(self) -> tuple[Picture, int]:
        """Everything but the pixels, and the orientation."""
        dpi = icc = xmp = iptc = None
        orientation, kept = metadata.exif(self.exif)
        with suppress(Exception):  # Pillow raises nearly anything on damaged tags
            dpi = metadata.dpi(tiff.dpi(self.tags), orientation)
            icc = tiff.block(self.tags, tiff.ICC)
            xmp = tiff.block(self.tags, tiff.XMP)
            iptc = tiff.block(self.tags, tiff.IPTC)
        if icc is None and self.file.assumed is not None:
            icc = self.file.assumed.profile("RGB" if self.tags.get(tiff.SAMPLES, 1) > 2 else "L")
        packet, promised = (xmp, ()) if xmp is None else without_promises(xmp)
        picture = Picture(
            blank((1, 1, 1)),
            icc,
            kept,
            dpi,
            depth=8 if tiff.bits(self.tags) <= 8 else 16,
            xmp=packet,
            iptc=iptc,
            format="TIFF",
            warnings=companions.warnings(self.file.name, promised),
        )
        return picture, orientation

    def decode(self, *, first_frame: bool, lenient: bool) -> Stored:
        """Read integers of up to 16 bits, or floats from 0 to 1.

        Raises:
            As `read.read`.
        """
        name, tags = self.file.name, self.tags
        try:
            bits, sample_format = tiff.bits(tags), tags.get(tiff.SAMPLE_FORMAT, (1,))[0]
            size = tiff.size(tags)
        except Exception as error:  # damaged tags may be anything
            raise refusals.undecoded(name, error) from error
        check_size(*size, name, self.file.max_pixels)
        if (bits, sample_format) not in _SAMPLES:
            rare = " of a rare kind" * (bits < 32)
            raise refusals.too_deep(name, f"{bits} bits per channel{rare}")
        if not tiff.is_gray_or_rgb(tags):
            what = f"has {bits} bits per channel in other colours than gray and RGB"
            raise refusals.other_colours(name, what)
        if tags.next and not first_frame:
            raise refusals.several(name, "several pages")
        if tags.get(tiff.COMPRESSION) in _BY_PILLOW:
            packing = _BY_PILLOW[tags[tiff.COMPRESSION]]
            raise refusals.too_deep(name, f"{bits} bits per channel, packed by {packing}")
        samples = self._samples(size, lenient=lenient)
        about, orientation = self.about()
        if samples.dtype == np.float32 and about.icc is None:
            samples, about = (
                _from_light(samples),
                replace(about, warnings=(*about.warnings, _taken_for_light(name))),
            )
        return Stored.of(upright(samples, orientation), about)

    def _samples(self, size: tuple[int, int], *, lenient: bool) -> Samples:
        if not tiff.has_tiled_planes(self.tags):
            missing = _missing(self.file.file, self.tags) if lenient else 0
            return decode_by_libvips(self.file, size, lenient=lenient, missing=missing)
        from resshift_cli.imaging import vips

        numbers = range(self.tags[tiff.SAMPLES])
        planes = (tiff.plane(self.file.file, self.tags, number) for number in numbers)
        return _decoded(self.file, lambda: vips.decode_planes(planes, size))


def for_libvips(file: Opened) -> Page | None:
    """The first page of a TIFF that Pillow can't read rightly, or not silently; else None.

    Files too damaged for that are left to Pillow to refuse.
    """
    if not file.is_tiff:
        return None
    try:
        tags, exif = tiff.first_tags(file.file)
        packed = tags.get(tiff.COMPRESSION, 1) != 1
        packed = packed and not (
            tiff.has_tiled_planes(tags) or tags.get(tiff.COMPRESSION) in _BY_PILLOW
        )
        suited = tiff.bits(tags) > 8 or (packed and tiff.is_gray_or_rgb(tags))
        return Page(file, tags, exif) if suited else None
    except Exception:  # Pillow raises nearly anything on damaged tags
        return None


def decode_by_libvips(
    file: Opened, size: tuple[int, int], *, lenient: bool, missing: int = 0
) -> Samples:
    """Levels, or floats from 0 to 1, of a file of (width, height); see `vips.decode`.

    Raises:
        ImageUnreadableError: it is damaged, or there is no memory for it.
        UnsupportedImageError: floats reach beyond 0 to 1.
    """
    from resshift_cli.imaging import vips

    return _decoded(file, lambda: vips.decode(file.file, size, lenient=lenient, missing=missing))


def _decoded(file: Opened, decode: Callable[[], Samples]) -> Samples:
    """What libvips makes of a file, in floats from 0 to 1 if it is in floats."""
    try:
        samples = decode()
    except MemoryError as error:
        raise refusals.no_memory(file.name) from error
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise refusals.undecoded(file.name, error, "TIFF") from error
    if samples.dtype != np.float32:
        return samples
    low, high = float(samples.min()), float(samples.max())
    if not (low >= -0.001 and high <= 1.001):  # nan is refused too
        raise UnsupportedImageError(
            f"{file.name} has values from {low:g} to {high:g}, and floats are read from 0 to 1.",
            hint="Scale it to 0 to 1, or save it with 16 bits per channel first.",
        )
    return samples.clip(0, 1)


def upright(pixels: Samples, orientation: int) -> Samples:
    """The same as somebody sees them whose viewer heeds an EXIF orientation."""
    if orientation in metadata.LYING:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _from_light(samples: Samples) -> Samples:
    """Colours, but not alpha, that are in proportion to light, as sRGB."""
    colours = 3 if samples.shape[2] >= 3 else 1
    coded = SRGB_CURVE.of_light(samples[..., :colours])
    return np.concatenate([coded, samples[..., colours:]], axis=2)


def _taken_for_light(name: str) -> str:
    return (
        f"{name} holds floats without a colour profile, which were taken for linear light and are"
        " sRGB in the result; give it a profile if they are something else."
    )


def _missing(file: BinaryIO, tags: ImageFileDirectory_v2) -> int:
    """Bytes of pixels that a TIFF without compression speaks of beyond its end."""
    if tags.get(tiff.COMPRESSION, 1) != 1:
        return 0
    try:
        ends = map(sum, zip(tags[tiff.STRIP_OFFSETS], tags[tiff.STRIP_BYTES], strict=True))
        beyond = max(ends) - file.seek(0, io.SEEK_END)
        pixels = tags[tiff.WIDTH] * tags[tiff.HEIGHT] * tags.get(tiff.SAMPLES, 1)
        return int(max(0, min(beyond, pixels * tiff.bits(tags) // 8)))
    except Exception:  # damaged tags may be anything
        return 0
