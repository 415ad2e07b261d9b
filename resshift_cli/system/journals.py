"""Journals and locks by their names, wherever they lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from resshift_cli.system import atomic, locks
from resshift_cli.system.journal import Journal

_HINT = "Make room, then run the same command again: it goes on from here."


class Growing(Protocol):
    """A journal that one process adds lines to."""

    def append(self, values: Mapping[str, Any]) -> None:
        """Add a line; when this returns nothing that happens here can lose it.

        Raises:
            OutputError: it can't be written.
        """


class Journals(Protocol):
    """Files of JSON lines, and of locks, that are in one place."""

    def names(self, start: str) -> list[str]:
        """What is there whose name begins so; nothing where that can't be told."""

    def grown(self, name: str) -> list[str]:
        """The journals that were made of one by `growing`."""

    def bytes(self, name: str) -> int:
        """How large a journal is; 0 if it is gone."""

    def texts(self, name: str) -> Iterator[str]:
        """The lines of a journal, whatever they are; none where it is not there.

        Raises:
            OutputError: it can't be read, or is not ours.
        """

    def growing(self, name: str) -> Growing:
        """A journal to add lines to, which is begun by the first one."""

    def pack(self, name: str, lines: Iterable[str]) -> None:
        """Have these lines, compressed, in place of those of a journal.

        Raises:
            OutputError: it can't be written; what was there stays as it was.
        """

    def remove(self, name: str) -> None:
        """Remove a journal, if it is there and can be removed."""

    def lock(
        self, name: str, *, busy: str, hint: str, patience: float = 0
    ) -> AbstractContextManager[object]:
        """Hold a lock that nobody else has; released on leaving.

        Args:
            name: of a file that stands for it.
            busy: what is said if another process has it.
            hint: what helps if it can't be had.
            patience: seconds in which the other may let go of it.

        Raises:
            OutputError: another process has it, or it can't be had.
        """

    def release(self, name: str) -> None:
        """Let go of the lock of a process that is known to have ended, if it is still held."""


class FolderJournals:
    """`Journals` in a folder of this machine.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self, start: str) -> list[str]:
        """As `Journals` says."""
        try:
            return [path.name for path in self.path.iterdir() if path.name.startswith(start)]
        except OSError:  # whoever opens one will tell
            return []

    def grown(self, name: str) -> list[str]:
        """As `Journals` says: itself."""
        return [name]

    def bytes(self, name: str) -> int:
        """As `Journals` says."""
        try:
            return (self.path / name).stat().st_size
        except OSError:
            return 0

    def texts(self, name: str) -> Iterator[str]:
        """As `Journals` says."""
        return Journal(self.path / name, hint=_HINT).texts()

    def growing(self, name: str) -> Growing:
        """As `Journals` says."""
        return Journal(self.path / name, hint=_HINT)

    def pack(self, name: str, lines: Iterable[str]) -> None:
        """As `Journals` says."""
        Journal(self.path / name, hint=_HINT).pack(lines)

    def remove(self, name: str) -> None:
        """As `Journals` says."""
        atomic.remove(self.path / name)

    def lock(
        self, name: str, *, busy: str, hint: str, patience: float = 0
    ) -> AbstractContextManager[object]:
        """As `Journals` says."""
        return locks.at_once(self.path / name, busy=busy, hint=hint, patience=patience)

    def release(self, name: str) -> None:
        """As `Journals` says: the system does that by itself."""
