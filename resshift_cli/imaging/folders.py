"""The images of a folder, and of the folders within it."""

from __future__ import annotations

import fnmatch
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from resshift_cli.errors import InputMissingError, printable
from resshift_cli.imaging.formats import FORMATS

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


ALL_IMAGES = Selection()


@dataclass(slots=True)
class Found:
    """What is in a folder.

    Attributes:
        images: paths within the folder, with slashes.
        unreadable: why folders can't be entered, by their paths within the folder.
        others: how many files were left alone because of their names, by extension; and what
            else was left alone, see `own.leave_out`.
    """

    images: list[str] = field(default_factory=list)
    unreadable: dict[str, InputMissingError] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)


def find(folder: Path, aside: Path | None = None, selection: Selection = ALL_IMAGES) -> Found:
    """Find the images of a folder, and then of those within it, each sorted by name.

    A linked folder is entered if it lies elsewhere, and every folder only once.

    Args:
        folder: where to look.
        aside: a folder that is left out, such as that of the results.
        selection: which files are taken.
    """
    found = Found()
    root = os.path.realpath(folder)
    entered = set() if aside is None else {os.path.realpath(aside)}
    ahead = [(str(folder), "")]
    while ahead:
        path, place = ahead.pop()
        real = os.path.realpath(path)
        if real in entered:
            continue
        entered.add(real)
        try:
            entries = list(_entries(path, place, selection))
        except OSError as error:
            found.unreadable[place or "."] = _closed(path, error)
            continue
        inner = []
        for within, entry in entries:
            if _is_folder(entry):
                if not (entry.is_symlink() and _is_within(entry.path, root)):
                    inner.append((entry.path, within))
            elif selection.takes(within):
                found.images.append(within)
            else:
                found.others[_extension(within)] += 1
        ahead += reversed(inner)
    return found


def _entries(path: str, place: str, selection: Selection) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """What is in one folder and not left out, by name, with its path within the outermost one."""
    with os.scandir(path) as opened:
        entries = sorted(opened, key=lambda entry: entry.name)
    for entry in entries:
        within = f"{place}/{entry.name}" if place else entry.name
        if not selection.leaves_out(within):
            yield within, entry


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
    place = place.lower()
    name = place.rpartition("/")[2]
    return any(
        fnmatch.fnmatchcase(text, pattern.lower()) for pattern in patterns for text in (place, name)
    )
