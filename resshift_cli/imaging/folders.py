"""The images of a folder, and of the folders within it."""

from __future__ import annotations

import fnmatch
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from resshift_cli.errors import InputMissingError, printable
from resshift_cli.imaging.formats import FORMATS
from resshift_cli.imaging.sources import Source, State
from resshift_cli.system.sorting import in_order

EXTENSIONS = frozenset(FORMATS) | {".dds"}
"""What is taken for an image unless a `Selection` includes something else."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which files of a folder are taken.

    Patterns are compared with the name and with the path within the folder, in small letters.

    Attributes:
        include: patterns of what to take in place of `EXTENSIONS`.
        exclude: patterns of files to leave out, and of folders.
        hidden: whether to take what begins with a dot.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    hidden: bool = False

    def leaves_out(self, place: str) -> bool:
        """Whether a file or folder is not even looked at; `place` is its path, with slashes."""
        name = place.rpartition("/")[2]
        return (name.startswith(".") and not self.hidden) or _matches(place, self.exclude)

    def takes(self, place: str) -> bool:
        """Whether a file is an input."""
        if self.include:
            return _matches(place, self.include)
        return _extension(place).lower() in EXTENSIONS

    def has(self, folder: Path, place: str) -> bool:
        """Whether a path within a folder is one of its inputs."""
        return self.allows(place) and os.path.lexists(folder / place)

    def allows(self, place: str) -> bool:
        """Whether it would be one if it were there."""
        above = place.split("/")[:-1]
        ways = ("/".join(above[:end]) for end in range(1, len(above) + 1))
        return self.takes(place) and not any(map(self.leaves_out, (place, *ways)))


ALL_IMAGES = Selection()


@dataclass(slots=True)
class Beside:
    """What is in a folder beside images.

    Attributes:
        unreadable: why folders can't be entered, by their paths within the folder.
        others: how many files were left alone because of their names, by extension; and what
            else was left alone, see `own.KIND`.
    """

    unreadable: dict[str, InputMissingError] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Found(Beside):
    """What is in a folder.

    Attributes:
        images: paths within the folder, with slashes.
    """

    images: list[str] = field(default_factory=list)


def find(folder: Path, aside: Path | None = None, selection: Selection = ALL_IMAGES) -> Found:
    """Find the images of a folder, in the order of `stream`.

    Args:
        folder: as `stream`.
        aside: likewise.
        selection: likewise.
    """
    found = Found()
    found.images += stream(folder, aside, selection, found)
    return found


def stream(
    folder: Path,
    aside: Path | None = None,
    selection: Selection = ALL_IMAGES,
    beside: Beside | None = None,
) -> Iterator[str]:
    """Go through the images of a folder, and then of those within it, each sorted by name.

    A linked folder is entered if it lies elsewhere, and every folder only once. Memory grows with
    the number of folders, not of files.

    Args:
        folder: where to look.
        aside: a folder that is left out, such as that of the results.
        selection: which files are taken.
        beside: is told what there is beside them.

    Yields:
        Paths within the folder, with slashes.
    """
    root = os.path.realpath(folder)
    entered = set() if aside is None else {os.path.realpath(aside)}

    def look(place: str) -> Iterator[str]:
        path = os.path.join(folder, place) if place else str(folder)
        real = os.path.realpath(path)
        if real in entered:
            return iter(())
        entered.add(real)
        try:
            return in_order(_entries(path, place, selection, root))
        except OSError as error:
            raise _closed(path, error) from error

    for name, _ in walk(look, selection, beside or Beside()):
        yield name


def walk(
    look: Callable[[str], Iterator[str]], selection: Selection, beside: Beside
) -> Iterator[tuple[str, str]]:
    """Go through the images of a folder, and then of those within it.

    Args:
        look: gives what `entry` makes of all that is in a folder and not left out, in order.
        selection: which files are taken.
        beside: is told what there is beside them, and of folders that `look` can't look into.

    Yields:
        Paths within the folder, with slashes, and what `entry` was told about them.
    """
    ahead = [""]
    while ahead:
        place = ahead.pop()
        try:
            entries = look(place)
        except InputMissingError as error:
            beside.unreadable[place or "."] = error
            continue
        inner = []
        for name, kind, about in (each.split("\0") for each in entries):
            within = f"{place}/{name}" if place else name
            if kind == _FOLDER:
                inner.append(within)
            elif selection.takes(within):
                yield within, about
            else:
                beside.others[_extension(within)] += 1
        ahead += reversed(inner)


def entry(name: str, *, is_folder: bool, about: str = "") -> str:
    """Something in a folder, as one text; these sort as the names do, none of which has a zero."""
    return f"{name}\0{_FOLDER if is_folder else _FILE}\0{about}"


class Inputs(Protocol):
    """The images of a folder, here or in a store; their names are paths in it, with slashes."""

    @property
    def said(self) -> str:
        """What the folder is called, without a login."""

    @property
    def root(self) -> str:
        """The same from wherever it is asked for, links resolved."""

    def images(self, beside: Beside | None = None) -> Iterator[str]:
        """The images of the folder, and then of those within it, each sorted by name.

        Args:
            beside: is told what there is beside them.
        """

    def has(self, name: str) -> bool:
        """Whether there is an image of that name."""

    def source(self, name: str) -> Source:
        """What an image is read from."""

    def header(self, name: str) -> Source:
        """The same where only its header is to be read; to be used and let go of."""

    def state(self, name: str) -> State | None:
        """What the file of an image is like, as `Source.state` says."""

    def ahead(self, names: Sequence[str]) -> None:
        """Hear whose headers are about to be read, so that they can be asked for at a time.

        Raises:
            InputMissingError: the place does not answer.
        """


@dataclass(frozen=True, slots=True)
class Tree:
    """`Inputs` in a folder of this machine: arguments of `stream`."""

    folder: Path
    aside: Path | None = None
    selection: Selection = ALL_IMAGES

    @property
    def said(self) -> str:
        """As `Inputs` says."""
        return str(self.folder)

    @property
    def root(self) -> str:
        """As `Inputs` says."""
        return os.path.realpath(self.folder)

    def images(self, beside: Beside | None = None) -> Iterator[str]:
        """As `Inputs` and `stream` say."""
        return stream(self.folder, self.aside, self.selection, beside)

    def has(self, name: str) -> bool:
        """As `Inputs` says."""
        return self.selection.has(self.folder, name)

    def source(self, name: str) -> Source:
        """As `Inputs` says."""
        return Source(self.folder / name)

    def state(self, name: str) -> State | None:
        """As `Inputs` says."""
        return State.at(os.path.join(self.folder, name))

    def header(self, name: str) -> Source:
        """As `Inputs` says."""
        return self.source(name)

    def ahead(self, names: Sequence[str]) -> None:
        """Nothing is gained by it here."""


_FILE, _FOLDER = "-d"


def _entries(path: str, place: str, selection: Selection, root: str) -> Iterator[str]:
    """What is in one folder and not left out; no linked folder of those that are gone through."""
    with os.scandir(path) as opened:
        for each in opened:
            if selection.leaves_out(f"{place}/{each.name}" if place else each.name):
                continue
            is_folder = _is_folder(each)
            if not (is_folder and each.is_symlink() and _is_within(each.path, root)):
                yield entry(each.name, is_folder=is_folder)


def _closed(path: str, error: OSError) -> InputMissingError:
    return InputMissingError(
        f"The folder {printable(path)} can't be read: {error.strerror or printable(error)}.",
        hint="Check whether you may read it (`ls -ld` shows that).",
    )


def _is_within(path: str, root: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(root)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: reading it will tell
        return False


def _extension(place: str) -> str:
    return os.path.splitext(place.rpartition("/")[2])[1]


def _matches(place: str, patterns: Sequence[str]) -> bool:
    if not patterns:
        return False
    place = place.lower()
    name = place.rpartition("/")[2]
    return any(
        fnmatch.fnmatchcase(text, pattern.lower()) for pattern in patterns for text in (place, name)
    )
