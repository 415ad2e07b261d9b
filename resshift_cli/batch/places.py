"""Where results go, and the files of their ledger with them: a folder here, or one in a store.

Names are paths within a place, with slashes.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path, PurePath
from typing import BinaryIO, Protocol

from resshift_cli.errors import OutputError, ResShiftError, printable
from resshift_cli.imaging import targets
from resshift_cli.imaging.sources import Source
from resshift_cli.imaging.targets import Content
from resshift_cli.system import atomic, held
from resshift_cli.system.digests import digest
from resshift_cli.system.held import HeldFolder
from resshift_cli.system.journals import FolderJournals, Journals
from resshift_cli.system.storage import Remote, is_url

MISSING = -1
"""The size of what has a result's name and is no file."""


class Place(Protocol):
    """What a batch asks of a folder of results; while it is closed, it can be sent elsewhere."""

    @property
    def said(self) -> str:
        """What it is called, without a login."""

    @property
    def root(self) -> str:
        """The same from wherever it is asked for, links resolved."""

    @property
    def journals(self) -> Journals:
        """The files of its ledger."""

    @property
    def is_open(self) -> bool:
        """Whether results can be written."""

    def opened(self) -> AbstractContextManager[Place]:
        """Make it, if need be, and have it open.

        Raises:
            OutputError: it can't be made or opened.
        """

    def check(self) -> None:
        """Make sure that it is still where it was when it was opened.

        Raises:
            OutputError: it is not.
        """

    def shown(self, name: str) -> str:
        """What a file in it is called, for people."""

    def size(self, name: str) -> int | None:
        """Bytes of a file, `MISSING` of what is none; None if there is nothing."""

    def digest(self, name: str) -> str:
        """The SHA-256 of a file.

        Raises:
            OSError, ResShiftError: it is not there, or can't be read.
        """

    def refusal(self, name: str) -> ResShiftError | None:
        """Why nothing of this name is read or written, whatever there is."""

    def room(self) -> int | None:
        """Bytes that can still be written, or None if nobody knows of an end."""

    def replaces(self, name: str, source: Source) -> bool:
        """Whether a result of this name would be written over its input."""

    def save(
        self,
        content: Content,
        name: str,
        *,
        overwrite: bool,
        finished: Callable[[BinaryIO], object],
    ) -> None:
        """Have a result: all of it, or nothing.

        Args:
            content: of the file.
            name: of it; folders are made.
            overwrite: whether to replace what is there.
            finished: called with the whole file, which can be read, before it takes its name.

        Raises:
            OutputError: there is one already, or it can't be written.
        """

    def source(self, name: str) -> Source:
        """A file in it, to be read."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there and can be removed."""

    def remove_leftovers(self, folder: str, is_ours: Callable[[str], bool]) -> None:
        """Remove half-written files from a folder in it.

        Args:
            folder: a path within it, "" for itself.
            is_ours: is asked about the `atomic.start_of` results' names.
        """


class Folder:
    """A `Place` on this machine; no link in it is followed.

    Args:
        path: where; a person has named it, and links on the way to it are followed.
        held: it, held open.
    """

    def __init__(self, path: Path, held: HeldFolder | None = None) -> None:
        self.path = path
        self._held = held
        self._links = Links(path)

    @property
    def said(self) -> str:
        """As `Place` says."""
        return str(self.path)

    @property
    def root(self) -> str:
        """As `Place` says."""
        return os.path.realpath(self.path)

    @property
    def journals(self) -> Journals:
        """As `Place` says."""
        return FolderJournals(self.path)

    @property
    def is_open(self) -> bool:
        """As `Place` says."""
        return self._held is not None

    @contextmanager
    def opened(self) -> Iterator[Folder]:
        """As `Place` says."""
        atomic.make_folder(self.path)
        with ExitStack() as stack:
            try:
                folder = stack.enter_context(held.opened(self.path))
            except OSError as error:
                raise OutputError(
                    f"{printable(self.path)} can't be opened: {atomic.reason(error)}.",
                    hint="Give another folder with -o.",
                ) from error
            yield Folder(self.path, folder)

    def check(self) -> None:
        """As `Place` says."""
        if self._held is not None and not self._held.is_still_there():
            raise OutputError(
                f"{printable(self.path)} was moved or removed while results were written to it.",
                hint="Where it is now, the same command goes on: name it with -o.",
            )

    def shown(self, name: str) -> str:
        """As `Place` says."""
        return printable(self.path / name)

    def size(self, name: str) -> int | None:
        """As `Place` says."""
        found = held.state(os.path.join(self.path, name))
        if found is None:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else MISSING

    def digest(self, name: str) -> str:
        """As `Place` says."""
        return digest(self.path / name)

    def refusal(self, name: str) -> ResShiftError | None:
        """As `Place` says: a link on the way."""
        link = self._links.on_the_way_to(name)
        if link is None:
            return None
        return OutputError(
            f"{printable(link)} is a link, and no results are written through links.",
            hint="Remove it, or give another folder with -o.",
        )

    def room(self) -> int | None:
        """As `Place` says: free on the disk where it is or will be."""
        whole = self.path.absolute()
        return shutil.disk_usage(next(p for p in (whole, *whole.parents) if p.exists())).free

    def replaces(self, name: str, source: Source) -> bool:
        """As `Place` says."""
        target = self.path / name
        return target.exists() and source.is_file_at(target)

    def save(
        self,
        content: Content,
        name: str,
        *,
        overwrite: bool,
        finished: Callable[[BinaryIO], object],
    ) -> None:
        """As `Place` says."""
        assert self._held is not None  # or nobody asks
        targets.save_below(content, self._held, name, overwrite=overwrite, finished=finished)

    def source(self, name: str) -> Source:
        """As `Place` says."""
        return Source(self.path / name)

    def remove(self, name: str) -> None:
        """As `Place` says."""
        atomic.remove(self.path / name)

    def remove_leftovers(self, folder: str, is_ours: Callable[[str], bool]) -> None:
        """As `Place` says."""
        atomic.remove_temporaries_in(self.path / folder, is_ours)


Where = str | Path | Place
"""A place, or its path or URL."""


def at(where: Where) -> Place:
    """The place that a path or a URL means; one that is given already stays as it is."""
    if not isinstance(where, str | Path):
        return where
    if not is_url(str(where)):
        return Folder(Path(where))
    from resshift_cli.batch.stored import StoredPlace

    return StoredPlace(Remote(str(where)))


def is_below(name: str) -> bool:
    """Whether a path that a file says is one within a folder."""
    is_sound = "\0" not in name and not os.path.isabs(name)
    return is_sound and (".." not in name or ".." not in PurePath(name).parts)


class Links:
    """Knows which folders below another one are links.

    Args:
        root: the folder, which may be one itself: a person has named it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.known: dict[str, Path | None] = {"": None}

    def on_the_way_to(self, place: str) -> Path | None:
        """The first link among the folders that a path (with slashes) leads through."""
        folder = place.rpartition("/")[0]
        if folder not in self.known:
            above, path = self.on_the_way_to(folder), self.root / folder
            self.known[folder] = path if above is None and path.is_symlink() else above
        return self.known[folder]
