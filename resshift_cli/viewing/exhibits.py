"""What a page shows: pictures of one subject, with what there is to say of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from resshift_cli.errors import UsageError, printable
from resshift_cli.imaging import files, metadata
from resshift_cli.imaging.files import Handling, Loaded
from resshift_cli.imaging.picture import Pixels
from resshift_cli.imaging.sources import Source, State

ROUNDING, PROPORTION = 1.0, 0.02
"""A side may differ by so many pixels from what follows from another picture, or by this share."""

KEPT = 1 << 28
"""Bytes of pixels of all pictures of a page that are kept instead of being read again."""


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A picture of a page.

    Attributes:
        title: what it is called there; no other has the same.
        shape: (H, W, C).
        rows: bands of its pixels from the top, float32 (n, W, C), which can be gone through again.
        icc: profile that its colours are to be read in; None is sRGB.
        facts: what else is told of it, by headings.
    """

    title: str
    shape: tuple[int, int, int]
    rows: Iterable[Pixels]
    icc: bytes | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def pixels(self) -> int:
        """How many."""
        return self.shape[0] * self.shape[1]

    def saying(self, facts: Mapping[str, str]) -> Exhibit:
        """The same, with more told of it."""
        return replace(self, facts={**self.facts, **facts})


@dataclass(frozen=True, slots=True)
class Reread:
    """Pixels in bands, out of a file that is read for it and must not have changed."""

    source: Source
    handling: Handling
    state: State | None

    def __iter__(self) -> Iterator[Pixels]:
        """The pixels from the top."""
        self.source.check_unchanged(self.state)
        yield from files.load(self.source, self.handling).rows


def of_files(sources: Sequence[Source], handling: Handling) -> list[Exhibit]:
    """Pictures that are files: read once to know that they can be, and small ones kept.

    Of an animation the first frame is shown.

    Args:
        sources: the files.
        handling: how they are read.

    Raises:
        ResShiftError: as `imaging.files.load`, and as `check`.
    """
    handling = replace(handling, first_frame=True)
    found, room = [], KEPT
    for source, title in zip(sources, titles([each.path for each in sources]), strict=True):
        loaded = files.load(source, handling)
        rows: Iterable[Pixels] = Reread(source, handling, loaded.state)
        if loaded.held_bytes <= room:
            room, rows = room - loaded.held_bytes, loaded.rows
        found.append(Exhibit(title, loaded.shape, rows, loaded.picture.icc, _facts(loaded)))
    check(found)
    return found


def titles(paths: Sequence[Path]) -> list[str]:
    """Names of files, with as much of their folders as tells them apart."""
    most = max(len(path.parts) for path in paths)
    for count in range(1, most + 1):
        named = [printable(Path(*path.parts[-count:])) for path in paths]
        if len(set(named)) == len(named):
            return named
    return [f"{number}: {name}" for number, name in enumerate(named, 1)]  # one of them twice


def check(exhibits: Sequence[Exhibit]) -> None:
    """Make sure that they may be of one subject: their sides are in the same proportion.

    Raises:
        UsageError: they are not.
    """
    largest = max(exhibits, key=lambda exhibit: exhibit.pixels)
    for one in exhibits:
        height, width, _ = one.shape
        due = largest.shape[0] * width / largest.shape[1]
        if abs(due - height) > max(ROUNDING, PROPORTION * height):
            raise UsageError(
                f"{one.title} ({width}x{height}) and {largest.title} ({largest.shape[1]}x"
                f"{largest.shape[0]}) have sides in other proportions.",
                hint="Compare pictures of the same scene and crop.",
            )


def _facts(loaded: Loaded) -> dict[str, str]:
    """What a file says of itself."""
    height, width, channels = loaded.shape
    picture = loaded.picture
    kind = picture.format.replace("MPO", "JPEG")
    size = loaded.state.size if loaded.state else 0
    colours = "gray" if channels < 3 else "RGB"
    alpha = " with transparency" if picture.has_alpha else ""
    facts = {
        "size": f"{width} x {height}",
        "file": f"{kind}, {_bytes(size)}",
        "pixels": f"{colours}{alpha}, {picture.depth} bits",
    }
    if made := metadata.processing(picture.exif):
        facts["made by"] = printable(made)
    if loaded.warnings:
        facts["warnings"] = " ".join(loaded.warnings)
    return facts


def _bytes(count: int) -> str:
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.1f} {unit}"
    return f"{count} B"
