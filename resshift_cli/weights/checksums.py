"""Which checksum a weight file has, and which it has to have; no file is read twice."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from resshift_cli.errors import OutputError
from resshift_cli.system import cache
from resshift_cli.system.digests import digest
from resshift_cli.weights.entries import (
    BundledSource,
    HubSource,
    LocalSource,
    ReleaseSource,
    Source,
    WeightFile,
)

RECORDED = "digests.json"  # by key: the checksum of a first download, or of a converted file
KNOWN = "hashes.json"  # by path: the file's size and time, and the checksum that it had then


def recorded(key: str) -> str | None:
    """The SHA-256 recorded under a key, `WeightFile.key` or another, or None.

    Raises:
        ModelUnavailableError: the record is damaged.
    """
    sha256 = cache.read_table(RECORDED).get(key)
    return sha256 if isinstance(sha256, str) else None


def record(key: str, sha256: str) -> None:
    """Record a SHA-256 under a key, in place of what was there.

    Raises:
        ModelUnavailableError: the record is damaged.
        OutputError: the cache can't be written.
    """
    with cache.editing(RECORDED) as table:
        table[key] = sha256


def record_first(file: WeightFile, source: Source, sha256: str) -> None:
    """Record the digest of a first download, if nothing else says what it has to be.

    Raises:
        ModelUnavailableError, OutputError: as `record`.
    """
    if isinstance(source, HubSource | ReleaseSource) and not expected(file, source):
        record(file.key, sha256)


def forget(key: str) -> None:
    """Let the next download be a first one.

    Raises:
        ModelUnavailableError, OutputError: as `record`.
    """
    with cache.editing(RECORDED) as table:
        table.pop(key, None)


def expected(file: WeightFile, source: Source) -> str:
    """The digest that a file has to have, or "" if any will do.

    Raises:
        ModelUnavailableError: the record is damaged.
    """
    if file.sha256 or isinstance(source, BundledSource | LocalSource):
        return file.sha256
    return recorded(file.key) or ""


def if_right(path: Path, file: WeightFile, source: Source) -> str:
    """The digest of a file that is here and whole, or "" if it is not.

    Raises:
        ModelUnavailableError: a record is damaged.
    """
    try:
        sha256 = _of(path)
    except OSError:  # there is none, or it can't be read
        return ""
    return sha256 if expected(file, source) in ("", sha256) else ""


def remember(path: Path, sha256: str) -> None:
    """Note the digest of a file for as long as its size and time stay what they are.

    Raises:
        ModelUnavailableError, OutputError: as `record`.
    """
    with cache.editing(KNOWN) as table:
        for gone in [known for known in table if not os.path.exists(known)]:
            del table[gone]
        table[str(path)] = [*_stamp(path), sha256]


def _of(path: Path) -> str:
    """The digest of a file, from memory if it has the same size and time as then."""
    known = cache.read_table(KNOWN).get(str(path))
    if isinstance(known, list) and known[:-1] == _stamp(path):
        return str(known[-1])
    sha256 = digest(path)
    with contextlib.suppress(OutputError):  # then it is read again next time
        remember(path, sha256)
    return sha256


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
