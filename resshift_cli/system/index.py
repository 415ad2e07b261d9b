"""Texts by name, in a temporary database: memory does not grow with how many there are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, MutableMapping
from threading import Lock
from typing import Any

CACHE = 64 << 10  # KiB of the database that are kept in memory; what is beyond goes to a file
_BLOCK = 1000  # names that are gone through, or entered, at a time


class Index(MutableMapping[str, str]):
    """A mapping that lasts as long as it is used, from several threads if need be.

    Names come in the order of their characters' numbers, as Python sorts text, and may be added
    and removed meanwhile.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._new: dict[bytes, str] = {}  # some at a time are entered sooner
        # A database without a name is a temporary file, made when it outgrows the cache.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for how in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE}"):
            self._database.execute(f"PRAGMA {how}")
        self._database.execute("CREATE TABLE t (name BLOB PRIMARY KEY, text TEXT) WITHOUT ROWID")

    def __del__(self) -> None:
        """Let go of the file."""
        self._database.close()

    def __getitem__(self, name: str) -> str:
        """The text of a name; KeyError if there is none."""
        key = _key(name)
        text = self._new.get(key)
        if text is not None:
            return text
        with self._lock:
            row = self._database.execute("SELECT text FROM t WHERE name = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(name)
        return str(row[0])

    def __setitem__(self, name: str, text: str) -> None:
        """Have a text for a name."""
        with self._lock:
            self._new[_key(name)] = text
            if len(self._new) >= _BLOCK:
                self._enter()

    def __delitem__(self, name: str) -> None:
        """Have none for a name; KeyError if there was none."""
        with self._lock:
            self._enter()
            found = self._database.execute("DELETE FROM t WHERE name = ?", (_key(name),))
        if not found.rowcount:
            raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        """All names."""
        for name, _ in self._after():
            yield name.decode("utf-8", "surrogatepass")

    def texts(self) -> Iterator[str]:
        """All texts, in the order of their names."""
        for _, text in self._after():
            yield text

    def __len__(self) -> int:
        """How many there are."""
        return int(self._rows("SELECT COUNT(*) FROM t")[0][0])

    def _after(self) -> Iterator[tuple[bytes, str]]:
        """All names and texts, some at a time."""
        first, query = b"", "SELECT name, text FROM t WHERE name >= ? ORDER BY name LIMIT ?"
        while found := self._rows(query, first, _BLOCK):
            yield from found
            first = found[-1][0] + b"\0"  # no name comes between

    def _enter(self) -> None:
        """Have what is new in the database; the lock is held."""
        if self._new:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR REPLACE INTO t VALUES (?, ?)", self._new.items())
            self._database.execute("COMMIT")
            self._new.clear()

    def _rows(self, query: str, *values: bytes | int) -> list[Any]:
        with self._lock:
            self._enter()
            return self._database.execute(query, values).fetchall()


def _key(name: str) -> bytes:
    """A name as bytes: SQLite takes no text with the surrogates that stand for bytes of names."""
    return name.encode("utf-8", "surrogatepass")
