"""Faces in photos: where they are, cut out upright as models know them, and put back.

Points are complex numbers, x + iy, so that a turn with a change of size is a product. They are
counted from the corner of an image: its first pixel's middle is 0.5 + 0.5i.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resshift_cli.errors import ImageArgumentError
from resshift_cli.imaging.picture import Pixels

Points = NDArray[np.complex128]

SIDE = 512
"""Pixels along each side of a face that is cut out."""

TEMPLATE: Points = np.array(
    [
        192.98 + 239.95j,
        318.90 + 240.19j,
        256.63 + 314.02j,
        201.26 + 371.41j,
        313.09 + 371.15j,
    ]
)
"""Where faces of FFHQ at that size have the left eye, the right one, the tip of the nose and the
corners of the mouth, left and right as one looks at them."""

TURNED = 32.0
"""Pixels by which landmarks are off the template, at the best turn and size, in a face that looks
away too far for a model of faces that look into the camera."""

# What of a face that was cut out is put back: all within a circle, nothing outside a larger one.
MIDDLE, INNER, OUTER = 256 + 272j, 180.0, 240.0

_MIDST = complex(SIDE / 2, SIDE / 2)
_REACH = 3  # pixels around a point that its colour is made of, with one to spare
_CHUNK = 1 << 14  # points that are sampled at a time


@dataclass(frozen=True, slots=True)
class Face:
    """A face in a photo.

    Attributes:
        left: of the box around it, in pixels from the corner of the photo.
        top: likewise.
        width: likewise.
        height: likewise.
        landmarks: five points, in the order of `TEMPLATE`.
        score: how sure it is, 0 to 1.
    """

    left: float
    top: float
    width: float
    height: float
    landmarks: tuple[complex, ...]
    score: float

    @property
    def size(self) -> float:
        """The longer side of its box."""
        return max(self.width, self.height)

    def larger(self, times: int) -> Face:
        """The same in a photo so many times as large."""
        left, top, width, height = (
            side * times for side in (self.left, self.top, self.width, self.height)
        )
        landmarks = tuple(point * times for point in self.landmarks)
        return Face(left, top, width, height, landmarks, self.score)

    @property
    def upright(self) -> Placement:
        """Where its points are when it is cut out."""
        return Placement.between(np.array(self.landmarks), TEMPLATE)

    @property
    def is_turned(self) -> bool:
        """Whether it looks away too far to be cut out as models know faces."""
        off = self.upright(np.array(self.landmarks)) - TEMPLATE
        return bool(np.sqrt(np.mean(np.abs(off) ** 2)) > TURNED)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where points of one image are in another: turned, resized and shifted.

    Attributes:
        turn: what they are multiplied by.
        shift: what is added then.
    """

    turn: complex
    shift: complex

    @classmethod
    def between(cls, points: Points, others: Points) -> Self:
        """The one that brings points nearest to others, by least squares."""
        middle, other = points.mean(), others.mean()
        apart = points - middle
        spread = np.vdot(apart, apart).real
        turn = complex(np.vdot(apart, others - other) / spread) if spread > 0 else 0j
        return cls(turn, complex(other - turn * middle))

    def __call__(self, points: Points) -> Points:
        """Where points are."""
        return self.turn * points + self.shift

    @property
    def back(self) -> Placement:
        """The other way."""
        return Placement(1 / self.turn, -self.shift / self.turn)

    @property
    def factor(self) -> float:
        """How much larger things are there."""
        return abs(self.turn)

    def of_part(self, corner: complex) -> Placement:
        """The same for a part of the one image that begins at a corner."""
        return Placement(self.turn, self.shift + self.turn * corner)

    def of_larger(self, across: float, down: float) -> Placement:
        """The same for the one image enlarged, by factors that differ by no more than rounding.

        What is exact is the middle of what is cut out.
        """
        if across == down == 1:
            return self
        middle = complex(self.back(np.array(_MIDST)))
        there = complex(middle.real * across, middle.imag * down)
        turn = self.turn / math.sqrt(across * down)
        return Placement(turn, _MIDST - turn * there)


@dataclass(frozen=True, slots=True)
class Region:
    """Pixels of an image from `left` and `top`, which may lie outside, to `right` and `bottom`."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def of(cls, points: Points, around: float) -> Region:
        """What holds some points, with so many pixels around them."""
        x, y = points.real, points.imag
        left, top = math.floor(x.min() - around), math.floor(y.min() - around)
        return cls(left, top, math.ceil(x.max() + around), math.ceil(y.max() + around))

    def within(self, height: int, width: int) -> Region:
        """What of it lies in an image; nowhere less than a pixel."""
        top, left = min(max(self.top, 0), height - 1), min(max(self.left, 0), width - 1)
        bottom, right = min(self.bottom, height), min(self.right, width)
        return Region(left, top, max(right, left + 1), max(bottom, top + 1))


def check_cut_out(height: int, width: int, name: str = "The image") -> None:
    """Refuse an image that can't be a face that was cut out.

    Raises:
        ImageArgumentError: it is not square.
    """
    if height != width:
        raise ImageArgumentError(
            f"{name} is {width}x{height}: a face that was cut out is square.",
            hint="Leave the faces to be found (no --aligned), or cut it out upright first.",
        )


def seen(place: Placement) -> Region:
    """What of a photo `cut` looks at, where faces that are cut out are placed so."""
    corners = np.array([0, SIDE, SIDE * 1j, SIDE + SIDE * 1j])
    return Region.of(place.back(corners), _REACH * max(1.0, 1 / place.factor))


def cut(part: Pixels, have: Region, place: Placement) -> Pixels:
    """Cut a face out, upright; what lies beyond the photo's borders is reflected.

    Args:
        part: of the photo, float32 (h, w, C).
        have: where that is in the photo: what of `seen` lies within it.
        place: of the face.

    Returns:
        float32 (SIDE, SIDE, C); a face that is larger in the photo is brought down with
        antialiasing.
    """
    want = seen(place)
    beyond = (
        (have.top - min(want.top, have.top), max(want.bottom, have.bottom) - have.bottom),
        (have.left - min(want.left, have.left), max(want.right, have.right) - have.right),
        (0, 0),
    )
    whole = np.pad(part, beyond, mode="symmetric")
    corner = complex(have.left - beyond[1][0], have.top - beyond[0][0])
    whole, place = _brought_down(whole, place.of_part(corner))
    middles = np.arange(SIDE) + 0.5
    return sampled(whole, place.back(middles[None] + 1j * middles[:, None]))


@dataclass(frozen=True, slots=True)
class Patch:
    """What is put back into a photo: a change of its pixels, made where it is asked for.

    Attributes:
        change: float32 (h, w, C), to be added.
        place: where points of the photo are in it.
        crop: where they are in the face as it was cut out.
        region: what of the photo it touches.
        whole: put back all of it, up to its borders, in place of what is within the circle.
    """

    change: Pixels
    place: Placement
    crop: Placement
    region: Region
    whole: bool

    @classmethod
    def of(
        cls, change: Pixels, place: Placement, size: tuple[int, int], *, whole: bool = False
    ) -> Patch:
        """A change of a face that was cut out, brought to a photo of (height, width)."""
        if whole:
            touched = Region(0, 0, size[1], size[0])
        else:
            centre = place.back(np.array([MIDDLE]))
            touched = Region.of(centre, place.back.factor * OUTER).within(*size)
        smaller, onto = _brought_down(change, place.back)
        return cls(smaller, onto.back, place, touched, whole)

    def rows(self, top: int, bottom: int) -> tuple[Pixels, Pixels]:
        """The change (n, w, C) in rows of the photo, and how far it counts there, (n, w, 1)."""
        x = np.arange(self.region.left, self.region.right) + 0.5
        points = x[None] + 1j * (np.arange(top, bottom) + 0.5)[:, None]
        change = sampled(self.change, self.place(points))
        if self.whole:
            return change, np.ones((*points.shape, 1), np.float32)
        away = (np.abs(self.crop(points) - MIDDLE) - INNER) / (OUTER - INNER)
        share = 0.5 + 0.5 * np.cos(np.pi * away.clip(0, 1))
        return change, share[..., None].astype(np.float32)


def blended(
    band: Pixels, top: int, patches: Iterable[Patch], strength: float, shown: int
) -> Pixels:
    """Rows of a photo from `top` on with patches put on them, one after the other.

    Args:
        band: float32 (n, W, C) in [0, 1].
        top: the first row.
        patches: those that touch it; where they overlap, later ones cover earlier ones.
        strength: how far they count, 0 to 1.
        shown: how many of the channels are colours: 1 or 3.
    """
    result, below = band.copy(), top + len(band)
    for patch in patches:
        first, last = max(patch.region.top, top), min(patch.region.bottom, below)
        if first >= last:
            continue
        columns = slice(patch.region.left, patch.region.right)
        where = (slice(first - top, last - top), columns, slice(0, shown))
        change, share = patch.rows(first, last)
        if shown < change.shape[2]:
            change = change.mean(axis=-1, keepdims=True)
        # A change of nothing leaves every bit as it is.
        new = band[where] + change
        result[where] += np.float32(strength) * share * (new - result[where])
    return result.clip(0, 1, out=result)


def sampled(pixels: Pixels, points: Points) -> Pixels:
    """Colours at points, by cubic convolution (Keys' kernel); borders are continued.

    Args:
        pixels: float32 (h, w, C).
        points: complex (n, m).

    Returns:
        float32 (n, m, C).
    """
    result = np.empty((*points.shape, pixels.shape[2]), np.float32)
    planes = [np.ascontiguousarray(plane) for plane in np.moveaxis(pixels, 2, 0)]
    rows = max(1, _CHUNK // points.shape[1])
    for top in range(0, len(points), rows):
        for channel, plane in enumerate(_sampled(planes, points[top : top + rows])):
            result[top : top + rows, :, channel] = plane
    return result


def _sampled(planes: list[Pixels], points: Points) -> list[Pixels]:
    """Of each plane (h, w) what lies at points."""
    height, width = planes[0].shape
    columns, across = _taps(points.real - 0.5, width)
    rows, down = _taps(points.imag - 0.5, height)
    totals = [np.zeros(points.shape, np.float32) for _ in planes]
    for row, of_row in zip(rows, down, strict=True):
        lines = [np.zeros(points.shape, np.float32) for _ in planes]
        for column, of_column in zip(columns, across, strict=True):
            where = row * width + column
            for line, plane in zip(lines, planes, strict=True):
                line += plane.take(where) * of_column
        for total, line in zip(totals, lines, strict=True):
            total += line * of_row
    return totals


def _taps(at: NDArray[np.float64], length: int) -> tuple[list[NDArray[np.intp]], list[Pixels]]:
    """The four pixels around every position along an axis, and their weights."""
    first = np.floor(at)
    t = (at - first).astype(np.float32)
    weights = [
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    ]
    begin = first.astype(np.intp) - 1
    return [(begin + i).clip(0, length - 1) for i in range(4)], weights


def _brought_down(pixels: Pixels, place: Placement) -> tuple[Pixels, Placement]:
    """An image at the size of one that it is placed in, if that is smaller: with antialiasing."""
    step = 1 / place.factor
    if step <= 1:
        return pixels, place
    height, width, _ = pixels.shape
    target = (max(1, math.ceil(width / step)), max(1, math.ceil(height / step)))
    right, below = math.ceil(target[0] * step) - width, math.ceil(target[1] * step) - height
    beyond = ((0, max(below, 0)), (0, max(right, 0)), (0, 0))
    whole = np.pad(pixels, beyond, mode="edge")
    box = (0.0, 0.0, target[0] * step, target[1] * step)
    planes = [
        Image.fromarray(np.ascontiguousarray(plane)).resize(target, Image.Resampling.BICUBIC, box)
        for plane in np.moveaxis(whole, 2, 0)
    ]
    smaller = np.stack([np.asarray(plane) for plane in planes], axis=2)
    return smaller, Placement(place.turn * step, place.shift)
