"""Texts by name, in a temporary database: memory does not grow with how many there are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, MutableMapping
from threading import Lock

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
        found = self._rows("SELECT text FROM t WHERE name = ?", key)
        if not found:
            raise KeyError(name)
        return str(found[0][0])

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
        last = b""
        query = "SELECT name FROM t WHERE name > ? ORDER BY name LIMIT ?"
        if "" in self:
            yield ""
        while found := self._rows(query, last, _BLOCK):
            for (last,) in found:
                yield last.decode("utf-8", "surrogatepass")

    def __len__(self) -> int:
        """How many there are."""
        return int(self._rows("SELECT COUNT(*) FROM t")[0][0])

    def _enter(self) -> None:
        """Have what is new in the database; the lock is held."""
        if self._new:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR REPLACE INTO t VALUES (?, ?)", self._new.items())
            self._database.execute("COMMIT")
            self._new.clear()

    def _rows(self, query: str, *values: bytes | str | int) -> list[tuple[bytes, ...]]:
        with self._lock:
            self._enter()
            return self._database.execute(query, values).fetchall()


def _key(name: str) -> bytes:
    """A name as bytes: SQLite takes no text with the surrogates that stand for bytes of names."""
    return name.encode("utf-8", "surrogatepass")
