"""Files of JSON lines that grow by one line at a time, and outlive a loss of power.

One that does not grow any more can be compressed.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from resshift_cli.errors import OutputError, printable
from resshift_cli.system import atomic, held

PACKED = ".gz"
"""What a journal's name ends with if it is compressed; nothing is appended to such."""

_LONGEST = 1 << 20  # bytes of a line
_LEVEL = 6  # of compression: a ledger becomes a tenth of its size, in a few microseconds a line


class Journal:
    """A file of JSON lines; an absent one is begun by the first line.

    Args:
        path: the file.
        hint: what helps where it can't be read or written.
    """

    def __init__(self, path: Path, *, hint: str) -> None:
        self.path = path
        self.hint = hint

    def lines(self) -> Iterator[dict[str, Any]]:
        """All whole lines that are objects; what is torn or of another kind is passed over.

        Raises:
            OutputError: as `texts`.
        """
        yield from filter(None, map(parsed, self.texts()))

    def texts(self) -> Iterator[str]:
        """All lines, whatever they are; see `parsed`.

        Raises:
            OutputError: it is there but can't be read, or is not ours: see `held.open_own`.
        """
        try:
            with held.open_own(self.path, write=False) as file:
                yield from texts(file, self.path.name)
        except FileNotFoundError:
            return
        except (OSError, EOFError, zlib.error) as error:
            raise not_read(printable(self.path), error, self.hint) from error

    def append(self, values: Mapping[str, Any]) -> None:
        """Add a line; when this returns it is on the disk.

        Raises:
            OutputError: it can't be written, or is not ours.
        """
        line = f"{json.dumps(values)}\n".encode("ascii")
        new = not self.path.exists()
        try:
            with held.open_own(self.path, write=True) as file:
                # After a line that was torn when the power went, begin a new one.
                file.write(line if self._ends_whole(file) else b"\n" + line)
                file.flush()
                os.fsync(file.fileno())
            if new:
                atomic.sync_folder(self.path.parent)
        except OSError as error:
            raise OutputError(
                f"{printable(self.path)} can't be written: {atomic.reason(error)}.", hint=self.hint
            ) from error

    def pack(self, lines: Iterable[str]) -> None:
        """Have these lines, compressed, in place of those that are there.

        Raises:
            OutputError: it can't be written; what was there stays as it was.
        """
        with atomic.replacing(self.path) as file:
            pack(lines, file)

    @staticmethod
    def _ends_whole(file: Any) -> bool:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return bool(file.read(1) == b"\n")


def pack(lines: Iterable[str], file: IO[bytes], level: int = _LEVEL) -> None:
    """Write compressed lines to a file; the same lines give the same bytes, whenever."""
    with gzip.GzipFile("", "wb", level, file, mtime=0) as packed:
        for line in lines:
            packed.write(f"{line}\n".encode("ascii"))


def parsed(text: str) -> dict[str, Any]:
    """A line that is an object; one that is torn, or of another kind, has nothing in it."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def texts(file: IO[bytes], name: str) -> Iterator[str]:
    """The lines of a journal.

    Args:
        file: the journal, open.
        name: what it is called, which says whether it is compressed.

    Raises:
        OSError, EOFError, zlib.error: it can't be read, or is damaged.
    """
    if not name.endswith(PACKED):
        yield from _texts(file)
        return
    with gzip.open(file) as unpacked:
        yield from _texts(unpacked)


def not_read(shown: str, error: Exception, hint: str) -> OutputError:
    """What is said of a journal that can't be read."""
    is_told = isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile)
    why = atomic.reason(error) if is_told and isinstance(error, OSError) else "it is damaged"
    return OutputError(f"{shown} can't be read: {why}.", hint=hint)


def _texts(file: IO[bytes] | gzip.GzipFile) -> Iterator[str]:
    """The lines of a file that are text; one that is too long is taken for several."""
    while line := file.readline(_LONGEST):
        with suppress(UnicodeDecodeError):
            yield line.rstrip(b"\n").decode("utf-8", "surrogatepass")
