"""Journals in stores, where nothing can be appended: as pieces, each of which is put anew to grow.

A piece has one writer, whose own its name is, so that whatever becomes of a lock nobody writes over
anybody's lines. What was read is whole, as stores show files whole or not at all.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import tempfile
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resshift_cli.system import listing
from resshift_cli.system.journal import PACKED, not_read, pack, texts
from resshift_cli.system.leases import leased
from resshift_cli.system.storage import Remote

LINES = 512  # of a piece; it is put as often, 90 bytes a line
SEGMENT = r"\.\d{8}T\d{6}-[0-9a-f]{8}\.\d{6}"
"""What is in a piece's name before its extension: when its writer began, who, and which one."""

_PIECE = re.compile(rf"{SEGMENT}\.jsonl")
_HINT = "Check that this machine may write there, then run the same command again: it goes on."
_FAST = 1  # level of compression
_MOST = 1 << 40  # bytes of a journal


class StoreJournals:
    """`Journals` in a store.

    Args:
        folder: where.
    """

    def __init__(self, folder: Remote) -> None:
        self.folder = folder

    def names(self, start: str) -> list[str]:
        """As `Journals` says."""
        return [entry.name for entry in listing.entries(self.folder, start) if entry.known]

    def grown(self, name: str) -> list[str]:
        """As `Journals` says."""
        stem, _, suffix = name.partition(".jsonl")
        piece = re.compile(f"{re.escape(stem)}{SEGMENT}{re.escape('.jsonl' + suffix + PACKED)}")
        return sorted(filter(piece.fullmatch, self.names(f"{stem}.")))

    def bytes(self, name: str) -> int:
        """As `Journals` says."""
        found = self.folder.below(name).known()
        return 0 if found is None else found.size

    def texts(self, name: str) -> Iterator[str]:
        """As `Journals` says; a piece that somebody is at work on is read as it was last put."""
        file = self.folder.below(name)
        with tempfile.TemporaryFile(prefix="resshift-") as spool:
            if _PIECE.search(name):
                spool.write(file.read() or b"")
            elif file.known() is not None:
                file.fetch(spool, _MOST)
            if not spool.tell():
                return
            spool.seek(0)
            try:
                yield from texts(spool, name)
            except (OSError, EOFError, zlib.error) as error:
                raise not_read(file.shown, error, _HINT) from error

    def growing(self, name: str) -> Segments:
        """As `Journals` says."""
        return Segments(self.folder, name)

    def pack(self, name: str, lines: Iterable[str]) -> None:
        """As `Journals` says."""
        with tempfile.TemporaryDirectory(prefix="resshift-") as folder:
            spool = Path(folder, "packed.gz")
            with spool.open("wb") as file:
                pack(lines, file)
            self.folder.below(name).send(spool, overwrite=True)

    def remove(self, name: str) -> None:
        """As `Journals` says."""
        self.folder.below(name).remove()

    def lock(
        self, name: str, *, busy: str, hint: str, patience: float = 0
    ) -> AbstractContextManager[object]:
        """As `Journals` says, and `leases`."""
        return leased(self.folder.below(name), busy=busy, hint=hint, patience=patience)

    def release(self, name: str) -> None:
        """As `Journals` says."""
        self.folder.below(name).remove()


class Segments:
    """A journal that grows in a store.

    Args:
        folder: where.
        name: of the journal, on which those of its pieces are modelled.
    """

    def __init__(self, folder: Remote, name: str) -> None:
        self._folder, self._stem = folder, name.partition(".jsonl")[0]
        self._writer = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        self._number = 1
        self._lines: list[str] = []
        self._one = threading.Lock()

    def append(self, values: Mapping[str, Any]) -> None:
        """As `Growing` says: when this returns the line is in the store."""
        with self._one:
            line, piece = json.dumps(values), io.BytesIO()
            pack([*self._lines, line], piece, _FAST)
            name = f"{self._stem}.{self._writer}.{self._number:06}.jsonl{PACKED}"
            self._folder.below(name).write(piece.getvalue())
            self._lines.append(line)
            if len(self._lines) >= LINES:
                self._number += 1
                self._lines = []
