"""Cut a large image into overlapping tiles, and blend the tiles back without a seam."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from resshift_cli.errors import UsageError

LEAST_SHARE = 2 / 3
"""Least side of tiles that are chosen because they cost less, in sides of those asked for."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Tiles along one side of an image.

    Attributes:
        length: of the image.
        size: of every tile.
        starts: where tiles begin, rising, the first at 0 and the last ending with the image.
    """

    length: int
    size: int
    starts: tuple[int, ...]

    def scaled(self, factor: int) -> Axis:
        """The same tiles counted in units `factor` times finer."""
        return Axis(
            self.length * factor, self.size * factor, tuple(start * factor for start in self.starts)
        )

    def part(self, first: int, last: int) -> Axis:
        """Some tiles that follow each other, counted from where they begin."""
        starts = tuple(start - self.starts[first] for start in self.starts[first : last + 1])
        return Axis(starts[-1] + self.size, self.size, starts)

    def touched(self, rows: range) -> range:
        """Which tiles reach into some rows."""
        first = bisect_right(self.starts, rows.start - self.size)
        return range(first, bisect_left(self.starts, rows.stop))

    def covered(self, tiles: range) -> range:
        """The rows of some tiles that follow each other."""
        return range(self.starts[tiles.start], self.starts[tiles.stop - 1] + self.size)

    def whole(self, tiles: range) -> range:
        """The rows that no other tiles reach into."""
        first = self.starts[tiles.start - 1] + self.size if tiles.start else 0
        is_last = tiles.stop == len(self.starts)
        return range(first, self.length if is_last else self.starts[tiles.stop])

    def weights(self) -> list[Tensor]:
        """Float32 (size,) per tile: raised cosines over the overlaps; all tiles sum to 1.

        Where only one tile reaches, its weight is exactly 1. Equal ones are the same tensor.
        """
        position = torch.arange(self.size, dtype=torch.float64) + 0.5
        weights = []
        for i, start in enumerate(self.starts):
            weight = torch.ones(self.size, dtype=torch.float64)
            if i > 0:
                overlap = self.starts[i - 1] + self.size - start
                weight *= raised_cosine(position, overlap)
            if i + 1 < len(self.starts):
                overlap = start + self.size - self.starts[i + 1]
                weight *= raised_cosine(self.size - position, overlap)
            weights.append(weight)
        total = torch.zeros(self.length, dtype=torch.float64)
        for start, weight in zip(self.starts, weights, strict=True):
            total[start : start + self.size] += weight
        distinct: dict[bytes, Tensor] = {}
        shares = []
        for start, weight in zip(self.starts, weights, strict=True):
            share = (weight / total[start : start + self.size]).float()
            shares.append(distinct.setdefault(share.numpy().tobytes(), share))
        return shares


def raised_cosine(distance: Tensor, overlap: int) -> Tensor:
    """Rises from 0 at the tile's border to 1 where the overlap ends."""
    if overlap == 0:
        return torch.ones_like(distance)
    return 0.5 - 0.5 * torch.cos(math.pi * (distance / overlap).clamp(max=1.0))


def check_overlap(size: int, overlap: int) -> None:
    """Refuse an overlap that leaves tiles nothing of their own.

    Raises:
        UsageError: the overlap is negative, or not smaller than the tile.
    """
    if not 0 <= overlap < size:
        raise UsageError(
            f"An overlap of {overlap} px does not fit in tiles of {size} px.",
            hint="Make the overlap (--overlap) smaller than the tile (--tile), or leave both out.",
        )


def plan_axis(length: int, *, size: int, overlap: int, multiple: int | None = None) -> Axis:
    """Cover `length` with evenly spread tiles that have at least `overlap` in common.

    A side not longer than `size` gets a single tile of its own length. For a longer one, the
    tiles' side is the multiple of `multiple` that costs the least work, of those that are not much
    smaller than `size`: networks are worse in tiles that show them less. By default it is `size`.

    Raises:
        UsageError: the overlap is not smaller than the tile.
    """
    check_overlap(size, overlap)
    if length <= size:
        return Axis(length, length, (0,))
    # Tiles of less than twice the overlap would be all border.
    least = max(2 * overlap, math.ceil(LEAST_SHARE * size) - 1)
    sizes = [s for s in range(size, least, -(multiple or size)) if s > 0] or [size]
    gaps = {s: math.ceil((length - s) / (s - overlap)) for s in sizes}
    best = min(sizes, key=lambda s: (gaps[s] + 1) * s)
    starts = tuple(round(i * (length - best) / gaps[best]) for i in range(gaps[best] + 1))
    return Axis(length, best, starts)


@dataclass(frozen=True, slots=True)
class Box:
    """One tile of a grid; `row` and `column` are its place in the grid."""

    row: int
    column: int
    top: int
    left: int
    height: int
    width: int

    def cut(self, image: Tensor, factor: int = 1) -> Tensor:
        """This tile of (..., H, W), as a view.

        Args:
            image: counted in units `factor` times finer than the box.
            factor: see above.
        """
        top, left = self.top * factor, self.left * factor
        return image[..., top : top + self.height * factor, left : left + self.width * factor]


@dataclass(frozen=True)
class Grid:
    """Tiles that cover an image: every pair of a row of tiles and a column of tiles.

    Attributes:
        rows: tiles from top to bottom.
        columns: tiles from left to right.
        chosen: row and column of those that there are, of the first row some; by default all.
    """

    rows: Axis
    columns: Axis
    chosen: frozenset[tuple[int, int]] | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        """How many tiles there are."""
        if self.chosen is not None:
            return len(self.chosen)
        return len(self.rows.starts) * len(self.columns.starts)

    @property
    def boxes(self) -> list[Box]:
        """All tiles, row by row."""
        return [box for row in range(len(self.rows.starts)) for box in self.row(row)]

    def rows_at_once(self, batch: int) -> int:
        """How many rows of tiles are computed at a time, of at most so many tiles per call."""
        return max(1, batch // len(self.columns.starts))

    def row(self, row: int) -> list[Box]:
        """The tiles of one row, from left to right."""
        top, height, width = self.rows.starts[row], self.rows.size, self.columns.size
        return [
            Box(row, column, top, left, height, width)
            for column, left in enumerate(self.columns.starts)
            if self.chosen is None or (row, column) in self.chosen
        ]

    def around(self, touched: Callable[[Box], bool]) -> tuple[Grid, Box]:
        """The tiles that are touched, at least one, counted from the corner of all that they cover.

        Returns:
            They; and what they cover, a box whose place in the grid is that of its first tile.
        """
        chosen = [(box.row, box.column) for box in self.boxes if touched(box)]
        (first, last), (left, right) = ((min(n), max(n)) for n in zip(*chosen, strict=True))
        rows, columns = self.rows.part(first, last), self.columns.part(left, right)
        inner = frozenset((row - first, column - left) for row, column in chosen)
        corner = self.rows.starts[first], self.columns.starts[left]
        covered = Box(first, left, *corner, rows.length, columns.length)
        every = len(inner) == len(rows.starts) * len(columns.starts)
        return Grid(rows, columns, chosen=None if every else inner), covered


class Tiles(Protocol):
    """What computes the tiles that are blended."""

    def compute(self, boxes: Sequence[Box]) -> Tensor:
        """The tiles of N images, box after box.

        Args:
            boxes: some tiles of a grid.

        Returns:
            (len(boxes) * N, C, box height * factor, box width * factor).
        """

    def mended(self) -> Iterable[tuple[Box, Tensor]]:
        """What is to be added to tiles that were given, asked for after every row of tiles."""


class Blend:
    """Tiles blended over their overlaps, for any number of images cut by the same grid.

    Where the grid has no tile, images are 0.

    Args:
        grid: how the images are cut.
        factor: the blended images are so many times finer than the grid.
    """

    def __init__(self, grid: Grid, factor: int = 1) -> None:
        self.grid = grid
        self.factor = factor
        self._rows, self._columns = grid.rows.scaled(factor), grid.columns.scaled(factor)
        self._row_weights, self._column_weights = self._rows.weights(), self._columns.weights()
        self._weights: dict[tuple[int, int], Tensor] = {}

    def whole(self, rows: range) -> range:
        """Which rows of the result are whole when some rows of tiles are blended."""
        return self._rows.whole(rows)

    def bands(
        self, tiles: Tiles, *, batch: int = 1, multiple: int = 1, rows: range | None = None
    ) -> Iterator[Tensor]:
        """Compute images tile by tile.

        Rows come as soon as no further tile reaches them, so that `tiles` may be given what they
        look at in bands, too: tiles are asked for row by row.

        Args:
            tiles: see there; asked for at most `batch` at a time.
            batch: tiles per call.
            multiple: of rows of the result that bands end at, but for the last.
            rows: the rows of tiles that are computed; by default all.

        Yields:
            Bands of rows, float32 (N, C, n, width * factor): those of `whole`.
        """
        axis = self._rows
        rows = range(len(axis.starts)) if rows is None else rows
        shown, at_once = axis.whole(rows), self.grid.rows_at_once(batch)
        blended: Tensor | None = None
        top = axis.starts[rows.start]  # row of the image that `blended` begins at
        for first in range(rows.start, rows.stop, at_once):
            after = min(first + at_once, rows.stop)
            boxes = [box for row in range(first, after) for box in self.grid.row(row)]
            height = axis.starts[after - 1] + axis.size - top
            for some in _batches(boxes, batch):
                parts = tiles.compute(some).float().tensor_split(len(some))
                blended = _grown(blended, parts[0], height, self._columns.length)
                for box, part in zip(some, parts, strict=True):
                    self._add(blended, top, box, part)
            assert blended is not None  # there are tiles in the first row
            blended = _grown(blended, blended, height, self._columns.length)
            for box, part in tiles.mended():
                self._add(blended, top, box, part.float())
            finished = shown.stop
            if after < rows.stop:
                finished = axis.starts[after] // multiple * multiple
            if finished > max(top, shown.start):
                # Whoever takes a band may let go of it before the next one is asked for: it is not
                # held here, nor is what is left a view of it.
                begun, kept = max(shown.start - top, 0), finished - top
                whole = [blended[..., begun:kept, :]]
                blended, top = blended[..., kept:, :].clone(), finished
                yield whole.pop()

    def _add(self, blended: Tensor, top: int, box: Box, part: Tensor) -> None:
        """Add a tile to rows of the image that begin at `top`."""
        y, x = box.top * self.factor - top, box.left * self.factor
        place = blended[..., y : y + self._rows.size, x : x + self._columns.size]
        place.addcmul_(part, self._weight(box, part.device))

    def _weight(self, box: Box, device: torch.device) -> Tensor:
        """What a tile is multiplied by; of a grid's many tiles few differ in it."""
        if self.grid.chosen is not None:
            return self._share(box).to(device)
        row, column = self._row_weights[box.row], self._column_weights[box.column]
        key = (id(row), id(column))
        if key not in self._weights:
            self._weights[key] = (row[:, None] * column).to(device)
        return self._weights[key]

    def _share(self, box: Box) -> Tensor:
        """The weight of a tile in that of all that there are, where some are missing."""
        height, width = self._rows.size, self._columns.size
        total = torch.zeros(height, width, dtype=torch.float64)
        for other in self.grid.boxes:
            y, x = (other.top - box.top) * self.factor, (other.left - box.left) * self.factor
            if abs(y) < height and abs(x) < width:
                there = total[max(y, 0) : height + y, max(x, 0) : width + x]
                weight = self._product(other)
                there += weight[max(-y, 0) : height - y, max(-x, 0) : width - x]
        return (self._product(box) / total).float()

    def _product(self, box: Box) -> Tensor:
        row, column = self._row_weights[box.row], self._column_weights[box.column]
        return row[:, None].double() * column


def _grown(blended: Tensor | None, like: Tensor, height: int, width: int) -> Tensor:
    """Zeros to add tiles to, below what is there already."""
    if blended is None:
        return like.new_zeros(*like.shape[:2], height, width)
    missing = height - blended.shape[-2]
    if missing == 0:
        return blended
    return torch.cat([blended, blended.new_zeros(*like.shape[:2], missing, width)], dim=-2)


def _batches(boxes: Sequence[Box], size: int) -> Iterator[Sequence[Box]]:
    for i in range(0, len(boxes), size):
        yield boxes[i : i + size]


@dataclass(frozen=True, slots=True)
class Frame:
    """A larger image around one that goes on by reflection, or from the other border.

    Attributes:
        top: rows above the image.
        left: columns to the left of it.
        height: of the larger image.
        width: likewise.
        wrap: `x` or `y` or both, along which the image begins anew where it ends.
    """

    top: int
    left: int
    height: int
    width: int
    wrap: str = "none"

    @property
    def across(self) -> bool:
        """Whether left and right border meet."""
        return "x" in self.wrap

    @property
    def down(self) -> bool:
        """Whether upper and lower border meet."""
        return "y" in self.wrap

    def scaled(self, factor: int) -> Frame:
        """The same counted in units `factor` times finer."""
        height, width = self.height * factor, self.width * factor
        return Frame(self.top * factor, self.left * factor, height, width, self.wrap)

    def rows(self, height: int) -> Tensor:
        """Which of so many rows of the image each row shows."""
        repeated = _begun_anew if self.down else _mirrored
        return repeated(self.top, self.height, height)

    def columns(self, width: int) -> Tensor:
        """Which of so many columns of the image each column shows."""
        repeated = _begun_anew if self.across else _mirrored
        return repeated(self.left, self.width, width)

    def pad(self, image: Tensor) -> Tensor:
        """The larger image of (..., H, W)."""
        rows, columns = self.rows(image.shape[-2]), self.columns(image.shape[-1])
        return image.index_select(-2, rows).index_select(-1, columns)


def _begun_anew(before: int, length: int, own: int) -> Tensor:
    """Positions within `own`, beginning so many before it, over and over."""
    return (torch.arange(length) - before) % own


def _mirrored(before: int, length: int, own: int) -> Tensor:
    """Positions within `own`, beginning so many before it, mirrored without the edge twice.

    Unlike torch's padding it goes on mirroring as often as needed, so that any size down to
    1x1 can be padded.
    """
    if own == 1:
        return torch.zeros(length, dtype=torch.long)
    period = 2 * (own - 1)
    index = (torch.arange(length) - before) % period
    return torch.minimum(index, period - index)
