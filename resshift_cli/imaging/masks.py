"""Which pixels of a photo are unknown: by a mask's image, a colour, rectangles or its alpha."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from resshift_cli.errors import UsageError, printable
from resshift_cli.imaging import read
from resshift_cli.imaging.opening import MAX_PIXELS
from resshift_cli.imaging.picture import Pixels, levels

Unknown = NDArray[np.bool_]
"""(H, W), true where a pixel is unknown."""

ALPHA = "alpha"
"""What stands for the photo's own transparency in place of a mask's file."""

FARTHEST = 1024
"""Most pixels that a hole grows by, or its edge is wide."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Pixels from the left, from the top, across and down."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def of(cls, text: str) -> Self:
        """One that is written so: 10,20,300,40.

        Raises:
            UsageError: it is not.
        """
        match = re.fullmatch(r"(\d{1,9}),(\d{1,9}),([1-9]\d{0,8}),([1-9]\d{0,8})", text)
        if match is None:
            raise UsageError(
                f"'{printable(text)}' is no X,Y,WIDTH,HEIGHT.",
                hint="Give pixels from the left, from the top, across and down, as 10,20,300,40.",
            )
        return cls(*map(int, match.groups()))

    def __str__(self) -> str:
        """As it is typed."""
        return f"{self.x},{self.y},{self.width},{self.height}"


@dataclass(frozen=True, slots=True, eq=False)
class Hole:
    """What of an image is to be filled.

    Attributes:
        unknown: where its pixels are unknown.
        share: how far they are replaced, float32 (H, W) in [0, 1]: 0 outside the hole, 1 within it
            but for a feathered edge.
        opaque: whether what is filled can be seen, whatever alpha was there.
    """

    unknown: Unknown
    share: Pixels
    opaque: bool = False

    @classmethod
    def of(cls, unknown: Unknown, *, grow: int = 0, feather: int = 0, opaque: bool = False) -> Self:
        """A hole around unknown pixels.

        Args:
            unknown: those.
            grow: pixels around them that are taken for unknown as well.
            feather: pixels from the edge of all that inwards over which the image's own pixels go
                over into what is filled.
            opaque: see the class.
        """
        if grow and unknown.any():
            place, grown = _around(unknown, grow), unknown.copy()
            grown[place] = _distance(unknown[place], grow) <= grow
            unknown = grown
        share = unknown.astype(np.float32)
        if feather and unknown.any():
            place = _around(unknown, 1)
            depth = _distance(~unknown[place], feather + 1) / np.float32(feather + 1)
            share[place] *= 0.5 - 0.5 * np.cos(np.pi * np.minimum(depth, 1)).astype(np.float32)
        return cls(unknown, share, opaque)

    def part(self, rows: slice, columns: slice) -> Self:
        """What of it is in a part of the image."""
        return replace(self, unknown=self.unknown[rows, columns], share=self.share[rows, columns])

    def filled(self, band: Pixels, top: int, left: int, filling: Pixels) -> Pixels:
        """Rows of the image with what fills the hole in them; all else is bit for bit as it was.

        Args:
            band: the rows, (n, W, C), C as in `Picture`.
            top: which row of the image they begin at.
            left: which column `filling` begins at.
            filling: colours for a part of them, (n, w, 1 or 3).
        """
        result = band.copy()
        columns = slice(left, left + filling.shape[1])
        within = result[:, columns]
        share = self.share[top : top + len(band), columns, None]
        colours = slice(0, filling.shape[2])
        mixed = within[..., colours] * (1 - share) + filling * share
        within[..., colours] = np.where(share > 0, mixed, within[..., colours])
        if self.opaque and band.shape[2] % 2 == 0:
            within[..., -1] = np.where(share[..., 0] > 0, 1, within[..., -1])
        return result


@dataclass(frozen=True, slots=True)
class Mask:
    """How the unknown pixels of a photo are told.

    Attributes:
        shape: an image that is white, or light, where they are; `alpha` for what is transparent in
            the photo itself; a colour such as `#ff00ff` that the photo has there; or None. Where
            `light` is given, what that is called.
        boxes: rectangles of them, besides: pixels from the left, from the top, across and down, as
            10,20,300,40.
        invert: whether to fill all else: what is told is what is known.
        grow: how many pixels around it are taken for unknown as well, up to `FARTHEST`.
        feather: along how many pixels from the edge inwards the photo goes over into what is
            filled, likewise.
        light: where an image is light that was read already.
    """

    shape: str | None = None
    boxes: tuple[Rectangle, ...] = ()
    invert: bool = False
    grow: int = 0
    feather: int = 0
    light: Unknown | None = field(default=None, repr=False, compare=False)
    _read: dict[str, Unknown] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse a mask that says nothing, or can't be met."""
        if self.shape is None and not self.boxes:
            raise UsageError(
                "Nothing says which pixels are to be filled.",
                hint="Give a mask (--mask FILE, alpha or '#rrggbb'), or rectangles (--box).",
            )
        for name, reach in (("grow", self.grow), ("feather", self.feather)):
            if not 0 <= reach <= FARTHEST:
                raise UsageError(
                    f"'{name}' can't be {reach} pixels.", hint=f"Choose 0 to {FARTHEST}."
                )
        if self.is_alpha and self.feather > self.grow:
            raise UsageError(
                "A feathered edge shows the photo's own pixels, and there are none where it is "
                "transparent.",
                hint=f"Grow the hole as far, by {self.feather} pixels (--grow).",
            )

    @property
    def is_alpha(self) -> bool:
        """Whether it is the photo's own transparency."""
        return self.light is None and self.shape == ALPHA

    @property
    def file(self) -> Path | None:
        """The mask's image, if it is one."""
        if self.shape is None or self.light is not None:
            return None
        if self.shape == ALPHA or self.shape.startswith("#"):
            return None
        return Path(self.shape)

    @property
    def looks_at_photo(self) -> bool:
        """Whether the photo's own pixels tell."""
        return self.shape is not None and self.light is None and self.file is None

    def facts(self) -> dict[str, Any]:
        """What reports say of it."""
        boxes = [str(box) for box in self.boxes]
        facts = {"mask": self.shape, "boxes": boxes, "invert": self.invert}
        return facts | {"grow": self.grow, "feather": self.feather}

    def hole(self, rows: Iterable[Pixels], shape: tuple[int, int, int], name: str) -> Hole:
        """The hole in a photo.

        Args:
            rows: its bands, float32 (n, W, C) in [0, 1]; they are gone through once, if at all.
            shape: (H, W, C) of all of them.
            name: what messages call it.

        Raises:
            UsageError: what is told does not fit the photo.
            ResShiftError: a mask's file can't be read, as `read.read`.
        """
        unknown = np.zeros(shape[:2], dtype=bool) if self.shape is None else None
        if unknown is None:
            unknown = self._told(rows, shape, name)
        for box in self.boxes:
            within = unknown[box.y : box.y + box.height, box.x : box.x + box.width]
            if not within.size:
                raise UsageError(
                    f"The rectangle {box} lies outside of {name}, {shape[1]}x{shape[0]}.",
                    hint="Give pixels from the left, from the top, across and down (--box).",
                )
            within[:] = True
        return Hole.of(
            ~unknown if self.invert else unknown,
            grow=self.grow,
            feather=self.feather,
            opaque=self.is_alpha,
        )

    def check(self, hole: Hole, name: str) -> None:
        """Refuse a hole that is none, or is all of a photo.

        Raises:
            UsageError: it is.
        """
        nothing, everything = not hole.unknown.any(), hole.unknown.all()
        if nothing or everything:
            raise UsageError(
                f"The mask leaves nothing of {name} {'to be filled' if nothing else 'known'}.",
                hint=self._way_out,
            )

    @property
    def _way_out(self) -> str:
        """What helps where nothing is told to be filled, or everything."""
        if self.is_alpha:
            return "What is not opaque is to be filled; --invert is for what is."
        if self.looks_at_photo:
            return (
                "Pixels have to be of exactly that colour, or, with --invert, not; a JPEG rarely "
                "keeps one: give a mask's file (--mask)."
            )
        if self.shape is None:
            return (
                "What is in rectangles (--box), or around them by --grow, is to be filled; with "
                "--invert, all else."
            )
        return "It is white where pixels are unknown; --invert is for those that are black there."

    def _told(self, rows: Iterable[Pixels], shape: tuple[int, int, int], name: str) -> Unknown:
        assert self.shape is not None
        if self.is_alpha:
            if shape[2] % 2:
                raise UsageError(
                    f"{name} has no alpha that could say what is to be filled.",
                    hint="Give a mask's file, or a colour, with --mask.",
                )
            return np.concatenate([band[..., -1] < 1 for band in rows])
        if self.looks_at_photo:
            colour = colour_of(self.shape)
            return np.concatenate([_has_colour(band, colour) for band in rows])
        unknown = self._read.get(self.shape) if self.light is None else self.light
        if unknown is None:
            if Path(self.shape).is_dir():
                raise UsageError(
                    f"The mask {printable(self.shape)} is a folder.",
                    hint="Name the file in it; a folder of masks is for `resshift batch --task "
                    "inpaint --masks`.",
                )
            most = max(MAX_PIXELS, shape[0] * shape[1])
            picture = read.read(Path(self.shape), max_pixels=most)
            unknown = self._read[self.shape] = light(picture.pixels)
        if unknown.shape != shape[:2]:
            tall, wide = unknown.shape
            raise UsageError(
                f"The mask {printable(self.shape)} is {wide}x{tall}, and {name} is "
                f"{shape[1]}x{shape[0]}.",
                hint="A mask has a pixel for every pixel of the photo, seen upright.",
            )
        return unknown.copy()


def colour_of(text: str) -> tuple[int, int, int]:
    """Red, green and blue of `#rrggbb`, 0 to 255.

    Raises:
        UsageError: it is none.
    """
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise UsageError(
            f"'{printable(text)}' is no colour.",
            hint="Write red, green and blue as --mask '#ff00ff'; a file of that name is ./#...",
        )
    red, green, blue = (int(text[at : at + 2], 16) for at in (1, 3, 5))
    return red, green, blue


def light(mask: Pixels) -> Unknown:
    """Where a mask, (H, W, C) as in `Picture`, is half white or more, and not transparent."""
    colours, veil = (mask, 1) if mask.shape[2] % 2 else (mask[..., :-1], mask[..., -1])
    return colours.mean(axis=-1) * veil >= 0.5


def _has_colour(band: Pixels, colour: tuple[int, int, int]) -> Unknown:
    """Where a band's colours, brought to 8 bits, are one colour."""
    shown = levels(band[..., : 1 if band.shape[2] < 3 else 3], 8)
    return np.asarray((shown == np.array(colour, np.uint8)).all(axis=-1))


def _around(unknown: Unknown, reach: int) -> tuple[slice, slice]:
    """The rows and columns that hold all unknown pixels, and so many more on every side."""
    ends = (np.flatnonzero(unknown.any(axis=axis))[[0, -1]] for axis in (1, 0))
    down, across = (slice(max(int(a) - reach, 0), int(b) + reach + 1) for a, b in ends)
    return down, across


def _distance(to: Unknown, most: int) -> Pixels:
    """Distance of every pixel to the nearest one of some, where that is at most so much.

    Along rows first; then the least, over rows above and below, of both together.
    """
    far = np.float32(most + 1)
    across = np.minimum(_distance_across(to), far) ** 2
    nearest = across.copy()
    height = len(to)
    for rows in range(1, min(most, height - 1) + 1):
        away = np.float32(rows**2)
        np.minimum(nearest[rows:], across[:-rows] + away, out=nearest[rows:])
        np.minimum(nearest[:-rows], across[rows:] + away, out=nearest[:-rows])
    return np.sqrt(nearest)


def _distance_across(to: Unknown) -> Pixels:
    """Distance of every pixel to the nearest one of some in its row."""
    width = to.shape[1]
    column = np.arange(width, dtype=np.float32)
    before = np.maximum.accumulate(np.where(to, column, np.float32(-2 * width)), axis=1)
    after = np.where(to, column, np.float32(3 * width))[:, ::-1]
    after = np.minimum.accumulate(after, axis=1)[:, ::-1]
    nearest: Pixels = np.minimum(column - before, after - column)
    return nearest
