"""What is in a folder that is not on this machine, and how many of its files begin.

Where the store lists by pages (S3), one of them is in memory at a time; of other stores it is all
that a folder has by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from resshift_cli.errors import InputMissingError, UsageError
from resshift_cli.system.patience import patiently
from resshift_cli.system.storage import HEAD, WEB, Remote, told
from resshift_cli.system.versions import Known, known

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_PAGED = ("s3", "s3a")


class Entry(NamedTuple):
    """Something in a folder.

    Attributes:
        name: what it is called there; anything, as stores take it.
        known: of a file; None of a folder.
    """

    name: str
    known: Known | None


def entries(folder: Remote, start: str = "") -> Iterator[Entry]:
    """What is in a folder, in no order; one that is not there has nothing in it.

    Args:
        folder: where to look.
        start: what names begin with that are of interest.

    Raises:
        InputMissingError: there is no such store, or it can't be told.
        UsageError: there is no way to such places here.
    """
    if folder.scheme in WEB:
        raise UsageError(
            f"What is in {folder.shown} can't be told: web servers do not say.",
            hint="Name its images to `resshift upscale`, which takes URLs.",
        )
    with told(folder, "listed", InputMissingError):
        system, path = folder.system()
        if folder.scheme in _PAGED:
            yield from _paged(system, path.rstrip("/"), start)
        else:
            yield from _at_once(system, path.rstrip("/"), start)


def _paged(system: AbstractFileSystem, path: str, start: str) -> Iterator[Entry]:
    bucket, _, within = path.partition("/")
    prefix = f"{within}/" if within else ""
    asked: dict[str, str] = {"Bucket": bucket, "Prefix": prefix + start, "Delimiter": "/"}
    more = True
    while more:
        page: dict[str, Any] = patiently(lambda: system.call_s3("list_objects_v2", **asked))
        for found in page.get("CommonPrefixes", ()):
            yield Entry(found["Prefix"][len(prefix) : -1], None)
        for found in page.get("Contents", ()):
            if found["Key"] != prefix:  # of a folder that was made by hand
                yield Entry(found["Key"][len(prefix) :], known({**found, "size": found["Size"]}))
        more = bool(page.get("IsTruncated"))
        asked["ContinuationToken"] = page.get("NextContinuationToken", "")


def _at_once(system: AbstractFileSystem, path: str, start: str) -> Iterator[Entry]:
    try:
        there = patiently(lambda: system.ls(path, detail=True))
    except FileNotFoundError:
        return
    for found in there:
        name = str(found["name"]).rstrip("/")[len(path) :].removeprefix("/")
        if name and name.startswith(start) and found["type"] in ("file", "directory"):
            yield Entry(name, known(found) if found["type"] == "file" else None)


def heads(files: Sequence[Remote], sizes: Sequence[int]) -> list[bytes]:
    """The first bytes of files of one store, many of them asked for at a time.

    Args:
        files: them.
        sizes: bytes that each has.

    Raises:
        InputMissingError: the store does not answer.
    """
    if not files:
        return []
    wanted = [min(size, HEAD) for size in sizes]
    system = files[0].system()[0]
    paths = [file.system()[1] for file in files]
    with told(files[0], "read", InputMissingError):
        found = system.cat_ranges(paths, [0] * len(paths), wanted, on_error="return")
    return [
        some if isinstance(some, bytes) and len(some) == size else _alone(file, size)
        for file, some, size in zip(files, found, wanted, strict=True)
    ]


def _alone(file: Remote, size: int) -> bytes:
    """The same of one that failed, with patience; whoever reads it is told if it is gone."""
    try:
        return file.open(size).read(size)
    except InputMissingError:
        if file.known() is None:
            return b""
        raise
