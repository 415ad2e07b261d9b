"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from resshift_cli.errors import OutputError, printable
from resshift_cli.system import held

_TEMPORARY = re.compile(r"\.(.*)\.[0-9a-f]{8}\.tmp", re.DOTALL)
# What a full disk gives; not every system has all of them.
NO_ROOM = tuple(getattr(errno, n) for n in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, n))

_LONGEST = 32  # characters that stand for a name in its temporary one


def make_folder(folder: Path) -> None:
    """Have a folder, with those above it.

    Raises:
        OutputError: it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The folder {printable(folder)} can't be made: {reason(error)}.",
            hint="Choose another folder, or remove what is in the way.",
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` in the end, once it has reached the disk.

    It is as accessible as what it replaces. If anything is raised, the new file is removed and what
    was at `path` stays as it was.

    Raises:
        OutputError: the file can't be written. Whatever else the caller does meanwhile raises
            what it raises.
    """
    unfinished = temporary(path)
    try:
        with _told_of(path):
            raw = _Unfinished(unfinished, path)
        with io.BufferedWriter(raw) as file:
            yield file
            with _told_of(path):
                file.flush()
                held.give_access(file, held.state(path))
                os.fsync(file.fileno())
        with _told_of(path):
            os.replace(unfinished, path)
            sync_folder(path.parent)
    finally:
        remove(unfinished)


class _Unfinished(io.FileIO):
    """A new file that says of itself, by the name it will have, that it can't be written."""

    def __init__(self, path: Path, target: Path) -> None:
        super().__init__(path, "xb")
        self._target = target

    def write(self, data: Any, /) -> int:
        with _told_of(self._target):
            return super().write(data)


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{printable(path)} can't be written: {reason(error)}.",
            hint="Make room, or choose another folder.",
        ) from error


def write(path: Path, content: bytes) -> None:
    """Write a whole file at once.

    Raises:
        OutputError: it can't be written; what was there stays as it was.
    """
    with replacing(path) as file:
        file.write(content)


def temporary(target: Path) -> Path:
    """A new hidden name beside `target`; short, so that a name of 255 bytes is no trouble."""
    return target.with_name(temporary_name(target.name))


def temporary_name(name: str) -> str:
    """The same, as a name alone."""
    return f".{start_of(name)}.{secrets.token_hex(4)}.tmp"


def remove(path: Path) -> None:
    """Remove a file, if it is there and can be removed."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def remove_temporaries(targets: Iterable[Path]) -> None:
    """Remove what a killed process left under temporary names of these files, and nothing else."""
    starts: dict[Path, set[str]] = {}
    for target in targets:
        starts.setdefault(target.parent, set()).add(start_of(target.name))
    for folder, known in starts.items():
        remove_temporaries_in(folder, known.__contains__)


def remove_temporaries_in(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """The same in one folder, where `is_ours` is asked about the `start_of` files' names."""
    with suppress(OSError):
        for entry in os.scandir(folder):
            start = start_in(entry.name)
            if start and is_ours(start) and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)


def start_of(name: str) -> str:
    """What the temporary names of a file begin with, and those of no other file in its folder."""
    if len(name) <= _LONGEST:
        return name
    mark = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name[: _LONGEST - 9]}~{mark}"


def start_in(name: str) -> str:
    """The `start_of` the file that a temporary name stands for; "" of any other name."""
    match = _TEMPORARY.fullmatch(name)
    return match[1] if match else ""


def sync_folder(folder: Path) -> None:
    """Have new names in a folder reach the disk, where that can be asked for."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_full(error: BaseException | None) -> bool:
    """Whether an exception, or what it came from, says that a disk has no room for a file."""
    return _is_one_of(NO_ROOM, error)


def is_too_large(error: BaseException | None) -> bool:
    """Whether it says that one file may not be so large, so that smaller ones may find room."""
    return _is_one_of((errno.EFBIG,), error)


def _is_one_of(numbers: Collection[int], error: BaseException | None) -> bool:
    causes = (error, error.__cause__ if error else None)
    return any(isinstance(cause, OSError) and cause.errno in numbers for cause in causes)


def reason(error: OSError) -> str:
    """What the system says, for people."""
    return error.strerror or printable(error)
