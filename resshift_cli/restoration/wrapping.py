"""Images whose borders meet, such as tileable textures: laid out flat, and closed again.

Along an axis that wraps, the frame of an image goes on with what lies beyond its border: the other
border. So some places are shown twice. What a stage gives of them is blended as tiles are over
their overlaps, and noise is the same wherever a place is shown: the image is a ring of tiles that
agree with each other at every step of the chain, and where it was cut no seam shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from resshift_cli.diffusion.noise import Field
from resshift_cli.restoration.bands import Bands
from resshift_cli.restoration.tiling import Frame, raised_cosine

Wrap = Literal["none", "x", "y", "xy"]
WRAPS: tuple[str, ...] = get_args(Wrap)


@dataclass(frozen=True, slots=True)
class Ring:
    """An image that wraps along an axis or two, within its frame.

    Attributes:
        frame: see there.
        height: of the image.
        width: likewise.
    """

    frame: Frame
    height: int
    width: int

    def scaled(self, factor: int) -> Ring:
        """The same counted in units `factor` times finer."""
        return Ring(self.frame.scaled(factor), self.height * factor, self.width * factor)

    def coarser(self, factor: int) -> Ring:
        """The same counted in units of so many."""
        around = self.frame
        top, left = around.top // factor, around.left // factor
        height, width = around.height // factor, around.width // factor
        frame = Frame(top, left, height, width, around.wrap)
        return Ring(frame, self.height // factor, self.width // factor)

    def closed(self, bands: Bands) -> Bands:
        """What a stage gives within the frame, made the same wherever a place is shown.

        Where the image wraps from bottom to top, all of it is held.
        """
        if self.frame.across:
            bands = map(partial(_closed, axis=-1, places=self.frame.columns(self.width)), bands)
        return self._closed_down(bands) if self.frame.down else bands

    def _closed_down(self, bands: Bands) -> Bands:
        yield _closed(torch.cat(list(bands), dim=-2), -2, self.frame.rows(self.height))

    def field(self, field: Field) -> Field:
        """Noise for the frame that is the same wherever a place is shown."""

        def wrapped(
            seed: int, step: int, channels: int, *, top: int, left: int, height: int, width: int
        ) -> Tensor:
            down = self.height if self.frame.down else None
            across = self.width if self.frame.across else None
            rows = [
                torch.cat(
                    [
                        field(seed, step, channels, top=y, left=x, height=h, width=w)
                        for x, w in _stretches(left, width, self.frame.left, across)
                    ],
                    dim=-1,
                )
                for y, h in _stretches(top, height, self.frame.top, down)
            ]
            return torch.cat(rows, dim=-2)

        return wrapped


def _stretches(
    start: int, length: int, before: int, period: int | None
) -> Iterator[tuple[int, int]]:
    """Beginnings and lengths of stretches of the image that follow each other in the frame."""
    if period is None:
        yield start, length
        return
    start -= before
    while length > 0:
        first = start % period
        count = min(length, period - first)
        yield first, count
        start, length = start + count, length - count


def _closed(image: Tensor, axis: int, places: Tensor) -> Tensor:
    """One axis of `Ring.closed`; `places` says which of the image each position shows."""
    length, period = len(places), int(places.max()) + 1
    position = torch.arange(length, dtype=torch.float64) + 0.5
    shown_again = length - period
    weight = raised_cosine(position, shown_again) * raised_cosine(length - position, shown_again)
    share = weight / _folded(weight, 0, places, period)[places]
    shape = [length, 1] if axis == -2 else [length]
    shared = image * share.to(image).reshape(shape)
    return _folded(shared, axis, places, period).index_select(axis, places.to(image.device))


def _folded(image: Tensor, axis: int, places: Tensor, period: int) -> Tensor:
    """The sum of what stands for every place, always in the same order."""
    before = int(places[0])
    after = -(before + len(places)) % period
    padding = (0, 0, before, after) if axis == -2 else (before, after)
    padded = F.pad(image, padding)
    firsts = range(0, padded.shape[axis], period)
    return torch.stack([padded.narrow(axis, first, period) for first in firsts]).sum(dim=0)
