"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resshift_cli.errors import OutputError


def make_folder(folder: Path) -> None:
    """Have a folder, with those above it.

    Raises:
        OutputError: it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The folder {folder} can't be made: {error.strerror}.",
            hint="Choose another folder, or remove what is in the way.",
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; the file written there takes its place in the end.

    If anything is raised, the temporary file is removed and what was at `path` stays as it was.

    Raises:
        OutputError: the file can't be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"{path} can't be written: {error.strerror}.",
            hint="Make room, or choose another folder.",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write(path: Path, content: bytes) -> None:
    """Write a whole file at once.

    Raises:
        OutputError: it can't be written; what was there stays as it was.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)
