"""Which images the networks are given at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from resshift_cli.batch.resume import Job
from resshift_cli.errors import ResShiftError

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs that are computed at a time.

    Attributes:
        jobs: one, or small images that are padded to one size.
        count: how many images the networks are given, whatever became of some of them: a result
            depends on it, by rounding.
        size: what they are padded to; None of a job alone.
        bands: rows of the image of a job alone, where it may be made of several pieces.
        piece: a band, where that is all that is done; the job's result is a piece then.
        pieces: what has been made, where they are only put together.
    """

    jobs: list[Job]
    count: int = 1
    size: Size | None = None
    bands: Sequence[range] = ()
    piece: range | None = None
    pieces: Sequence[Piece] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """What became of a band of an image.

    Attributes:
        name: of its file, among the results.
        seen: what the image's file was like, as all who make its pieces have to see it.
        error: why it could not be made.
    """

    name: str
    seen: tuple[object, ...] = ()
    error: ResShiftError | None = None


@dataclass(frozen=True, slots=True)
class Unit:
    """Names of images that are computed at a time, as a `Group` has it."""

    names: list[str]
    count: int = 1
    size: Size | None = None


def units(
    names: Sequence[str], sizes: Sequence[Size | None], at_once: Callable[[Size], int]
) -> list[Unit]:
    """Put images of one size together, by nothing but their names and sizes.

    Images of a size make up whole units, in the order of their names; what is left over is done one
    by one. A unit of which some are finished stays one.

    Args:
        names: of a page.
        sizes: what each is padded to, or None if it can't be in a group.
        at_once: how many images of a size are best computed at a time.
    """
    alike: dict[Size, list[str]] = {}
    for name, size in zip(names, sizes, strict=True):
        if size is not None:
            alike.setdefault(size, []).append(name)
    found: dict[str, Unit] = {}
    for size, some in alike.items():
        count = at_once(size)
        for first in range(0, len(some) - count + 1, count) if count > 1 else ():
            unit = Unit(some[first : first + count], count, size)
            found |= dict.fromkeys(unit.names, unit)
    every = (found.get(name) or Unit([name]) for name in names)
    return list({id(unit): unit for unit in every}.values())
