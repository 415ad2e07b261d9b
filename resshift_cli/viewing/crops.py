"""A part of a photo that stands for it: where most is to be seen, or where one says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration.size import target_size

CONTEXT = 16
"""Pixels around a crop that models are shown, as they are in the whole photo."""

BLOCK = 16
"""Pixels a side of what is looked at as one, where most is to be seen."""


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of a photo, in its pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        rows = slice(self.top, self.top + self.height)
        return rows, slice(self.left, self.left + self.width)

    def cut(self, rows: Iterable[Pixels]) -> Pixels:
        """It out of the bands (n, W, C) of the photo."""
        parts, top = [], 0
        for band in rows:
            first, last = self.top - top, self.top + self.height - top
            parts.append(band[max(0, first) : max(0, last), self.left : self.left + self.width])
            top += len(band)
        return np.ascontiguousarray(np.concatenate(parts))

    def grown(self, margin: int, size: tuple[int, int]) -> Crop:
        """It with so many pixels around it, as far as the photo has them.

        Args:
            margin: pixels along each side.
            size: height and width of the photo.
        """
        left, top = max(0, self.left - margin), max(0, self.top - margin)
        right = min(size[1], self.left + self.width + margin)
        bottom = min(size[0], self.top + self.height + margin)
        return Crop(left, top, right - left, bottom - top)


@dataclass(frozen=True, slots=True)
class Sight:
    """A crop with some of the photo around it, which models are shown as well.

    Attributes:
        crop: what is looked at.
        seen: that and what is around it.
        pixels: of the latter, (H, W, C).
    """

    crop: Crop
    seen: Crop
    pixels: Pixels

    @classmethod
    def of(
        cls, crop: Crop, rows: Iterable[Pixels], size: tuple[int, int], context: int = CONTEXT
    ) -> Sight:
        """A crop of a photo.

        Args:
            crop: it.
            rows: bands (n, W, C) of the photo.
            size: height and width of the photo.
            context: pixels around the crop that are shown to a model.
        """
        seen = crop.grown(context, size)
        return cls(crop, seen, seen.cut(rows))

    def of_enlarged(self, pixels: Pixels, scale: float) -> Pixels:
        """The crop out of what `pixels` were enlarged to, so many times as large."""
        crop, seen = self.crop, self.seen
        top, left = (round(scale * x) for x in (crop.top - seen.top, crop.left - seen.left))
        height, width = target_size(crop.height, crop.width, scale)
        return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def around(point: tuple[int, int], side: int, size: tuple[int, int]) -> Crop:
    """The square of so many pixels a side around a point, moved into the photo, or what there is.

    Args:
        point: from the left and from the top.
        side: of the square.
        size: height and width of the photo.
    """
    (x, y), (height, width) = point, size
    wide, tall = min(side, width), min(side, height)
    left = min(max(0, x - wide // 2), width - wide)
    top = min(max(0, y - tall // 2), height - tall)
    return Crop(left, top, wide, tall)


def chosen(
    rows: Iterable[Pixels], point: tuple[int, int] | None, side: int, size: tuple[int, int]
) -> Crop:
    """The square around a point, or the busiest where there is none; see those two."""
    return busiest(rows, side, size) if point is None else around(point, side, size)


def over(where: NDArray[np.bool_], side: int, most: int) -> Crop:
    """The square around what is true, or where most of its edge is.

    Args:
        where: (H, W) of the photo, true somewhere.
        side: of the square.
        most: up to which it is larger where what is true is so.
    """
    height, width = where.shape
    (top, bottom), (left, right) = (np.flatnonzero(where.any(axis))[[0, -1]] for axis in (1, 0))
    extent = int(max(bottom - top, right - left)) + 1
    if extent > max(side, most):
        return busiest([where[..., None].astype(np.float32)], side, (height, width))
    middle = int(left + right + 1) // 2, int(top + bottom + 1) // 2
    return around(middle, max(side, extent), (height, width))


def busiest(rows: Iterable[Pixels], side: int, size: tuple[int, int]) -> Crop:
    """The square where neighbouring pixels differ most, to `BLOCK` pixels exactly.

    Args:
        rows: bands (n, W, C) of the photo.
        side: of the square.
        size: height and width of the photo.
    """
    energy = _energy(rows, size)
    count = [min(max(1, side // BLOCK), length) for length in energy.shape]
    summed = np.pad(energy, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    down, across = count
    inside = summed[down:, across:] - summed[:-down, across:]
    inside = inside - summed[down:, :-across] + summed[:-down, :-across]
    row, column = divmod(int(inside.argmax()), inside.shape[1])
    middle = (2 * column + across) * BLOCK // 2, (2 * row + down) * BLOCK // 2
    return around(middle, side, size)


def _energy(rows: Iterable[Pixels], size: tuple[int, int]) -> NDArray[np.float64]:
    """By block, what differs from the pixels before and above."""
    height, width = size
    starts = np.arange(0, width, BLOCK)
    energy = np.zeros((-(-height // BLOCK), len(starts)))
    top, above = 0, None
    for band in rows:
        channels = band.shape[2] - (band.shape[2] in (2, 4))  # without opacity
        gray = band[..., :channels].mean(2)
        if above is None:
            above = gray[:1]
        change = np.abs(np.diff(np.concatenate([above, gray]), axis=0))
        change += np.abs(np.diff(gray, axis=1, prepend=gray[:, :1]))
        blocks = np.add.reduceat(change.astype(np.float64), starts, axis=1)
        np.add.at(energy, (top + np.arange(len(band))) // BLOCK, blocks)
        top, above = top + len(band), gray[-1:]
    return energy
