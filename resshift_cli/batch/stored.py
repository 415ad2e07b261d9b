"""Results and their ledger in a store, where files are put whole and none is ever half there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from resshift_cli.errors import InputMissingError, OutputError, ResShiftError, printable
from resshift_cli.imaging import targets
from resshift_cli.imaging.sources import Source
from resshift_cli.imaging.targets import Content
from resshift_cli.system import atomic, listing
from resshift_cli.system.index import Index
from resshift_cli.system.segments import StoreJournals
from resshift_cli.system.storage import Remote

_LONGEST = 1024  # bytes of a name that S3 takes, folders included; the others take as many


class StoredPlace:
    """A `Place` in a store.

    What is there is listed once, when it is first asked for, and remembered in a temporary file.

    Args:
        folder: where.
        is_open: whether results can be written.
    """

    def __init__(self, folder: Remote, *, is_open: bool = False) -> None:
        self.folder = Remote(folder.url.rstrip("/"))
        self._is_open = is_open
        self._sizes: Index | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """Where it is, closed."""
        return StoredPlace, (self.folder,)

    @property
    def said(self) -> str:
        """As `Place` says."""
        return self.folder.shown

    @property
    def root(self) -> str:
        """As `Place` says."""
        return self.folder.shown

    @property
    def journals(self) -> StoreJournals:
        """As `Place` says."""
        return StoreJournals(self.folder)

    @property
    def is_open(self) -> bool:
        """As `Place` says."""
        return self._is_open

    @contextmanager
    def opened(self) -> Iterator[StoredPlace]:
        """As `Place` says; stores have no folders that could be made."""
        self.folder.check_writable()
        try:
            next(listing.entries(self.folder), None)
        except InputMissingError as error:
            raise OutputError(str(error), hint=error.hint) from error
        yield StoredPlace(self.folder, is_open=True)

    def check(self) -> None:
        """As `Place` says: what is put is put where it was said."""

    def shown(self, name: str) -> str:
        """As `Place` says."""
        return self.folder.below(name).shown

    def size(self, name: str) -> int | None:
        """As `Place` says."""
        if self._sizes is None:
            self._sizes = self._listed()
        size = self._sizes.get(name)
        return None if size is None else int(size)

    def digest(self, name: str) -> str:
        """As `Place` says."""
        return self.folder.below(name).digest()

    def refusal(self, name: str) -> ResShiftError | None:
        """As `Place` says: what can't be a name in a store."""
        try:
            is_too_long = len(name.encode()) > _LONGEST
        except UnicodeEncodeError:
            return _no_key(name, "is no text in UTF-8, as names in stores are")
        if "?versionId=" in name:  # which the package for S3 takes for no part of a name
            return _no_key(name, "names a version of another file")
        return _no_key(name, "is too long for a name in a store") if is_too_long else None

    def room(self) -> int | None:
        """As `Place` says."""
        return None

    def replaces(self, name: str, source: Source) -> bool:
        """As `Place` says."""
        return source.remote is not None and source.remote.shown == self.shown(name)

    def save(
        self,
        content: Content,
        name: str,
        *,
        overwrite: bool,
        finished: Callable[[BinaryIO], object],
    ) -> None:
        """As `Place` says."""
        file = self.folder.below(name)
        size = targets.send(content, file, overwrite=overwrite, finished=finished)
        if self._sizes is not None:
            self._sizes[name] = str(size)

    def source(self, name: str) -> Source:
        """As `Place` says."""
        return Source.at(self.folder.below(name))

    def remove(self, name: str) -> None:
        """As `Place` says."""
        self.folder.below(name).remove()

    def remove_leftovers(self, folder: str, is_ours: Callable[[str], bool]) -> None:
        """As `Place` says; parts of what was never completed are not to be seen."""
        inside = self.folder.below(folder) if folder else self.folder
        with suppress(ResShiftError):  # whoever writes there will tell
            for found in listing.entries(inside, "."):
                start = atomic.start_in(found.name)
                if found.known is not None and start and is_ours(start):
                    inside.below(found.name).remove()

    def _listed(self) -> Index:
        """Sizes of all files, by name."""
        sizes, ahead = Index(), [""]
        while ahead:
            place = ahead.pop()
            folder = self.folder.below(place) if place else self.folder
            for found in listing.entries(folder):
                within = f"{place}/{found.name}" if place else found.name
                if found.known is not None:
                    sizes[within] = str(found.known.size)
                elif found.name:
                    ahead.append(within)
        return sizes


def _no_key(name: str, why: str) -> OutputError:
    return OutputError(f"'{printable(name)}' {why}.", hint="Call the image otherwise.")
