"""Images as streams of bands of rows, so that none has to be in memory whole.

A band is a tensor (N, C, n, W): some rows of N images of one size. Bands come from top to bottom
and are made only when they are asked for. Where a consumer looks at rows around its own, or several
consumers at the same rows, a window stands between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

import torch
from torch import Tensor

from resshift_cli.restoration.tiling import Box, Frame

Bands = Iterator[Tensor]

FRAMED = 32  # rows of the bands that `framed` gives


class Window:
    """The rows of a stream that are still needed.

    They are taken from the stream when they are first asked for, and forgotten once all readers
    have passed them. All readers have to be there before the first one reads.

    Args:
        bands: the stream.
        first: row of the image that it begins with.

    Attributes:
        first: likewise.
    """

    def __init__(self, bands: Iterable[Tensor], first: int = 0) -> None:
        self._bands = iter(bands)
        self._held: deque[Tensor] = deque()
        self.first = self._top = first
        self._readers: list[Reader] = []

    @property
    def bottom(self) -> int:
        """Row up to which the stream has been taken."""
        return self._top + sum(band.shape[-2] for band in self._held)

    def reader(self, first: int | None = None) -> Reader:
        """One more consumer, who asks for no row above `first`, if that is given."""
        self._readers.append(Reader(self, self.first if first is None else first))
        return self._readers[-1]

    def take(self) -> bool:
        """Take one more band; False if there is none."""
        band = next(self._bands, None)
        if band is None:
            return False
        self._held.append(band)
        return True

    def fetch(self, bottom: int) -> None:
        """Take bands up to a row, or to the end of the stream where that comes first."""
        while self.bottom < bottom and self.take():
            pass

    def cut(self, top: int, bottom: int, left: int, right: int | None) -> Tensor:
        """A part, as a view where it lies within one band."""
        self.fetch(bottom)
        assert top >= self._top, "these rows were promised not to be asked for"
        parts, row = [], self._top
        for band in self._held:
            first, last = max(top - row, 0), min(bottom - row, band.shape[-2])
            if first < last:
                parts.append(band[..., first:last, left:right])
            row += band.shape[-2]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)

    def forget(self) -> None:
        """Let go of the bands that all readers have passed."""
        passed = min(reader.passed for reader in self._readers)
        while self._held and self._top + self._held[0].shape[-2] <= passed:
            self._top += self._held.popleft().shape[-2]


class Reader:
    """One consumer of a window; `passed` is the first row that it may still ask for."""

    def __init__(self, window: Window, first: int) -> None:
        self._window = window
        self.passed = first

    def fetch(self, bottom: int) -> None:
        """See `Window.fetch`."""
        self._window.fetch(bottom)

    def rows(self, top: int, bottom: int) -> Tensor:
        """Rows `top` to `bottom`, or to the end of the stream where that comes first."""
        return self._window.cut(top, bottom, 0, None)

    def cut(self, box: Box, factor: int = 1) -> Tensor:
        """A tile, counted in units `factor` times coarser than the stream's."""
        top, left = box.top * factor, box.left * factor
        return self._window.cut(top, top + box.height * factor, left, left + box.width * factor)

    def forget(self, row: int) -> None:
        """Promise to ask for no row above `row` any more."""
        self.passed = row
        self._window.forget()

    def __iter__(self) -> Bands:
        """All bands, as they come; each is forgotten when the next one is asked for."""
        while self._window.bottom > self.passed or self._window.take():
            bottom = self._window.bottom
            yield self.rows(self.passed, bottom)
            self.forget(bottom)


def framed(
    bands: Iterable[Tensor],
    height: int,
    frame: Frame,
    *,
    rows: range | None = None,
    first: int = 0,
) -> Bands:
    """`Frame.pad` of an image of `height` rows.

    Args:
        bands: of the image.
        height: its rows, in all.
        frame: see there.
        rows: those of the larger image that are wanted; by default all.
        first: row of the image that `bands` begin with.
    """
    reader = Window(bands, first).reader()
    wanted = range(frame.height) if rows is None else rows
    order = frame.rows(height).tolist()[wanted.start : wanted.stop]
    needed = [*list(accumulate(reversed(order), min))[::-1], height]  # by no later row, if above
    for start in range(0, len(order), FRAMED):
        some = order[start : start + FRAMED]
        least = min(some)
        held = reader.rows(least, max(some) + 1)
        chosen = torch.tensor([row - least for row in some], device=held.device)
        columns = frame.columns(held.shape[-1]).to(held.device)
        yield held.index_select(-2, chosen).index_select(-1, columns)
        reader.forget(needed[start + len(some)])


def unframed(
    bands: Iterable[Tensor], size: tuple[int, int], frame: Frame, *, first: int = 0
) -> Bands:
    """What stands within a frame: an image of (height, width).

    Args:
        bands: of the larger image.
        size: of the image.
        frame: see there.
        first: row of the larger image that `bands` begin with.
    """
    row = first - frame.top

    def within(band: Tensor) -> Tensor:
        nonlocal row
        above, end = max(-row, 0), max(size[0] - row, 0)
        row += band.shape[-2]
        return band[..., above:end, frame.left : frame.left + size[1]]

    # A map, unlike a generator, holds no band while the next one is not asked for.
    return filter(lambda band: band.shape[-2], map(within, bands))


def local(
    bands: Iterable[Tensor],
    height: int,
    run: Callable[[Tensor], Tensor],
    *,
    reach: int,
    up: int = 1,
    down: int = 1,
    first: int = 0,
) -> Bands:
    """Apply what looks only a few rows around, band by band, with the result of the whole image.

    Args:
        bands: of an image.
        height: its rows in all, a multiple of `down`.
        run: maps (N, C, n, W) to (N, C', n * up / down, W'), and at the borders of what it is
            given does what is to be done at the borders of the image.
        reach: rows that it looks at above and below; a multiple of `down`.
        up: see `run`.
        down: see `run`.
        first: row that `bands` begin with, a multiple of `down`; but for the image's own border the
            result begins `reach` rows below it, and ends as many above the last one.
    """
    window = Window(bands, first)
    reader = window.reader()
    top = first + reach if first else 0
    while window.take():
        whole = window.bottom == height
        bottom = height if whole else (window.bottom - reach) // down * down
        if bottom > top:
            above = max(top - reach, 0)
            result = run(reader.rows(above, min(bottom + reach, height)))
            start = (top - above) * up // down
            yield result[..., start : start + (bottom - top) * up // down, :]
            reader.forget(max(bottom - reach, 0))
            top = bottom
