"""Our own cache folder: where it is, its tables in JSON, and who may write there just now."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resshift_cli.errors import ModelUnavailableError, OutputError, printable
from resshift_cli.system import atomic, locks

VARIABLE = "RESSHIFT_CACHE"  # sets another folder


def folder() -> Path:
    """Where downloads, checksums and converted files lie."""
    import platformdirs

    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else platformdirs.user_cache_path("resshift")


def read_table(name: str) -> dict[str, Any]:
    """A table of the folder; empty if there is none.

    Raises:
        ModelUnavailableError: it is damaged.
    """
    path = folder() / name
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    except ValueError:
        table = None
    if not isinstance(table, dict):
        raise ModelUnavailableError(
            f"{printable(path)} is damaged: it is no table in JSON.",
            hint="Delete it; the checksums are then recorded anew.",
        )
    return table


@contextmanager
def editing(name: str) -> Iterator[dict[str, Any]]:
    """A table of the folder, which is written again in the end.

    Raises:
        ModelUnavailableError: it is damaged.
        OutputError: the folder can't be used.
    """
    with locked(name):
        table = read_table(name)
        yield table
        content = json.dumps(table, indent=1, sort_keys=True)
        atomic.write(folder() / name, content.encode())


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Keep other processes out; wait for one that is in.

    Raises:
        OutputError: the folder can't be used.
    """
    with usable(folder(), VARIABLE):
        lock = locks.waited_for(folder() / "locks" / f"{name}.lock")
    with lock:
        yield


@contextmanager
def usable(place: Path, variable: str) -> Iterator[None]:
    """Say of whatever the disk refuses that a cache can't be used.

    Args:
        place: the cache's folder.
        variable: of the environment, which sets another one.

    Raises:
        OutputError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        if atomic.is_full(error):
            raise OutputError(
                f"The disk is full: there is no room left in {printable(place)}.",
                hint=f"Make room and run it again, or set {variable} to a folder on another disk.",
            ) from error
        raise OutputError(
            f"The cache folder {printable(place)} can't be used: {atomic.reason(error)}.",
            hint=f"Set the variable {variable} to a folder that can be written to.",
        ) from error
