"""Faces put back into a photo, or over its enlarged background, that comes and goes in bands.

What is put back is the difference between a restored face and what the background shows in the
same place: so what a face that was cut out can't hold, the finest detail of a large one, stays as
it is there, and where nothing was restored nothing changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from resshift_cli.imaging import faces
from resshift_cli.imaging.faces import Patch, Placement, Region
from resshift_cli.imaging.picture import Pixels
from resshift_cli.restoration.arrays import channels_first, channels_last
from resshift_cli.restoration.bands import Reader, Window

BAND = 64  # rows of a result that are made at a time

Restore = Callable[[Sequence[Pixels]], Sequence[Pixels]]
"""Faces that were cut out, float32 (SIDE, SIDE, 3) in [0, 1], to what becomes of them."""


@dataclass(frozen=True, slots=True)
class Pasting:
    """How faces are put back.

    Attributes:
        restore: what is done with them.
        at_once: how many it is given at most.
        strength: how far they are replaced, 0 to 1.
        whole: put back all that was cut out, up to its borders.
    """

    restore: Restore
    at_once: int
    strength: float = 1.0
    whole: bool = False

    def onto(
        self,
        background: Iterable[Pixels],
        target: tuple[int, int, int],
        photo: Iterable[Pixels],
        size: tuple[int, int],
        places: Sequence[Placement],
    ) -> Iterator[Pixels]:
        """Restore faces of a photo, and put them over its background.

        Faces are restored when the first of their rows is asked for, so that only some are in
        memory at a time, however many there are.

        Args:
            background: bands, float32 (n, W', C) in [0, 1].
            target: (H', W', C) of it.
            photo: bands of the photo without alpha, float32 (n, W, 1 or 3) in [0, 1].
            size: (H, W) of it.
            places: of the faces in the photo; where they overlap, later ones cover earlier ones.

        Yields:
            Bands, float32 (n, W', C) in [0, 1]; alpha, and what it hides, as in the background.
        """
        down, across = target[0] / size[0], target[1] / size[1]
        there = [place.of_larger(across, down) for place in places]
        ahead = deque(
            sorted(
                (
                    _Face(order, _view(here, size), _view(larger, target[:2]))
                    for order, (here, larger) in enumerate(zip(places, there, strict=True))
                ),
                key=lambda face: face.there.region.top,
            )
        )
        below = Window(map(channels_first, background)).reader()
        around = Window(map(channels_first, photo)).reader()
        begun: list[tuple[int, Patch]] = []
        for top in range(0, target[0], BAND):
            bottom = min(top + BAND, target[0])
            while ahead and ahead[0].there.region.top < bottom:
                some = [ahead.popleft() for _ in range(min(self.at_once, len(ahead)))]
                begun += self._patches(some, around, below, target)
                around.forget(min((face.here.region.top for face in ahead), default=size[0]))
            band = channels_last(below.rows(top, bottom))
            yield _with(band, top, [patch for _, patch in sorted(begun, key=_order)], self.strength)
            begun = [each for each in begun if each[1].region.bottom > bottom]
            below.forget(bottom)

    def _patches(
        self, some: Sequence[_Face], around: Reader, below: Reader, target: tuple[int, int, int]
    ) -> Iterator[tuple[int, Patch]]:
        restored = self.restore([face.here.cut(around) for face in some])
        for face, new in zip(some, restored, strict=True):
            change = new - face.there.cut(below)
            patch = Patch.of(change, face.there.place, target[:2], whole=self.whole)
            yield face.order, patch


@dataclass(frozen=True, slots=True)
class _View:
    """A face in an image, and what of that is looked at to cut it out."""

    place: Placement
    region: Region

    def cut(self, image: Reader) -> Pixels:
        """It, float32 (SIDE, SIDE, 3) in [0, 1]."""
        region = self.region
        part = channels_last(image.rows(region.top, region.bottom)[..., region.left : region.right])
        colours = part[..., : 1 if part.shape[2] < 3 else 3]
        found = faces.cut(colours, region, self.place).clip(0, 1)
        return np.broadcast_to(found, (*found.shape[:2], 3))


def _view(place: Placement, size: tuple[int, ...]) -> _View:
    return _View(place, faces.seen(place).within(size[0], size[1]))


@dataclass(frozen=True, slots=True)
class _Face:
    """A face that is still to be restored, in the photo and in its background."""

    order: int
    here: _View
    there: _View


def _order(begun: tuple[int, Patch]) -> int:
    return begun[0]


def _with(band: Pixels, top: int, patches: Sequence[Patch], strength: float) -> Pixels:
    """Rows with patches on them, but for what alpha hides."""
    channels = band.shape[2]
    result = faces.blended(band, top, patches, strength, 1 if channels < 3 else 3)
    return result if channels % 2 else np.where(band[..., -1:] > 0, result, band)
