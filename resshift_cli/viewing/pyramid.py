"""A picture as tiles at halved sizes: a browser decodes those that it shows, and no others.

Level 0 is the picture itself, every further one half as wide and high, up to the first that is a
single tile. It is cut while its rows come, so that no picture is in memory for it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resshift_cli.imaging.picture import Pixels, levels

TILE = 512
"""Pixels a side; those at the right and below are smaller."""

JPEG_QUALITY = 92

Levels = NDArray[np.uint8]
Encode = Callable[[Levels], bytes]


@dataclass(frozen=True, slots=True)
class Tile:
    """A file, and which part of a picture it shows, counted in tiles."""

    level: int
    column: int
    row: int
    content: bytes


def depth(height: int, width: int) -> int:
    """How many levels there are of a picture."""
    return 1 + max(0, (max(height, width) - 1).bit_length() - (TILE - 1).bit_length())


def tiles(rows: Iterable[Pixels], shape: tuple[int, int, int], encode: Encode) -> Iterator[Tile]:
    """The tiles of all levels, in no order that matters.

    Args:
        rows: bands (n, W, C) of the picture from the top.
        shape: its (H, W, C).
        encode: makes a file of uint8 (h, w, C).
    """
    level: _Level | None = None
    for number in reversed(range(depth(*shape[:2]))):
        level = _Level(number, encode, level)
    assert level is not None  # there is one at least
    for band in rows:
        yield from level.take(levels(band, 8))
    yield from level.end()


def smallest(rows: Iterable[Pixels], shape: tuple[int, int, int], encode: Encode) -> bytes:
    """The file of the whole picture within a single tile.

    Args:
        rows: as `tiles`.
        shape: as `tiles`.
        encode: as `tiles`.
    """
    last = depth(*shape[:2]) - 1
    level = _Level(last, encode, None)
    for number in reversed(range(last)):
        level = _Level(number, lambda samples: b"", level)
    found = [tile for band in rows for tile in level.take(levels(band, 8))]
    found += level.end()
    return next(tile.content for tile in found if tile.level == last)


def as_png(icc: bytes | None) -> Encode:
    """Encodes without loss; colours are to be read in the profile, or are sRGB."""

    def encode(samples: Levels) -> bytes:
        return _saved(samples, "PNG", icc_profile=icc, compress_level=4)

    return encode


def as_jpeg(icc: bytes | None) -> Encode:
    """Encodes with a little loss, and all colours; gray or RGB without alpha."""

    def encode(samples: Levels) -> bytes:
        return _saved(samples, "JPEG", icc_profile=icc, quality=JPEG_QUALITY, subsampling=0)

    return encode


@dataclass(slots=True)
class _Level:
    """Collects rows until there is a row of tiles."""

    number: int
    encode: Encode
    smaller: _Level | None
    pending: list[Levels] = field(default_factory=list)
    row: int = 0

    def take(self, rows: Levels) -> Iterator[Tile]:
        self.pending.append(rows)
        while sum(map(len, self.pending)) >= TILE:
            yield from self._cut()

    def end(self) -> Iterator[Tile]:
        if self.pending:
            yield from self._cut()
        if self.smaller is not None:
            yield from self.smaller.end()

    def _cut(self) -> Iterator[Tile]:
        joined = self.pending[0] if len(self.pending) == 1 else np.concatenate(self.pending)
        band, rest = joined[:TILE], joined[TILE:]
        self.pending = [rest] if len(rest) else []
        for column, left in enumerate(range(0, band.shape[1], TILE)):
            content = self.encode(band[:, left : left + TILE])
            yield Tile(self.number, column, self.row, content)
        self.row += 1
        if self.smaller is not None:
            yield from self.smaller.take(_halved(band))


def _halved(band: Levels) -> Levels:
    smaller = np.asarray(_image(band).reduce(2))
    return smaller.reshape(*smaller.shape[:2], band.shape[2])


def _image(samples: Levels) -> Image.Image:
    return Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)


def _saved(samples: Levels, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    _image(np.ascontiguousarray(samples)).save(buffer, kind, **options)
    return buffer.getvalue()
