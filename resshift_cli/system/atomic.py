"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from resshift_cli.errors import OutputError, printable

_TEMPORARY = re.compile(r"\.(.*)\.[0-9a-f]{8}\.tmp", re.DOTALL)
_START = 32  # characters of a name that its temporary one begins with


def make_folder(folder: Path) -> None:
    """Have a folder, with those above it.

    Raises:
        OutputError: it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The folder {printable(folder)} can't be made: {_reason(error)}.",
            hint="Choose another folder, or remove what is in the way.",
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; the file written there takes its place in the end.

    If anything is raised, the temporary file is removed and what was at `path` stays as it was.

    Raises:
        OutputError: the file can't be written.
    """
    unfinished = temporary(path)
    try:
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        raise OutputError(
            f"{printable(path)} can't be written: {_reason(error)}.",
            hint="Make room, or choose another folder.",
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def write(path: Path, content: bytes) -> None:
    """Write a whole file at once.

    Raises:
        OutputError: it can't be written; what was there stays as it was.
    """
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


def temporary(target: Path) -> Path:
    """A new hidden name beside `target`; short, so that a name of 255 bytes is no trouble."""
    return target.with_name(f".{target.name[:_START]}.{secrets.token_hex(4)}.tmp")


def unnamed(folder: Path) -> BinaryIO | None:
    """A new file in a folder that is gone when it is closed, also by a kill, unless it is named.

    Returns:
        None where the system, or the file system, has no such files, or there is no /proc to name
        them by.
    """
    flag = getattr(os, "O_TMPFILE", None)  # Linux
    if flag is None or not os.path.isdir("/proc/self/fd"):
        return None
    try:
        return os.fdopen(os.open(folder, flag | os.O_RDWR, 0o666), "w+b")
    except OSError:  # whatever else is wrong, an ordinary file will tell
        return None


def name(file: BinaryIO, path: Path) -> None:
    """Give a file of `unnamed` a name that is not taken.

    Raises:
        OSError: it is taken, or can't be given.
    """
    root = os.open("/", os.O_RDONLY)
    try:
        # Only with a folder is the link in /proc followed.
        os.link(f"proc/self/fd/{file.fileno()}", path, src_dir_fd=root, follow_symlinks=True)
    finally:
        os.close(root)


def remove(path: Path) -> None:
    """Remove a file, if it is there and can be removed."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def remove_temporaries(targets: Iterable[Path]) -> None:
    """Remove what a killed process left under temporary names of these files, and nothing else."""
    starts: dict[Path, set[str]] = {}
    for target in targets:
        starts.setdefault(target.parent, set()).add(target.name[:_START])
    for folder, known in starts.items():
        with suppress(OSError):
            for entry in os.scandir(folder):
                match = _TEMPORARY.fullmatch(entry.name)
                if match and match[1] in known and entry.is_file(follow_symlinks=False):
                    os.unlink(entry.path)


def _reason(error: OSError) -> str:
    return error.strerror or printable(error)
